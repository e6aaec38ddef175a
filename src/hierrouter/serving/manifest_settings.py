"""How a router is to be served on a cluster, and whether Kubernetes and KServe will take it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from hierrouter.errors import ConfigError
from hierrouter.serving.slugs import LONGEST

VERSION = re.compile(r"models:/([A-Za-z0-9._-]+)/([1-9][0-9]*)")
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SECRET = rf"{LABEL}(\.{LABEL})*"
HOST_LABEL = 63
"""KServe makes a host name with NAME-predictor-NAMESPACE in it, also where nobody asks for it."""
SHORTEST_NAME = 16
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
SECRETS = {
    "mlflow_secret": (
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    ),
    "store_secret": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
    "hugging_face_secret": ("HF_TOKEN",),
}
"""Settings here and in the pipeline that name a secret which need not exist, and its keys, which
become variables of the same name."""


@dataclass(frozen=True)
class ManifestSettings:
    """How a router is to be served on a cluster."""

    router: str
    """The registered version, `models:/NAME/VERSION`."""
    mlflow_uri: str
    """Where it is registered: an address that pods reach."""
    image: str
    """The project's image."""
    namespace: str = "hierrouter"
    """Where the objects live."""
    keys_secret: str = "hierrouter-api-keys"
    """The secret whose key HIERROUTER_API_KEYS holds the keys of clients."""
    mlflow_secret: str = "hierrouter-mlflow"
    """The secret with MLflow's credentials; it need not exist."""
    store_secret: str = "hierrouter-store"
    """The secret with the object store's credentials; it need not exist."""
    hugging_face_secret: str = "hierrouter-hugging-face"
    """The secret with HF_TOKEN; it need not exist."""
    endpoint_secret: str = "hierrouter-endpoints"
    """The secret with the keys of the pool's endpoints, named as their variables."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets for pulling the image."""
    accelerator: str = "nvidia.com/gpu"
    """What a pool model asks for, as Kubernetes calls it."""
    accelerators: int = 1
    """How many of them a model gets; 0: it runs on processors."""
    timeout_s: int = 600
    """Seconds that a request may take on its way; above every deadline that clients send."""
    all_in_one: bool = False
    """Whether the router's pod runs the models, too, on processors."""


def longest_name(namespace: str) -> int:
    """Most characters of an InferenceService's name."""
    return min(LONGEST, HOST_LABEL - len(f"-predictor-{namespace}"))


def check(settings: ManifestSettings) -> None:
    """Makes sure that Kubernetes and KServe will take the settings.

    Raises:
        ConfigError: one of them they would not.
    """
    if "@" in settings.router:
        raise ConfigError(
            f"--router {settings.router}: an alias may be another version for the next pod, and "
            "pods of one deployment must agree; name models:/NAME/VERSION"
        )
    if not VERSION.fullmatch(settings.router):
        raise ConfigError(
            f"--router {settings.router}: name a registered version, models:/NAME/VERSION"
        )
    address = urlsplit(settings.mlflow_uri)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(
            f"--mlflow-uri {settings.mlflow_uri}: give the address of a server, http://… or "
            "https://…, as pods reach it"
        )
    if "@" in address.netloc:
        raise ConfigError(
            "--mlflow-uri: give the address without its password, which everybody could read; the "
            f"secret {settings.mlflow_secret} holds MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    if not settings.image or any(letter.isspace() for letter in settings.image):
        raise ConfigError(f"--image {settings.image!r}: name an image, best by its digest")
    if not re.fullmatch(LABEL, settings.namespace) or len(settings.namespace) > HOST_LABEL:
        raise ConfigError(
            f"--namespace {settings.namespace}: give small letters, digits and dashes, at most 63"
        )
    if longest_name(settings.namespace) < SHORTEST_NAME:
        most = HOST_LABEL - len("-predictor-") - SHORTEST_NAME
        raise ConfigError(
            f"--namespace {settings.namespace} is too long: KServe's host names hold it beside a "
            f"model's name; take one of at most {most} characters"
        )
    secrets = [(each, getattr(settings, each)) for each in ("keys_secret", *SECRETS)]
    secrets += [("endpoint_secret", settings.endpoint_secret)]
    secrets += [("pull_secret", each) for each in settings.pull_secrets]
    for setting, name in secrets:
        if not re.fullmatch(SECRET, name):
            flag = setting.replace("_", "-")
            raise ConfigError(f"--{flag} {name}: this is no name of a secret")
    if not re.fullmatch(rf"{SECRET}/[A-Za-z0-9][-A-Za-z0-9_.]*", settings.accelerator):
        raise ConfigError(
            f"--accelerator {settings.accelerator}: give it as Kubernetes calls it, such as "
            "nvidia.com/gpu or amd.com/gpu"
        )


def refuse_loopback(settings: ManifestSettings) -> None:
    """Makes sure that MLflow's address is not that of whatever machine asks.

    Raises:
        ConfigError: it is.
    """
    if urlsplit(settings.mlflow_uri).hostname in LOOPBACK:
        raise ConfigError(
            f"--mlflow-uri {settings.mlflow_uri}: in a pod this is the pod itself; give an address "
            "within the cluster, such as http://mlflow-dev.kubeflow:5000"
        )

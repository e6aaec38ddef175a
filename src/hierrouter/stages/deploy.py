"""Serving what a pipeline run has registered, as its optional last stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from hierrouter.config import PoolConfig
from hierrouter.configfile import load_part
from hierrouter.errors import ConfigError
from hierrouter.files import write_text
from hierrouter.progress import say
from hierrouter.serving.deploy import Services, own_namespace
from hierrouter.serving.manifest_settings import ManifestSettings
from hierrouter.serving.manifests import ROUTER, made_objects
from hierrouter.tracking.champion import champion_of
from hierrouter.tracking.store import tracking_uri, use_tracking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def deploy(
    pool: str,
    version: str,
    image: str,
    manifest: Path,
    apply: bool,
    namespace: str = "",
    mlflow_uri: str = "",
    keys_secret: str = ManifestSettings.keys_secret,
    all_in_one: bool = False,
    wait_s: float = 1800.0,
    poll_s: float = 5.0,
    mlflow_secret: str = ManifestSettings.mlflow_secret,
    store_secret: str = ManifestSettings.store_secret,
    hugging_face_secret: str = ManifestSettings.hugging_face_secret,
    endpoint_secret: str = ManifestSettings.endpoint_secret,
    pull_secrets: Sequence[str] = (),
) -> str:
    """Deploys the version that this run registered, if it is the champion.

    Args:
        pool: the pool part of a config, as YAML or JSON.
        version: what `register` gave, `models:/NAME/VERSION`.
        image: the project's image.
        manifest: the file for the router's InferenceService; it holds a comment alone where
            another version is the champion.
        apply: whether the InferenceService is applied and waited for; else it is only written.
        namespace: where; empty: this pod's own.
        mlflow_uri: the tracking server; empty: as MLFLOW_TRACKING_URI says.
        keys_secret: the secret with the keys of clients.
        all_in_one: whether the router's pod runs the models, too.
        wait_s: seconds after which what is not ready has failed.
        poll_s: seconds between two looks at it.
        mlflow_secret: the secret with MLflow's credentials.
        store_secret: the secret with the object store's credentials.
        hugging_face_secret: the secret with HF_TOKEN.
        endpoint_secret: the secret with the keys of the pool's endpoints.
        pull_secrets: secrets for pulling the image.

    Returns:
        Where it answers; empty if nothing was applied.

    Raises:
        ConfigError: an argument is wrong, or no namespace is known.
        HierRouterError: MLflow or the cluster refuses, or it is not ready in time.
        UnreachableError: MLflow or the cluster does not answer.
    """
    config = load_part(PoolConfig, pool, "pool")
    use_tracking(mlflow_uri)
    name = version.removeprefix("models:/").partition("/")[0]
    champion = champion_of(name)
    if champion != version:
        line = f"{version} is not deployed: the champion is {champion or 'no version at all'}"
        write_text(manifest, f"# {line}\n")
        say(f"{line}; make it the champion in MLflow, then run `hierrouter manifests`")
        return ""
    where = namespace or own_namespace()
    if not where:
        raise ConfigError("no namespace is known here; name the one to deploy into")
    settings = ManifestSettings(
        router=version,
        mlflow_uri=tracking_uri(),
        image=image,
        namespace=where,
        keys_secret=keys_secret,
        mlflow_secret=mlflow_secret,
        store_secret=store_secret,
        hugging_face_secret=hugging_face_secret,
        endpoint_secret=endpoint_secret,
        pull_secrets=tuple(pull_secrets),
        all_in_one=all_in_one,
    )
    (service,) = made_objects(config, settings)[ROUTER]
    write_text(manifest, yaml.safe_dump(service, sort_keys=False, width=100))
    if not apply:
        say(f"{version}: its InferenceService is written, and applied by whoever takes it up")
        return ""
    services = Services(where, poll_s)
    seen = services.apply(service)
    address = services.wait(service["metadata"]["name"], seen, wait_s)
    say(f"{version} answers at {address}")
    return address

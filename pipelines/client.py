"""A connection to Kubeflow Pipelines that is known to answer; its failures become one line."""

import contextlib
import io
import json
import os
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client import ServiceAccountTokenVolumeCredentials
from kfp_server_api import rest

from hierrouter.errors import ConfigError, HierRouterError, UnreachableError

TOKEN, TOKEN_FILE = "KF_PIPELINES_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH"
"""Variables: a token, or the file of a service account's."""
TRIES = urllib3.Retry(2, backoff_factor=0.5)


@dataclass(frozen=True)
class Cluster:
    """Kubeflow Pipelines somewhere.

    Attributes:
        client: kfp's own client.
        host: its address.
        namespace: the user's namespace; empty where there is one for all.
    """

    client: Any
    host: str
    namespace: str


@contextlib.contextmanager
def connected(host: str | None, namespace: str | None, ca_file: Path | None) -> Iterator[Cluster]:
    """Connects as people do: address and namespace, a token or a service account's, own authority.

    Args:
        host: the address; a port-forward will do.
        namespace: the profile's namespace; none: as the server says.
        ca_file: the certificate of the authority behind the server's; none: the system's.

    Raises:
        ConfigError: no address, or a file that is not there.
        UnreachableError: nothing answers there, or it is no Kubeflow Pipelines.
        HierRouterError: it refuses.
    """
    if not host:
        raise ConfigError(
            "no address of Kubeflow Pipelines; give --host or set KF_PIPELINES_ENDPOINT (to reach "
            "a cluster without an address: kubectl port-forward -n kubeflow svc/ml-pipeline-ui "
            "8080:80, then --host http://localhost:8080)"
        )
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError(f"--ca-file {ca_file}: there is no such file")
    # It prints addresses of its own.
    printed = contextlib.redirect_stdout(io.StringIO())
    with _in_one_line(host), warnings.catch_warnings(), printed:
        warnings.simplefilter("ignore")
        # The client asks five times, with pauses, even where the token is wrong.
        _require_answer(host, ca_file)
        client = kfp.Client(
            host=address(host),
            existing_token=os.environ.get(TOKEN) or None,
            credentials=_service_account(),
            ssl_ca_cert=None if ca_file is None else str(ca_file),
            ui_host=address(host),
        )
        client._run_api.api_client.configuration.retries = TRIES
        health = client.get_kfp_healthz()
        if namespace is None and health.multi_user:
            namespace = client.get_user_namespace()
            if not namespace:
                raise ConfigError(
                    f"{host} serves several users; give --namespace, that of your profile"
                )
        yield Cluster(client, host, namespace or "")


def address(host: str) -> str:
    """The address of a host that may be named without its scheme."""
    return (host if "://" in host else f"http://{host}").rstrip("/")


def _require_answer(host: str, ca_file: Path | None) -> None:
    """Asks for the health of what is at an address.

    Raises:
        kfp_server_api.ApiException: it refuses.
        urllib3.exceptions.HTTPError: it does not answer.
        ConfigError: it wants another scheme.
        HierRouterError: it wants a login, or is something else.
    """
    token = os.environ.get(TOKEN)
    if not token and (path := os.environ.get(TOKEN_FILE)) and Path(path).is_file():
        token = Path(path).read_text(encoding="utf-8").strip()
    with urllib3.PoolManager(ca_certs=None if ca_file is None else str(ca_file)) as pool:
        answer = pool.request(
            "GET",
            f"{address(host)}/apis/v2beta1/healthz",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            retries=TRIES,
            timeout=10.0,
            redirect=False,
        )
    there = str(answer.headers.get("Location") or "")
    secure = address(host).replace("http://", "https://")
    if 300 <= answer.status < 400 and there.startswith(f"{secure}/"):
        raise ConfigError(f"{host} wants to be asked by https; give https://…")
    if 300 <= answer.status < 400:
        raise HierRouterError(
            f"{host} sends us on to {there[:100]}, a login it seems; "
            f"set {TOKEN} to a token that is valid, or go by a port-forward"
        )
    if answer.status != 200:
        raise kfp_server_api.ApiException(http_resp=rest.RESTResponse(answer))
    try:
        health = json.loads(answer.data)
    except ValueError:
        health = None
    if not isinstance(health, dict):
        raise UnreachableError(
            f"{host} answers, but not as Kubeflow Pipelines; give the address of its API or of its "
            "UI"
        )


def _service_account() -> Any:
    path = os.environ.get(TOKEN_FILE)
    if not path or os.environ.get(TOKEN):
        return None
    if not Path(path).is_file():
        raise ConfigError(f"{TOKEN_FILE}: there is no file {path}")
    return ServiceAccountTokenVolumeCredentials(path)


@contextlib.contextmanager
def _in_one_line(host: str) -> Iterator[None]:
    """Turns what the client raises into one line that names the culprit and the remedy."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise refusal(host, error) from error
    except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise UnreachableError(
            f"Kubeflow Pipelines at {host} does not answer ({_first_cause(error)}); look at the "
            "address and the network, or start the port-forward again"
        ) from error


def refusal(host: str, error: Any) -> HierRouterError:
    """What a refusal of the server means."""
    body = error.body or error.reason or ""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    said = " ".join(text.split())[:200]
    if error.status in (401, 403):
        return HierRouterError(
            f"Kubeflow Pipelines at {host} refused the credentials ({error.status}: {said}); set "
            f"{TOKEN} to a token that is valid, or {TOKEN_FILE} to a service account's file, and "
            "look whether it may use this namespace"
        )
    if not said.startswith("{"):
        return UnreachableError(
            f"{host} answers, but not as Kubeflow Pipelines ({error.status}: {said}); give the "
            "address of its API or of its UI"
        )
    return HierRouterError(f"Kubeflow Pipelines at {host} refused ({error.status}: {said})")


def _first_cause(error: BaseException) -> str:
    while inner := error.__cause__ or error.__context__:
        error = inner
    return " ".join(str(error).split())[:160] or type(error).__name__

"""The stage: a router's folder or registered version becomes a server."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hierrouter.config import Endpoint
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import read_json
from hierrouter.learning.router import Router
from hierrouter.progress import say
from hierrouter.serving.journal import json_logs
from hierrouter.serving.keys import VARIABLE, find_keys
from hierrouter.serving.knobs import alpha_note, require_alpha
from hierrouter.serving.open import open_player
from hierrouter.tracking.resolve import NOTE

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT_KEY = "HIERROUTER_ENDPOINT_KEY"
"""The variable with the key for the servers of `--endpoint`; not set: none is sent."""
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What can stand in a URL's path and be told from other parts of it."""


@dataclass(frozen=True)
class ServeSettings:
    """How a router is served."""

    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = 8080
    """Its port; 0: any that is free."""
    name: str = "hierrouter"
    """What the router is called in requests."""
    alpha: float = 0.1
    """Quality given up for one cost unit saved, where a request says nothing."""
    keys: Path | None = None
    """A file with keys, one a line."""
    no_auth: bool = False
    """Whether no key is asked for also where others can reach the server."""
    endpoints: tuple[str, ...] = ()
    """NAME=URL, or NAME=URL#MODEL, of servers that answer for models of the pool."""
    endpoint_timeout_s: float = 300.0
    """Seconds that such a server may take for a reply."""
    endpoint_calls: int = 32
    """Calls that may be under way at each of them."""
    endpoint_keys: tuple[str, ...] = ()
    """Variables whose keys may be sent to servers that the router names."""
    most_requests: int = 128
    """Queries under way at the same time; where there is no room for one, 429."""
    most_bytes: int = 1_000_000
    """The longest body of a request."""
    grace_s: int = 60
    """Seconds for requests under way when the server is told to end."""
    playground: bool = True
    """Whether `/playground` is there."""
    log_texts: bool = False
    """Whether questions and answers are logged and traced."""
    trace_share: float = 0.0
    """Share of requests that become MLflow traces."""


def serve(folder: Path, settings: ServeSettings) -> None:
    """Serves a router until it is told to end.

    Args:
        folder: the router.
        settings: how.

    Raises:
        ConfigError: a setting cannot be followed, or the server would be open to all.
        HierRouterError: the router or a model cannot be used, or KServe is not installed.
    """
    if not NAME.fullmatch(settings.name):
        raise ConfigError(
            f"--name {settings.name!r}: give 1 to 63 letters, digits, dots, dashes or underscores, "
            "a letter or digit first: it stands in addresses and is asked for as a model"
        )
    require_alpha(settings.alpha)
    with json_logs(settings.log_texts):
        _serve(folder, settings)


def _serve(folder: Path, settings: ServeSettings) -> None:
    keys = find_keys(settings.keys)
    local = settings.host in LOOPBACK_HOSTS
    if keys is None and not local and not settings.no_auth:
        raise ConfigError(
            f"--host {settings.host} lets others reach the server, and there is no key: give keys "
            f"(--api-keys FILE, or {VARIABLE}), or --no-auth where something else keeps them out"
        )
    endpoints = dict(_endpoint(text, settings) for text in settings.endpoints)
    router = Router.load(folder)
    if note := alpha_note(router.info, settings.alpha):
        say(note)
    _require_free(settings.host, settings.port)
    if find_spec("kserve") is None:
        raise HierRouterError("KServe is not installed; `pip install -e '.[serving]'` in the clone")
    player = open_player(router, endpoints, settings.endpoint_keys)

    from hierrouter.serving.gate import Rules
    from hierrouter.serving.gauges import Gauges
    from hierrouter.serving.openai_routes import openai_router
    from hierrouter.serving.playground import playground_router
    from hierrouter.serving.server import run_server
    from hierrouter.serving.service import Identity, Service

    tracer = None
    if settings.trace_share > 0:
        from hierrouter.tracking.traces import Tracer

        tracer = Tracer(settings.trace_share, f"{settings.name}-serving")
    digest = router.info.weights_sha256
    identity = Identity(settings.name, _version(folder, digest), digest)
    service = Service(
        player,
        identity,
        settings.alpha,
        Gauges(),
        most=settings.most_requests,
        log_texts=settings.log_texts,
        tracer=tracer,
    )
    rules = Rules(
        keys=keys,
        most_bytes=settings.most_bytes,
        only_loopback=keys is None and not settings.no_auth,
    )
    run_server(
        service,
        lambda: [openai_router(service), *([playground_router()] if settings.playground else [])],
        rules,
        settings.host,
        settings.port,
        settings.grace_s,
        f"/openai/v1 (model {settings.name}; {'with' if keys else 'without'} keys)"
        f"{', playground at /playground' if settings.playground else ''}",
    )


def _endpoint(text: str, settings: ServeSettings) -> tuple[str, Endpoint]:
    """Reads NAME=URL, or NAME=URL#MODEL where the server calls the model otherwise."""
    name, found, address = text.partition("=")
    if not found or not name:
        raise ConfigError(f"--endpoint {text}: give NAME=URL, for example small=http://small/v1")
    url, _, served = address.partition("#")
    try:
        return name, Endpoint(
            url=url,
            served_name=served,
            api_key_env=ENDPOINT_KEY,
            timeout_s=settings.endpoint_timeout_s,
            concurrency=settings.endpoint_calls,
        )
    except ValueError as error:
        reason = str(error).splitlines()[2].strip().removeprefix("Value error, ")
        raise ConfigError(f"--endpoint {text}: {reason.partition(' [')[0]}") from error


def _version(folder: Path, digest: str) -> str:
    """The registered version, where the folder was fetched from MLflow; else the digest's begin."""
    if not (folder / NOTE).is_file():
        return digest[:12]
    try:
        return str(read_json(folder / NOTE)["version"])
    except (HierRouterError, KeyError, TypeError):
        return digest[:12]


def _require_free(host: str, port: int) -> None:
    """Tells that a port is taken before minutes are spent on loading models."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened at ({error}); choose another"
        ) from error

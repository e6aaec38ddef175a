"""From a router's folder to a player: encoder, models, and what serving changes of the pool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hierrouter.config import EncoderConfig, Endpoint, PoolConfig
from hierrouter.errors import ConfigError, DamagedFileError
from hierrouter.pool.live.fleet import Fleet
from hierrouter.progress import say
from hierrouter.routes.encoder import open_matching_encoder
from hierrouter.serving.player import Player
from hierrouter.serving.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hierrouter.learning.router import Router

LONGEST = 80
"""Characters of a wrong field's name, and of what is wrong with it, that are shown."""


def open_player(
    router: Router,
    endpoints: Mapping[str, Endpoint] | None = None,
    keys: Collection[str] | None = (),
) -> Player:
    """Opens encoder and models of a router; models are loaded when the fleet is started or used.

    Args:
        router: the router.
        endpoints: servers that answer for models of its pool, by the models' names.
        keys: variables whose keys may be sent to servers that the router itself names; none: any,
            as its maker is whoever runs this.

    Raises:
        ConfigError: an endpoint is of no model of the pool, or wants a key that may not be sent.
        HierRouterError: the encoder or a model is not the one the router was trained with, or
            cannot be had.
    """
    pool, encoder, identity = _described(router)
    pool = with_endpoints(pool, endpoints or {})
    for spec in pool.models:
        # Whoever made the router chose these addresses; whoever serves it has to see them, and to
        # say which keys they may have.
        if spec.endpoint is not None:
            wanted = "" if spec.name in (endpoints or {}) else spec.endpoint.api_key_env
            if wanted and keys is not None and wanted not in keys:
                raise ConfigError(
                    f"the router wants to send the key in {wanted} to {spec.endpoint.url} (model "
                    f"{spec.name}); where that is right, add --endpoint-key {wanted}"
                )
            variable = spec.endpoint.api_key_env
            key = f", key from {variable}" if os.environ.get(variable, "").strip() else ""
            say(f"{spec.name} is answered for by {spec.endpoint.url}{key}")
    vectors = Vectors(open_matching_encoder(encoder, identity))
    fleet = Fleet(pool, router.info.weights, logprobs=router.stages.most_answers > 0)
    return Player(router, pool, fleet, vectors)


def _described(router: Router) -> tuple[PoolConfig, EncoderConfig, dict[str, Any]]:
    """Pool and encoder of a router, as its description says, and the encoder's identity."""
    info = router.info
    try:
        pool = PoolConfig.model_validate(info.config["pool"])
        encoder = EncoderConfig.model_validate(info.encoder["config"])
        identity = dict(info.encoder["identity"])
        names = tuple(spec.name for spec in pool.models)
        if names != info.models or info.hops > pool.hops or not set(names) <= set(info.weights):
            raise ValueError("its pool is not the one that its policy chooses from")
    except (KeyError, TypeError, ValueError) as error:
        reason = _reason(error)
        raise DamagedFileError(
            f"the router's router.json does not describe what it needs ({reason}); copy the router "
            "again or train it anew"
        ) from error
    return pool, encoder, identity


def _reason(error: Exception) -> str:
    """What is wrong with a description, in one line."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    first = error.errors()[0]
    # The file chose both, and the screen shows them.
    place = ascii(".".join(map(str, first["loc"]))[:LONGEST])
    told = "".join(filter(str.isprintable, first["msg"]))[:LONGEST]
    return f"{place}: {told}"


def with_endpoints(pool: PoolConfig, endpoints: Mapping[str, Endpoint]) -> PoolConfig:
    """A pool, some of whose models are answered for by servers.

    Raises:
        ConfigError: an endpoint is of no model of the pool.
    """
    names = [spec.name for spec in pool.models]
    for name in endpoints:
        if name not in names:
            raise ConfigError(
                f"--endpoint {name}=…: the pool has no such model (there are {', '.join(names)})"
            )
    models = []
    for spec in pool.models:
        if spec.name in endpoints:
            given = {"backend": "openai", "endpoint": endpoints[spec.name], "dtype": "auto"}
            spec = spec.model_copy(update={**given, "scripted": None})
        models.append(spec)
    return pool.model_copy(update={"models": models})

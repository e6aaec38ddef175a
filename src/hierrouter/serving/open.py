"""From a router's folder to a player: encoder, models, and what serving changes of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.config import EncoderConfig, Endpoint, PoolConfig
from hierrouter.errors import ConfigError
from hierrouter.pool.live.fleet import Fleet
from hierrouter.routes.encoder import open_matching_encoder
from hierrouter.serving.player import Player
from hierrouter.serving.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hierrouter.learning.router import Router


def open_player(router: Router, endpoints: Mapping[str, Endpoint] | None = None) -> Player:
    """Opens encoder and models of a router; models are loaded when the fleet is started or used.

    Args:
        router: the router.
        endpoints: servers that answer for models of its pool, by the models' names.

    Raises:
        ConfigError: an endpoint is of no model of the pool.
        HierRouterError: the encoder or a model is not the one the router was trained with, or
            cannot be had.
    """
    pool = PoolConfig.model_validate(router.info.config["pool"])
    pool = with_endpoints(pool, endpoints or {})
    encoder = router.info.encoder
    config = EncoderConfig.model_validate(encoder["config"])
    vectors = Vectors(open_matching_encoder(config, encoder["identity"]))
    return Player(router, pool, Fleet(pool, router.info.weights), vectors)


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

"""Routers of arbitrary weights: for what depends on a router's form and not on what it learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.network import Network, Projection
from hierrouter.learning.router import Router, RouterInfo
from hierrouter.pool.open import identity
from hierrouter.routes.encoder import encoder_identity

if TYPE_CHECKING:
    from hierrouter.config import PoolConfig


def arbitrary_router(pool: PoolConfig, moves: str = "early_exit", seed: int = 0) -> Router:
    """A router for a pool whose encoder is the hashing one."""
    rng = np.random.default_rng(seed)
    models, kept, stage = len(pool.models), 4, 2
    width = pool.encoder.dimensions

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(rng.normal(size=shape), dtype=np.float32)

    network = Network(
        stage=draw(pool.hops, stage),
        first_weight=draw(6, kept + 2 + stage),
        first_bias=draw(6),
        second_weight=draw(6, 6),
        second_bias=draw(6),
        action_weight=draw(2 * models + 1, 6),
        action_bias=draw(2 * models + 1),
    )
    projection = Projection(draw(width), draw(kept, width), np.asarray(0.7, dtype=np.float32))
    encoder = {
        "config": pool.encoder.model_dump(mode="json"),
        "identity": encoder_identity(pool.encoder),
    }
    info = RouterInfo(
        models=tuple(spec.name for spec in pool.models),
        hops=pool.hops,
        moves=moves,  # type: ignore[arg-type]
        metric="accuracy",
        view="paper",
        activation="tanh",
        alpha_range=(0.0, 1.0),
        cost_unit_usd=0.05,
        encoder=encoder,
        dimensions={"embedding": width, "projection": kept, "actions": 2 * models + 1},
        config={"pool": pool.model_dump(mode="json")},
        weights={spec.name: identity(spec)["weights_digest"] for spec in pool.models},
        scorer_version=1,
        query_digest="q",
        tree_digest="t",
        training_query_hashes=(),
        data_seed=0,
        training_seed=0,
        validation={"reward": 0.5, "iteration": 1.0, "queries": 3.0},
    )
    return Router(info, projection, network)

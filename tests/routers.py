"""Routers of arbitrary weights: for what depends on a router's form and not on what it learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.learning.answers import AnswerScale
from hierrouter.learning.features import Features
from hierrouter.learning.heads import Heads
from hierrouter.learning.mlp import Mlp
from hierrouter.learning.projection import Projection
from hierrouter.learning.rests import Rests
from hierrouter.learning.router import Router, RouterInfo
from hierrouter.learning.stages import Stages
from hierrouter.pool.open import identity
from hierrouter.routes.encoder import encoder_identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.config import PoolConfig


def arbitrary_policy(
    width: int,
    models: int,
    hops: int,
    seed: int = 0,
    policy: str = "decomposed",
    moves: str = "early_exit",
    **mlp: Any,
) -> Heads | Mlp:
    """A policy that reads embeddings of this width; `mlp` may be an MLP's `activation`."""
    rng = np.random.default_rng(seed)
    actions = 2 * models + 1

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(rng.normal(size=shape), dtype=np.float32)

    def projection(kept: int) -> Projection:
        return Projection(draw(width), draw(kept, width), np.asarray(0.7, dtype=np.float32))

    if policy == "mlp":
        kept, stage, first, second = 3, 2, 5, 6
        return Mlp(
            projection=projection(kept),
            activation=mlp.get("activation", "tanh"),
            stage=draw(hops, stage),
            first_weight=draw(first, kept + 1 + stage),
            first_bias=draw(first),
            second_weight=draw(second, first),
            second_bias=draw(second),
            action_weight=draw(actions, second),
            action_bias=draw(actions),
        )
    tasks, kept, centres = 2, 4, draw(3, width)
    features = Features(
        query=projection(kept),
        context=projection(3),
        task_weight=draw(tasks, kept),
        task_bias=draw(tasks),
        centres=centres / np.linalg.norm(centres, axis=1, keepdims=True),
    )
    stages = Stages(models, hops, moves)  # type: ignore[arg-type]
    if stages.answered:
        answers = AnswerScale.fit(rng.normal(size=(9, 4)) ** 2, stages.most_answers)
        features = replace(features, answers=answers)
    whole = (len(stages), actions, features.size)
    heads = Heads(features, draw(*whole), draw(*whole), np.asarray(0.5, dtype=np.float32))
    if stages.answered:
        heads = replace(heads, belief=draw(len(stages.answered), models, features.size))
    rests = Rests(stages)
    if rests.calls and rests.limits:
        size = (len(rests.limits), len(rests.calls), features.size)
        quality, cost = np.zeros(size, np.float32), np.zeros(size, np.float32)
        # Chances and a 1: whatever the query, a call gives less where less is left of the rest.
        never_negative = slice(0, features.blocks[1].stop)
        for each, sign in ((quality, -1), (cost, 1)):
            part = each[..., never_negative]
            part[:] = 3 * sign * np.abs(draw(*part.shape))
        heads = replace(heads, rest_quality=quality, rest_cost=cost)
    return heads


def arbitrary_info(
    models: Sequence[str], hops: int, policy: Heads | Mlp, **said: Any
) -> RouterInfo:
    """What a router with this policy says of itself; `said` replaces or adds to it."""
    width, actions = policy.width, 2 * len(models) + 1
    blank = np.zeros((1, width), np.float32)
    return RouterInfo.model_validate(
        {
            "models": tuple(models),
            "hops": hops,
            "moves": "early_exit",
            "metric": "accuracy",
            "view": "paper",
            "policy": "mlp" if isinstance(policy, Mlp) else "decomposed",
            "activation": policy.activation if isinstance(policy, Mlp) else "tanh",
            "alpha_range": (0.0, 1.0),
            "cost_unit_usd": 0.05,
            "encoder": {"config": {"model": "hashing"}, "identity": {}},
            "dimensions": {
                "embedding": width,
                "state": policy.state(blank, blank).shape[1],
                "actions": actions,
            },
            "config": {},
            "weights": dict.fromkeys(models, "w"),
            "scorer_version": 1,
            "query_digest": "q",
            "tree_digest": "t",
            "training_query_hashes": (),
            "data_seed": 0,
            "training_seed": 0,
            "validation": {"reward": 0.5, "iteration": 1.0, "queries": 3.0},
            **said,
        }
    )


def arbitrary_router(
    pool: PoolConfig, moves: str = "early_exit", seed: int = 0, policy: str = "decomposed"
) -> Router:
    """A router for a pool whose encoder is the hashing one."""
    names = [spec.name for spec in pool.models]
    made = arbitrary_policy(pool.encoder.dimensions, len(names), pool.hops, seed, policy, moves)
    info = arbitrary_info(
        names,
        pool.hops,
        made,
        moves=moves,
        encoder={
            "config": pool.encoder.model_dump(mode="json"),
            "identity": encoder_identity(pool.encoder),
        },
        config={"pool": pool.model_dump(mode="json")},
        weights={spec.name: identity(spec)["weights_digest"] for spec in pool.models},
    )
    return Router(info, made)

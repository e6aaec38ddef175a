"""Hand-made outcomes whose best routes are known, and a small recipe that finds them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.routers import arbitrary_info, arbitrary_policy

from hierrouter.config import PoolConfig, TrainingConfig
from hierrouter.learning.contexts import RecordedContexts
from hierrouter.learning.environment import Game
from hierrouter.learning.router import Router
from hierrouter.routes.outcomes import Outcomes, context_paths

if TYPE_CHECKING:
    from collections.abc import Callable


def random_outcomes(
    n: int = 12, models: int = 2, hops: int = 2, seed: int = 0, width: int = 4
) -> Outcomes:
    """Arbitrary outcomes of two tasks; the first two thirds of the queries are for training."""
    rng = np.random.default_rng(seed)
    contexts = context_paths(models, hops)
    shape = (n, len(contexts), models)
    last = np.array([len(path) == hops - 1 for path in contexts])
    return Outcomes(
        query_ids=tuple(f"q/{k}" for k in range(n)),
        tasks=np.array(["ab"[k % 2] for k in range(n)]),
        train=np.arange(n) < max(2 * n // 3, 1),
        folds=np.zeros(n, dtype=np.int64),
        models=tuple("ABCDEFGH"[:models]),
        hops=hops,
        metric="accuracy",
        embeddings=rng.normal(size=(*shape[:2], width)).astype(np.float32),
        analyze_cost=rng.uniform(0.1, 1, shape) * ~last[:, None],
        solve_cost=rng.uniform(0.1, 1, shape),
        solve_quality=rng.integers(0, 2, shape).astype(np.float64),
    )


def direct_world(n: int = 240) -> Outcomes:
    """The first embedding column says which of two models is right; a hop only costs."""
    world = random_outcomes(n, seed=1)
    kind = np.arange(n) % 2
    embeddings = world.embeddings * 0.2
    embeddings[:, :, 0] = np.where(kind == 0, -1.0, 1.0)[:, None]
    quality = np.zeros_like(world.solve_quality)
    quality[np.arange(n), :, kind] = 1.0
    return replace(
        world,
        tasks=np.array(["t"] * n),
        embeddings=embeddings.astype(np.float32),
        solve_quality=quality,
        solve_cost=np.full_like(world.solve_cost, 1.0),
        analyze_cost=np.where(world.analyze_cost > 0, 1.0, 0.0),
    )


def hop_world(n: int = 400) -> Outcomes:
    """Only an analysis by the model that column 0 names shows, in column 1, who can answer."""
    world = random_outcomes(n, seed=2)
    rng = np.random.default_rng(3)
    reader, solver = rng.integers(2, size=n), rng.integers(2, size=n)
    embeddings = np.zeros_like(world.embeddings)
    embeddings[:, :, 0] = (2.0 * reader - 1)[:, None]
    embeddings[np.arange(n), 1 + reader, 1] = 2.0 * solver - 1
    quality = np.zeros_like(world.solve_quality)
    quality[:, 0] = 0.3
    quality[np.arange(n), 1 + reader, solver] = 1.0
    return replace(
        world,
        tasks=np.array(["t"] * n),
        embeddings=embeddings.astype(np.float32),
        solve_quality=quality,
        solve_cost=np.full_like(world.solve_cost, 1.0),
        analyze_cost=np.where(world.analyze_cost > 0, 1.0, 0.0),
    )


def tree_json(outcomes: Outcomes) -> dict[str, Any]:
    """What training reads of `tree.json`."""
    models = [
        {"name": name, "model": name, "backend": "scripted", "base_rate": 1.0, "scripted": {}}
        for name in outcomes.models
    ]
    pool = {"models": models, "hops": outcomes.hops, "encoder": {"model": "hashing"}}
    return {
        "pool": PoolConfig.model_validate(pool).model_dump(mode="json"),
        "encoder": {"model": "hashing", "dimensions": outcomes.embeddings.shape[2]},
        "data": {"config": {"seed": 5}},
        "query_digest": "q" * 64,
        "tree_digest": "t" * 64,
        "weights": dict.fromkeys(outcomes.models, "w" * 64),
        "scorer_version": 1,
    }


def game_on(outcomes: Outcomes, moves: str = "early_exit", unit: float = 0.5, **bounds) -> Game:
    """A game whose states are the embeddings themselves."""
    low, high = bounds.get("low", 0.0), bounds.get("high", 0.5)
    contexts = RecordedContexts(outcomes, outcomes.embeddings, unit)
    limited = bounds.get("limited", 0.0)
    return Game(contexts, moves, low, high, limited)  # type: ignore[arg-type]


def small_recipe(**changes: Any) -> TrainingConfig:
    """A recipe of a second or two."""
    return TrainingConfig(
        **{
            "iterations": 40,
            "rollouts": 32,
            "steps": 8,
            "minibatches": 2,
            "epochs": 6,
            "learning_rate": 3e-3,
            "entropy_coefficient": 0.02,
            "hidden": [32, 32],
            "projection": None,
            **changes,
        }
    )


def random_router(
    outcomes: Outcomes,
    moves: str = "early_exit",
    seed: int = 0,
    policy: str = "decomposed",
    **mlp: Any,
) -> Router:
    """A router with arbitrary weights for a pool; `mlp` may be an MLP's `activation`."""
    width, models = outcomes.embeddings.shape[2], len(outcomes.models)
    made = arbitrary_policy(width, models, outcomes.hops, seed, policy, moves, **mlp)
    config = {"pool": tree_json(outcomes)["pool"]}
    said = {"moves": moves, "cost_unit_usd": 0.5, "config": config}
    return Router(arbitrary_info(outcomes.models, outcomes.hops, made, **said), made)


@pytest.fixture
def make_outcomes() -> Callable[..., Outcomes]:
    return random_outcomes


@pytest.fixture
def make_game() -> Callable[..., Game]:
    return game_on


@pytest.fixture
def make_router() -> Callable[..., Router]:
    return random_router


@pytest.fixture
def recipe() -> Callable[..., TrainingConfig]:
    return small_recipe


@pytest.fixture
def describe() -> Callable[[Outcomes], dict[str, Any]]:
    return tree_json


@pytest.fixture
def direct() -> Outcomes:
    return direct_world()


@pytest.fixture
def hop() -> Outcomes:
    return hop_world()

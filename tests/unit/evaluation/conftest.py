"""Hand-made outcomes and choosers, so that every expected value can be worked out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hierrouter.evaluation.policies.arena import Arena, Contender
from hierrouter.routes.outcomes import Moves, Outcomes, context_paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Facts:
    """What evaluation asks of a router's description."""

    models: tuple[str, ...]
    hops: int
    moves: Moves = "early_exit"
    metric: str = "accuracy"
    cost_unit_usd: float = 1.0
    alpha_range: tuple[float, float] = (0.0, 1.0)
    training_query_hashes: tuple[str, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fixed:
    """A router that takes the route which a function of the alpha names."""

    info: Facts
    choose: Callable[[float], int] = lambda alpha: 0

    def follow(self, outcomes: Outcomes, alpha: float) -> NDArray[np.int64]:
        return np.full(len(outcomes), self.choose(alpha), dtype=np.int64)


def random_outcomes(
    n: int = 12, models: int = 2, hops: int = 2, seed: int = 0, tasks: tuple[str, ...] = ("a", "b")
) -> Outcomes:
    """Arbitrary outcomes; the first two thirds of the queries are for training."""
    rng = np.random.default_rng(seed)
    shape = (n, len(context_paths(models, hops)), models)
    return Outcomes(
        query_ids=tuple(f"q/{k}" for k in range(n)),
        tasks=np.array([tasks[k % len(tasks)] for k in range(n)]),
        train=np.arange(n) < 2 * n // 3,
        folds=np.zeros(n, dtype=np.int64),
        models=tuple("ABCDEFGHIJ"[:models]),
        hops=hops,
        metric="accuracy",
        embeddings=np.zeros((*shape[:2], 1), dtype=np.float32),
        analyze_cost=rng.uniform(0.1, 1, shape),
        solve_cost=rng.uniform(0.1, 1, shape),
        solve_quality=rng.integers(0, 2, shape).astype(np.float64),
    )


def direct_outcomes(quality: list[list[float]], cost: list[list[float]], train: int) -> Outcomes:
    """One-hop outcomes of the models A, B, …: a row a query, the first `train` for training."""
    values = np.array(quality, dtype=np.float64)[:, None, :]
    blank = random_outcomes(len(values), values.shape[2], 1)
    return replace(
        blank,
        train=np.arange(len(values)) < train,
        tasks=np.array(["t"] * len(values)),
        solve_quality=values,
        solve_cost=np.array(cost, dtype=np.float64)[:, None, :],
    )


def arena_of(outcomes: Outcomes, moves: Moves = "early_exit", unit: float = 1.0) -> Arena:
    """The arena of some outcomes, with a router that always takes the first route."""
    return Arena(
        outcomes.select(outcomes.train),
        outcomes.select(~outcomes.train),
        moves,
        unit,
        (
            Contender(
                "router", (Fixed(Facts(outcomes.models, outcomes.hops)),), moves, outcomes.hops
            ),
        ),
    )


@pytest.fixture
def make_outcomes() -> Callable[..., Outcomes]:
    return random_outcomes


@pytest.fixture
def make_direct() -> Callable[..., Outcomes]:
    return direct_outcomes


@pytest.fixture
def make_arena() -> Callable[..., Arena]:
    return arena_of


@pytest.fixture
def make_router() -> Callable[..., Fixed]:
    def make(outcomes: Outcomes, choose=lambda alpha: 0, **facts) -> Fixed:
        return Fixed(replace(Facts(outcomes.models, outcomes.hops), **facts), choose)

    return make

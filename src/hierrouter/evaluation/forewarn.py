"""What to be warned of before a router is trained, and after: no headroom, an inert alpha.

Quiet where nothing is to warn of, and where it cannot be told. A warning never stops training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.headroom import headroom
from hierrouter.evaluation.verdict import FLOOR
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hierrouter.config import EvaluationConfig, TrainingConfig
    from hierrouter.routes.outcomes import Moves, Outcomes


class Asked(Protocol):
    """What is asked of a router: of a recipe as of a router that is trained."""

    @property
    def moves(self) -> Moves:
        """Which routes are allowed."""

    @property
    def cost_unit_usd(self) -> float | str:
        """Dollars in one cost unit, or `auto`."""

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The least and greatest alpha met in training."""


RESAMPLES = 500
"""Most resamples of the intervals: a warning needs no third digit, and training waits for it."""


def forewarn(training: TrainingConfig, evaluation: EvaluationConfig) -> Callable[[Outcomes], None]:
    """What to call with the outcomes that a router is about to be trained on.

    Args:
        training: how it will be trained.
        evaluation: the alphas that it is for.
    """

    def look(outcomes: Outcomes) -> None:
        for line in warnings_of(outcomes, training, evaluation):
            say(line)

    return look


def warnings_of(
    outcomes: Outcomes, training: Asked, evaluation: EvaluationConfig
) -> tuple[str, ...]:
    """What the training queries warn of, as plain sentences; see `headroom`.

    None where it cannot be told: with fewer than 30 training queries of which all outcomes are
    known, or with all of them in one fold.

    Args:
        outcomes: recorded queries, of both splits; the test split is not looked at.
        training: moves, cost unit and range of alpha.
        evaluation: the alphas, of which those in the range count, and the bootstrap.
    """
    known = ~np.isnan(outcomes.solve_quality + outcomes.solve_cost).any(axis=(1, 2))
    train = outcomes.select(outcomes.train & known)
    if len(train) < FLOOR:
        return ()
    low, high = training.alpha_range
    alphas = [alpha for alpha in evaluation.alphas if low - 1e-9 <= alpha <= high + 1e-9]
    # Outside of its range a router acts as at the nearest alpha in it.
    headline = min(max(evaluation.alpha, low), high)
    given = training.cost_unit_usd
    unit = None if isinstance(given, str) else given
    try:
        found = headroom(
            train,
            training.moves,
            _choices(train),
            alphas or [low, high],
            headline,
            min(RESAMPLES, evaluation.bootstrap),
            evaluation.confidence,
            evaluation.seed,
            unit,
        )
    except HierRouterError:
        return ()
    return found.warnings


def _choices(outcomes: Outcomes) -> NDArray[np.int64]:
    """Numbers of choices, 0 where an answer is not right or wrong and so no guess can be told."""
    none = np.zeros(len(outcomes), dtype=np.int64)
    if outcomes.choices is None or outcomes.metric != "accuracy":
        return none
    plain = np.isin(outcomes.solve_quality, (0.0, 1.0)).all(axis=(1, 2))
    return np.where(plain, outcomes.choices, 0)

"""Is there anything to be gained by routing? Asked of recorded outcomes, before training.

Two differences in reward bound what a router can get over the best fixed model: what choosing by
task gets (a router must see the task at least) and what the oracle without luck gets (`luck.py`).
Where both are small no learner helps; another pool does. And where alpha changes no choice there is
no trade-off to learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.policies.arena import Arena
from hierrouter.evaluation.policies.luck import guessing
from hierrouter.evaluation.policies.play import (
    best_column,
    best_path_per_task,
    best_single,
    knn,
    oracle,
)
from hierrouter.evaluation.statistics.crossed import (
    CROSS_FITTED,
    Comparison,
    Crossed,
    compare,
    difference,
)
from hierrouter.evaluation.statistics.intervals import Bootstrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.policies.play import Policy
    from hierrouter.evaluation.summary import Results
    from hierrouter.routes.outcomes import Moves, Outcomes, RouteTable

WORTH = 0.01
"""Reward below which a gain is called none: one point."""


@dataclass(frozen=True)
class Gains:
    """Differences in reward to `best_single`, at one alpha, with intervals over queries."""

    per_task: Comparison
    """`best_path_per_task` minus `best_single`."""
    corrected: Comparison
    """`oracle_corrected` minus `best_single`. Its interval leaves out how sure the fit of guesses
    is."""
    plain: Comparison
    """`oracle` minus `best_single`, luck and all."""


@dataclass(frozen=True)
class Reach:
    """What a router could get without knowing the answers, and how to call it."""

    gain: Comparison
    """Over `best_single`."""
    words: str
    """What chooses, in words that follow a comma."""


@dataclass(frozen=True)
class Headroom:
    """What routing could gain, and what a reader should be warned of."""

    alpha: float
    queries: int
    gains: Gains
    warnings: tuple[str, ...]


def headroom(
    outcomes: Outcomes,
    moves: Moves,
    choices: NDArray[np.int64],
    alphas: Sequence[float],
    alpha: float,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 42,
    unit: float | None = None,
) -> Headroom:
    """What routing could gain on some queries, none of which was used for training anything.

    `best_single` and `best_path_per_task` are cross-fitted: chosen on all folds but one, judged on
    that one. So the training split can say what is to be gained before a router is trained on it,
    and the test split stays unseen.

    Args:
        outcomes: of the training queries (`outcomes.select(outcomes.train)`), with all routes that
            the moves allow.
        moves: which routes are allowed.
        choices: N numbers of choices of each query, 0 where it has none; see `luck.guessing`.
            All 0 where the metric is not right or wrong.
        alphas: the grid.
        alpha: the headline, at which gains are given.
        bootstrap: resamples.
        confidence: of the intervals.
        seed: of the bootstrap.
        unit: dollars in one cost unit; none: as measured on these queries.

    Raises:
        HierRouterError: the queries are all of one fold, so none are left to choose on.
    """
    unit = outcomes.cost_unit_usd() if unit is None else unit
    table = outcomes.routes(moves)
    one = len(np.unique(outcomes.tasks)) == 1
    single, per_task = cross_fitted(outcomes, moves, alpha, unit)
    everything = Arena(outcomes, outcomes, moves, unit, ())
    best = oracle(everything, alpha)[0]
    corrected = guessing(table.quality, outcomes.tasks, choices).oracle(table.cost / unit, alpha)
    crossed = Crossed(Bootstrap(outcomes.tasks, bootstrap, seed), 1, CROSS_FITTED)
    found = gains(
        crossed,
        single,
        per_task,
        corrected.reward,
        best.quality - alpha * best.cost / unit,
        confidence,
    )
    reach = Reach(found.per_task, "choosing by task")
    if one:
        # There is nothing to choose by task; what the question itself shows is all there is.
        (near,) = cross_fitted(outcomes, moves, alpha, unit, (knn,))
        gain = compare(crossed.overall(difference(near, single)), confidence)[0]
        reach = Reach(gain, "the queries name one task, and choosing by the queries most alike")
    lucky = not (choices >= 2).any()
    warnings = [
        *headroom_warnings(found, reach, alpha, len(outcomes), confidence, lucky),
        *inert_warnings(outcomes.tasks, table, unit, alphas, alpha),
    ]
    return Headroom(alpha, len(outcomes), found, tuple(warnings))


def cross_fitted(
    outcomes: Outcomes,
    moves: Moves,
    alpha: float,
    unit: float,
    policies: Sequence[Policy] = (best_single, best_path_per_task),
) -> tuple[NDArray[np.float64], ...]:
    """Rewards of policies, each query's chosen on other folds.

    Args:
        outcomes: N queries.
        moves: which routes are allowed.
        alpha: quality given up for one cost unit saved.
        unit: dollars in one cost unit.
        policies: each gives one result.

    Returns:
        N rewards of each.

    Raises:
        HierRouterError: there is one fold only.
    """
    folds = np.unique(outcomes.folds)
    if len(folds) < 2:
        raise HierRouterError(
            "headroom is measured by choosing on some folds and judging on another, but the "
            f"{len(outcomes)} queries are all of one; sample more (data.queries_per_task)"
        )
    rewards = np.zeros((len(policies), len(outcomes)))
    for fold in folds:
        held = outcomes.folds == fold
        arena = Arena(outcomes.select(~held), outcomes.select(held), moves, unit, ())
        for row, policy in enumerate(policies):
            played = policy(arena, alpha)[0]
            rewards[row, held] = played.quality - alpha * played.cost / unit
    return tuple(rewards)


def gains(
    crossed: Crossed,
    single: NDArray[np.float64],
    per_task: NDArray[np.float64],
    corrected: NDArray[np.float64],
    plain: NDArray[np.float64],
    confidence: float,
) -> Gains:
    """Differences of rewards on the same N queries.

    Args:
        crossed: resamples of the queries, of one seed.
        single: N rewards of `best_single`.
        per_task: N rewards of `best_path_per_task`.
        corrected: N rewards of `oracle_corrected`.
        plain: N rewards of `oracle`.
        confidence: of the intervals.
    """
    columns = [difference(mine, single) for mine in (per_task, corrected, plain)]
    means = crossed.overall(np.concatenate(columns, axis=2))
    return Gains(*compare(means, confidence))


def gained(results: Results, alpha: float) -> dict[str, dict[str, float]]:
    """What played policies say there was to be gained: their reward minus that of `best_single`.

    Args:
        results: of all policies.
        alpha: the headline.

    Returns:
        By policy (`best_path_per_task`, and the oracles that were played): `mean`, `low`, `high`
        and `p`. Empty where not all routes are recorded.
    """
    played = results.plays[alpha]
    if "best_path_per_task" not in played or "oracle" not in played:
        return {}
    corrected = "oracle_corrected" if "oracle_corrected" in played else "oracle"
    single, per_task, fair, plain = (
        results.values(alpha, name)[0, :, 2]
        for name in ("best_single", "best_path_per_task", corrected, "oracle")
    )
    crossed = replace(results.crossed, seeds=1)
    found = gains(crossed, single, per_task, fair, plain, results.confidence)
    told = {"best_path_per_task": found.per_task, corrected: found.corrected, "oracle": found.plain}
    return {
        name: {"mean": each.mean, "low": each.low, "high": each.high, "p": each.p}
        for name, each in told.items()
    }


def headroom_warnings(
    found: Gains, reach: Reach, alpha: float, queries: int, confidence: float, lucky: bool
) -> list[str]:
    """Whether there is too little to be gained, in plain sentences.

    Args:
        found: the gains.
        reach: what can be got without knowing the answers.
        alpha: at which.
        queries: on which they were measured.
        confidence: of their intervals.
        lucky: whether no guess can be told, so that the oracle's luck is in its gain.
    """
    where = f"at alpha {alpha:g}, over {queries:,} queries"
    if found.corrected.high < WORTH:
        return [
            f"No headroom: {where}, even an oracle that knows which route knows each answer gains "
            f"{_points(found.corrected, confidence)} over the best single model. No router can "
            "gain more; try other models."
        ]
    if reach.gain.low > 0:
        return []
    best = "the oracle (luck included)" if lucky else "the oracle without luck"
    return [
        f"No headroom seen: {where}, {reach.words} gains {_points(reach.gain, confidence)} "
        f"over the best single model, and {best} {_points(found.corrected, confidence)}. "
        "A router has to tell queries of the same task apart to gain anything, which few can."
    ]


def inert_warnings(
    tasks: NDArray[np.str_],
    table: RouteTable,
    unit: float,
    alphas: Sequence[float],
    alpha: float,
) -> list[str]:
    """Whether alpha changes nothing, in plain sentences.

    Args:
        tasks: N task names.
        table: the allowed routes of these queries.
        unit: dollars in one cost unit.
        alphas: the grid.
        alpha: the headline.
    """
    warnings = []
    best = {
        task: {best_column(table, each, unit, tasks == task) for each in alphas}
        for task in np.unique(tasks)
    }
    if len(set(alphas)) > 1 and all(len(columns) == 1 for columns in best.values()):
        taken = sorted({table.names[column] for columns in best.values() for column in columns})
        shown = f"{', '.join(taken[:3])}{' and others' if len(taken) > 3 else ''}"
        warnings.append(
            f"alpha is inert: from {min(alphas):g} to {max(alphas):g} the best route of each task "
            f"stays the same ({shown})."
        )
    # Mean costs are known almost exactly, however few the queries: what counts is what they are
    # worth, not what noise lets one see of accuracy.
    costs = table.cost.mean(axis=0) / unit
    most = alpha * float(costs.max() - costs.min())
    if alpha > 0 and most < WORTH:
        warnings.append(
            f"alpha {alpha:g} is as good as inert: the cheapest and the dearest route differ in "
            f"cost by {100 * most:.2g} points of reward, and less than {100 * WORTH:g} is not "
            "worth a router."
        )
    return warnings


def _points(gain: Comparison, confidence: float) -> str:
    """A gain in points of reward with its interval."""
    mean, low, high = (100 * value + 0.0 for value in (gain.mean, gain.low, gain.high))
    return f"{mean:.1f} points ({confidence:.0%} interval {low:.1f} to {high:.1f})"

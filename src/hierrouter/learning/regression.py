"""The decomposed policy fitted to recorded outcomes, from the last hop backwards.

On the last hop the outcome of every answer is known, and quality and cost are regressed on u(s).
One hop earlier the outcome of an analysis is what the policy fitted so far makes of it: each query
is played on by heads that were fitted without it, so that luck is not taken for skill. How it
plays on depends on alpha; the line in alpha that is closest to what it gets gives the quality and
the cost of the analysis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.actions import ANALYZE, SOLVE, action_count, allowed_actions
from hierrouter.learning.stacking import fit_scores, see
from hierrouter.learning.stages import depth_of, stage_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.learning.contexts import RecordedContexts
    from hierrouter.learning.features import Features
    from hierrouter.routes.outcomes import Moves


def regress(
    features: Features,
    contexts: RecordedContexts,
    tasks: NDArray[np.str_],
    moves: Moves,
    alphas: Sequence[float],
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fits quality and cost of every action at every stage.

    Args:
        features: as fitted on the queries.
        contexts: R contexts of N queries; their `state` is u(s).
        tasks: N task names.
        moves: which actions a hop allows.
        alphas: at which analyses are played on.
        seed: of the parts that are predicted from each other.

    Returns:
        S x A x F weights of the qualities, and of the costs.
    """
    models, rows = contexts.models, len(contexts.depth)
    stages, actions = stage_count(models, contexts.hops), action_count(models)
    allowed = allowed_actions(models, contexts.hops, moves)
    grid = np.asarray(alphas)
    quality = np.zeros((stages, actions, contexts.state.shape[1]), np.float32)
    cost = np.zeros_like(quality)
    seen = see(features, contexts.state, contexts.query, tasks, seed)
    # What playing on from a context gives at each alpha.
    later_quality = np.full((len(grid), rows), np.nan)
    later_cost = np.full((len(grid), rows), np.nan)
    for stage in reversed(range(stages)):
        here = np.flatnonzero(contexts.stage == stage)
        if not len(here):
            continue
        possible = allowed[depth_of(stage, models)]
        gained, paid = _outcomes(contexts, here, possible, later_quality, later_cost)
        lines_quality, lines_cost = _lines(gained, paid, grid)
        wanted = np.flatnonzero(possible)
        part = seen.select(here)
        quality[stage, wanted], held_quality = fit_scores(part, lines_quality[:, wanted])
        cost[stage, wanted], held_cost = fit_scores(part, lines_cost[:, wanted])
        never = wanted[np.isnan(lines_quality[:, wanted]).all(axis=0)]
        if 0 < len(never) < len(wanted):
            # Nothing is known of it: it is the last to be asked, and not one that takes nothing.
            quality[stage, never, 0] = -1.0
            cost[stage, never, 0] = np.nanmax(lines_cost)
        for number, alpha in enumerate(grid):
            # What was never recorded cannot be played on with.
            known = ~np.isnan(gained[number][:, wanted])
            value = np.where(known, held_quality - alpha * held_cost, -np.inf)
            chosen = wanted[value.argmax(axis=1)]
            index = np.arange(len(here))
            later_quality[number, here] = gained[number][index, chosen]
            later_cost[number, here] = paid[number][index, chosen]
    return quality, cost


def _outcomes(
    contexts: RecordedContexts,
    here: NDArray[np.int64],
    possible: NDArray[np.bool_],
    later_quality: NDArray[np.float64],
    later_cost: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quality and cost still to come of each action, G x R x A each; NaN where not known."""
    models, grid = contexts.models, len(later_quality)
    gained = np.full((grid, len(here), 2 * models + 1), np.nan)
    paid = np.full_like(gained, np.nan)
    gained[:, :, SOLVE : 2 * models : 2] = contexts.quality[here]
    paid[:, :, SOLVE : 2 * models : 2] = contexts.price[here]
    for model in np.flatnonzero(possible[ANALYZE : 2 * models : 2]):
        after = contexts.child[here, model]
        analysis = contexts.spent[after] - contexts.spent[here]
        gained[:, :, 2 * model + ANALYZE] = later_quality[:, after]
        paid[:, :, 2 * model + ANALYZE] = analysis + later_cost[:, after]
    return gained, paid


def _lines(
    gained: NDArray[np.float64], paid: NDArray[np.float64], grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The line `q - alpha * c` closest to each action's reward over the grid: q and c, R x A.

    Where the outcome does not depend on alpha, as of an answer, that is the outcome itself.
    """
    if len(grid) == 1:
        return gained[0], paid[0]
    reward = gained - grid[:, None, None] * paid
    away = grid - grid.mean()
    slope = np.tensordot(away, reward, axes=1) / np.square(away).sum()
    return reward.mean(axis=0) - slope * grid.mean(), -slope

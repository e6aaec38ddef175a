"""What limits of the rest of a route change, fitted to recorded outcomes.

All is played on once more under each of some limits (`rests.Rests.limits`), by the values that were
fitted without any, and the calls that are made before are valued by what comes of them then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.regression import Later, fit_quality, lines, outcomes_of
from hierrouter.learning.stacking import fit_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.learning.contexts import RecordedContexts
    from hierrouter.learning.regression import Fit
    from hierrouter.learning.rests import Rests


def regress_rests(
    fit: Fit, contexts: RecordedContexts, rests: Rests, alphas: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fits by how much each limit changes quality and cost of the calls that are made before.

    Args:
        fit: what no limit changes, from the same contexts.
        contexts: R contexts.
        rests: which calls and limits.
        alphas: at which the rest of a route is played.

    Returns:
        K x P x F weights for the quality, and as many for the cost.
    """
    stages, grid = rests.stages, np.asarray(alphas)
    size = (len(rests.limits), len(rests.calls), fit.quality.shape[2])
    quality, cost = np.zeros(size, np.float32), np.zeros(size, np.float32)
    if not rests.calls:
        return quality, cost
    order = [int(stage) for stage in np.argsort(-stages.calls, kind="stable")]
    rows = {stage: np.flatnonzero(contexts.stage == stage) for stage in order}
    for number, limit in enumerate(rests.limits):
        later = Later.unknown(grid, len(contexts.stage))
        for stage in order:
            here = rows[stage]
            if not len(here):
                continue
            gained, paid = outcomes_of(contexts, here, fit.returned, later)
            held_quality, held_cost = fit.held_quality[here], fit.held_cost[here]
            calls, actions = rests.at(stage)
            if calls:
                part = fit.seen.select(here)
                lines_quality, lines_cost = lines(gained, paid, grid)
                ever = np.asarray(np.isfinite(lines_quality).any(axis=0))
                known = np.flatnonzero(stages.allowed[stage] & ever)
                weights_quality, held_quality[:, known] = fit_quality(
                    part, lines_quality[:, known], stage >= stages.before
                )
                weights_cost, held_cost[:, known] = fit_scores(part, lines_cost[:, known])
                for call, action in zip(calls, actions, strict=True):
                    if ever[action]:
                        at = int(np.searchsorted(known, action))
                        quality[number, call] = weights_quality[at] - fit.quality[stage, action]
                        cost[number, call] = weights_cost[at] - fit.cost[stage, action]
            wanted = np.flatnonzero(rests.allowed(limit, stage))
            if len(wanted):
                later.add(here, gained, paid, wanted, held_quality, held_cost)
    return quality, cost

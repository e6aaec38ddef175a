"""What a reader of the results should know before believing them, in plain sentences."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.policies.play import NEED_ALL_ROUTES

if TYPE_CHECKING:
    from hierrouter.evaluation.policies.arena import Arena
    from hierrouter.evaluation.summary import Plays

FEW = 100
"""Test queries of a task below which a warning is due."""
DISAGREEMENT = 0.3
"""Share of queries on which two policies are taken to differ by right against wrong."""


def visible_points(queries: int, confidence: float) -> float:
    """Half the width of the interval of a difference in accuracy, in points (hundredths).

    For two policies of about the same accuracy of which one is right and the other wrong on a
    share `DISAGREEMENT` of the queries: z * sqrt(share / queries).
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return float(100 * z * np.sqrt(DISAGREEMENT / queries))


def cautions_about(
    arena: Arena,
    alpha_range: tuple[float, float],
    played: Plays,
    confidence: float,
) -> list[str]:
    """Warnings about these results, most important first.

    Args:
        arena: what was played on.
        alpha_range: the least and greatest alpha that the router met in training.
        played: by alpha, then by policy.
        confidence: coverage of the intervals.
    """
    found = []
    if arena.filled is not None:
        found.append(
            f"Left out: {', '.join(NEED_ALL_ROUTES)}. They need every route of every query; this "
            f"tree was filled with what the router visited and holds {arena.filled.nodes:,} of "
            f"{arena.filled.whole:,} nodes."
        )
    names, counts = np.unique(arena.test.tasks, return_counts=True)
    few = [f"{name} {count}" for name, count in zip(names, counts, strict=True) if count < FEW]
    if few:
        least = int(counts.min())
        found.append(
            f"Fewer than {FEW} test queries in {_some(few, 'tasks')}. The intervals are wide: "
            f"differences under about {visible_points(len(arena.test), confidence):.0f} points "
            f"over all {len(arena.test)} queries, or under about "
            f"{visible_points(least, confidence):.0f} points in a task of {least}, cannot be seen "
            f"(two policies that disagree on {DISAGREEMENT:.0%} of the queries)."
        )
    unseen = [str(name) for name in np.setdiff1d(names, arena.train.tasks)]
    if unseen:
        found.append(
            f"No training query of {_some(unseen, 'tasks')}: there the per-task baselines fall "
            "back to what is best over all tasks."
        )
    unjudged = [str(name) for name in np.setdiff1d(arena.train.tasks, names)]
    if unjudged:
        found.append(
            f"No test query of {_some(unjudged, 'tasks')}: the router was trained on it, but "
            "nothing here says how it does there."
        )
    low, high = alpha_range
    outside = [f"{alpha:g}" for alpha in played if not low - 1e-9 <= alpha <= high + 1e-9]
    if outside:
        met = f"alpha {low:g} alone" if low == high else f"alpha {low:g} to {high:g}"
        found.append(
            f"The router was trained for {met}; at alpha {', '.join(outside)} it acts as at the "
            "nearest that it has met."
        )
    taken = [np.asarray(policies["router"][0].taken) for policies in played.values()]
    if len(taken) > 1 and all(np.array_equal(taken[0], other) for other in taken[1:]):
        found.append(
            "alpha changes nothing: at every alpha of the grid the router takes the same route for "
            "each test query."
        )
    return found


def _some(names: list[str], many: str, shown: int = 8) -> str:
    """A list of names, cut where it gets long."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[:shown])} and {len(names) - shown} more {many}"

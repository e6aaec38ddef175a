"""How much of the way from a weak to a strong model a router goes, and for how many calls.

The measures of RouteLLM (Ong et al., 2024), generalised: there a router chooses between the weak
and the strong model, and its threshold gives the curve. Here it chooses among any routes, alpha
gives the curve, and the strong model may stand outside the pool, as a mark to be reached.

- PGR, performance gap recovered: (quality - weak) / (strong - weak). Over 1 is better than strong.
- APGR: the mean PGR along the curve, its share of calls (or cost) going from that of the weak
  model to that of the strong.
- CPT(x), call-performance threshold: the least share of calls (or cost) at which PGR is x.

Between points of the curve queries are mixed at random, so the curve is their hull (`hull.py`). The
weak model itself is a point of it: any share of the queries may be left to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.tradeoff.hull import Hull, aiq, hull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVELS = (0.5, 0.8, 0.95)
"""Shares of the gap that thresholds are given for."""


@dataclass(frozen=True)
class Endpoint:
    """The weak or the strong model: its direct answers on the test queries."""

    name: str
    quality: float
    """Mean quality."""
    relative_cost: float
    """Mean cost in cost units."""


@dataclass(frozen=True)
class Threshold:
    """What it takes to recover a share of the gap."""

    level: float
    """The share of the gap."""
    calls: float | None
    """The least share of queries that the weak model alone does not answer; none: not reached."""
    relative_cost: float | None
    """The least mean cost, in cost units; none: not reached."""


@dataclass(frozen=True)
class Tradeoff:
    """PGR, APGR and CPT of a curve of P points."""

    weak: Endpoint
    strong: Endpoint
    reason: str | None
    """Why the measures are undefined or some threshold is not reached, in a sentence; else none."""
    pgr: NDArray[np.float64] | None
    """P shares of the gap; none where there is no gap."""
    apgr_calls: float | None
    """Mean PGR along the share of calls, from 0 to 1."""
    apgr_cost: float | None
    """Mean PGR along the cost, from the weak model's to the strong one's; none also where the
    strong is not dearer."""
    thresholds: tuple[Threshold, ...]
    """One a level; none of them where there is no gap."""


def tradeoff(
    weak: Endpoint,
    strong: Endpoint,
    quality: NDArray[np.float64],
    relative_cost: NDArray[np.float64],
    calls: NDArray[np.float64],
    levels: Sequence[float] = LEVELS,
) -> Tradeoff:
    """PGR, APGR and CPT of a policy's points over alpha.

    Args:
        weak: the cheapest or the best single model of the pool: the caller's choice, to be stated.
        strong: the reference model.
        quality: P mean qualities, one an alpha.
        relative_cost: P mean costs in cost units.
        calls: P shares of the queries that get another route than the weak model's direct answer,
            0 to 1. (With two models and direct answers this is RouteLLM's share of strong calls.)
        levels: of the thresholds.
    """
    gap = strong.quality - weak.quality
    if gap <= 0:
        none = (
            f"{strong.name} (quality {strong.quality:.3f}) is not better than {weak.name} "
            f"({weak.quality:.3f}): there is no gap to recover."
        )
        return Tradeoff(weak, strong, none, None, None, None, ())
    qualities = np.append(weak.quality, quality)
    by_calls = hull(np.append(0.0, calls), qualities)
    by_cost = hull(np.append(weak.relative_cost, relative_cost), qualities)

    def recovered(area: float) -> float:
        return (area - weak.quality) / gap

    def least(curve: Hull, level: float) -> float | None:
        # Rounding must not take a level that a point reaches exactly out of reach.
        top = curve.quality[-1]
        target = weak.quality + level * gap
        return curve.cost_of(min(target, top) if target <= top + 1e-12 else target)

    thresholds = tuple(
        Threshold(level, least(by_calls, level), least(by_cost, level)) for level in levels
    )
    most = recovered(float(by_calls.quality[-1]))
    missed = [f"{each.level:.0%}" for each in thresholds if each.calls is None]
    reason = None
    if missed:
        reason = (
            f"At most {most:.0%} of the gap between {weak.name} and {strong.name} is recovered, so "
            f"{', '.join(missed)} of it cannot be had by this curve, however much is spent."
        )
    dearer = strong.relative_cost > weak.relative_cost
    return Tradeoff(
        weak=weak,
        strong=strong,
        reason=reason,
        pgr=(np.asarray(quality, dtype=np.float64) - weak.quality) / gap,
        apgr_calls=recovered(aiq(by_calls, 0.0, 1.0)),
        apgr_cost=recovered(aiq(by_cost, weak.relative_cost, strong.relative_cost))
        if dearer
        else None,
        thresholds=thresholds,
    )

"""The trade-off as numbers: quality against cost over alpha, beside mixing at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.statistics.intervals import Means, intervals
from hierrouter.evaluation.tradeoff.hull import aiq, hull, resampled_aiq
from hierrouter.evaluation.tradeoff.recovery import Endpoint, tradeoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.summary import Results
    from hierrouter.evaluation.tradeoff.recovery import Tradeoff

ZERO = "zero_router"
"""The hull of the single models: mixing them at random, without looking at the query."""
FIXED = "fixed_paths"
"""The hull of all fixed routes."""
RIVALS = ("one_hop", "knn", "ridge")
"""Policies with a point an alpha that the router's curve is compared with, where they were played.
"""


def curves_of(results: Results, models: Sequence[str]) -> dict[str, Any]:
    """Hulls, AIQ and what of the gap to a stronger model is recovered.

    All areas are over the range of cost of the single models, in which the zero router is defined.

    Args:
        results: of all policies at every alpha.
        models: M names of the pool.

    Returns:
        `range` (relative costs), `hulls` (by curve: `relative_cost`, `quality`), `aiq` and
        `aiq_differences` (the router's minus the others'), both with intervals, and `recovered`
        (by strong model).
    """
    first = next(iter(results.plays))
    played = results.plays[first]
    singles = [(first, f"single:{name}") for name in models]
    paths = [(first, name) for name in played if name.startswith("path:")]
    curves = {
        "router": _over_alpha(results, "router"),
        ZERO: singles,
        **({FIXED: [*singles, *paths]} if paths else {}),
        **{name: _over_alpha(results, name) for name in RIVALS if name in played},
    }
    points = {name: _points(results, places) for name, places in curves.items()}
    costs = points[ZERO][1].measured
    low, high = float(costs.min()), float(costs.max())
    areas = {name: _area(quality, cost, low, high) for name, (quality, cost) in points.items()}
    found = {name: intervals(area, results.confidence)[0] for name, area in areas.items()}
    mine = areas["router"]
    differences = {
        name: intervals(
            Means(mine.measured - area.measured, mine.resampled - area.resampled),
            results.confidence,
        )[0]
        for name, area in areas.items()
        if name != "router"
    }
    return {
        "range": [low, high],
        "hulls": {name: _hull(quality, cost) for name, (quality, cost) in points.items()},
        "aiq": found,
        "aiq_differences": differences,
        "recovered": _recovered(results, models),
    }


def _over_alpha(results: Results, name: str) -> list[tuple[float, str]]:
    return [(alpha, name) for alpha in results.plays]


def _points(results: Results, places: Sequence[tuple[float, str]]) -> tuple[Means, Means]:
    """Mean qualities and relative costs of P policies, with their resamples."""
    columns = np.concatenate([results.values(*place)[:, :, :2] for place in places], axis=2)
    means = results.crossed.overall(columns)
    return tuple(  # type: ignore[return-value]
        Means(means.measured[part::2], means.resampled[:, part::2]) for part in (0, 1)
    )


def _area(quality: Means, cost: Means, low: float, high: float) -> Means:
    """AIQ as measured and in each resample, as one column."""
    measured = aiq(hull(cost.measured, quality.measured), low, high)
    resampled = resampled_aiq(cost.resampled, quality.resampled, low, high)
    return Means(np.array([measured]), resampled[:, None])


def _hull(quality: Means, cost: Means) -> dict[str, list[float]]:
    curve = hull(cost.measured, quality.measured)
    return {"relative_cost": curve.cost.tolist(), "quality": curve.quality.tolist()}


def _recovered(results: Results, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """PGR, APGR and CPT against each reference, or the best single model where there is none.

    The weak model is the cheapest of the pool.
    """
    first = next(iter(results.plays))
    names = [f"single:{name}" for name in models]
    ends = {name: _endpoint(results, first, name) for name in names}
    references = [name for name in results.plays[first] if name.startswith("reference:")]
    ends |= {name: _endpoint(results, first, name) for name in references}
    weak = min(names, key=lambda name: ends[name].relative_cost)
    strong = references or [max(names, key=lambda name: ends[name].quality)]
    points = [_endpoint(results, alpha, "router") for alpha in results.plays]
    quality = np.array([point.quality for point in points])
    cost = np.array([point.relative_cost for point in points])
    calls = np.array([_calls(results, alpha, weak) for alpha in results.plays])
    return {
        name: _told(tradeoff(ends[weak], ends[name], quality, cost, calls), results)
        for name in strong
        if name != weak
    }


def _endpoint(results: Results, alpha: float, name: str) -> Endpoint:
    quality, cost, _ = results.values(alpha, name).mean(axis=(0, 1))
    return Endpoint(name, float(quality), float(cost))


def _calls(results: Results, alpha: float, weak: str) -> float:
    """Share of the queries that the weak model alone does not answer."""
    direct = weak.removeprefix("single:")
    each = [played.shares().get(direct, 0.0) for played in results.plays[alpha]["router"]]
    return 1.0 - float(np.mean(each))


def _told(found: Tradeoff, results: Results) -> dict[str, Any]:
    pgr: NDArray[np.float64] | None = found.pgr
    return {
        "weak": found.weak.name,
        "reason": found.reason,
        "pgr": None
        if pgr is None
        else {f"{alpha:g}": float(value) for alpha, value in zip(results.plays, pgr, strict=True)},
        "apgr_calls": found.apgr_calls,
        "apgr_cost": found.apgr_cost,
        "thresholds": [
            {"level": each.level, "calls": each.calls, "relative_cost": each.relative_cost}
            for each in found.thresholds
        ],
    }

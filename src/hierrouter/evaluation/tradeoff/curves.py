"""The trade-off as numbers: quality against cost over alpha, beside mixing at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.statistics.intervals import clip, intervals
from hierrouter.evaluation.summary import SAVING
from hierrouter.evaluation.tradeoff.hull import hull, weights
from hierrouter.evaluation.tradeoff.marks import weak_and_strong
from hierrouter.evaluation.tradeoff.recovery import Endpoint, tradeoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.summary import Results
    from hierrouter.evaluation.tradeoff.marks import Marks
    from hierrouter.evaluation.tradeoff.recovery import Tradeoff

ZERO = "zero_router"
"""The hull of the single models: mixing them at random, without looking at the query."""
FIXED = "fixed_paths"
"""The hull of all fixed routes."""
RIVALS = ("one_hop", "knn", "ridge")
"""Policies with a point an alpha that the router's curve is compared with, where they were played.
"""


def curves_of(results: Results, models: Sequence[str], marks: Sequence[Marks]) -> dict[str, Any]:
    """Hulls, AIQ and what of the gap to a stronger model is recovered.

    All areas are over the range of cost of the single models, in which the zero router is defined.
    Which fixed routes are mixed is chosen on the training queries, and a policy over alpha keeps
    all of its points, so that no area profits from the luck of the judged queries.

    Args:
        results: of all policies at every alpha.
        models: M names of the pool.
        marks: of the training queries of each part of what is judged; together they have each of
            the N queries once.

    Returns:
        `range` (relative costs), `hulls` (by curve: `relative_cost`, `quality`; of the points as
        they were measured, to be drawn), `aiq` and `aiq_differences` (the router's minus the
        others') with intervals, `aiq_by_seed` (the router's), and `recovered` (by strong model).
        Where fixed routes are chosen part by part, from queries that are judged in other parts,
        there is no interval of theirs: `low` and `high` are none.
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
    costs = [float(results.values(*place)[:, :, 1].mean()) for place in singles]
    low, high = min(costs), max(costs)
    columns = {
        name: _area(results, places, marks if name in (ZERO, FIXED) else None, low, high)
        for name, places in curves.items()
    }
    unsure = {ZERO, FIXED} if len(marks) > 1 else set()
    mine = columns["router"]
    return {
        "range": [low, high],
        "hulls": {name: _hull(results, places) for name, places in curves.items()},
        "aiq": {
            name: _told_area(results, column, name in unsure, 0.0)
            for name, column in columns.items()
        },
        "aiq_by_seed": mine.mean(axis=(1, 2)).tolist(),
        "aiq_differences": {
            name: _told_area(results, mine - column, name in unsure, -1.0)
            for name, column in columns.items()
            if name != "router"
        },
        "recovered": _recovered(results, models, marks),
    }


def _over_alpha(results: Results, name: str) -> list[tuple[float, str]]:
    places = [(alpha, name) for alpha in results.plays]
    return [*places, (SAVING, name)] if name in results.saving else places


def _area(
    results: Results,
    places: Sequence[tuple[float, str]],
    marks: Sequence[Marks] | None,
    low: float,
    high: float,
) -> NDArray[np.float64]:
    """S x N x 1 values whose mean is the AIQ of P policies.

    A weighted mean of their qualities, query by query; the weights follow from mean costs and from
    which policies the marks choose. Without marks all are kept.
    """
    values = np.stack([results.values(*place)[:, :, :2] for place in places], axis=3)
    quality, cost = values[:, :, 0], values[:, :, 1].mean(axis=(0, 1))
    if marks is None:
        return np.asarray(quality @ weights(cost, low, high))[:, :, None]
    area = np.zeros(quality.shape[:2])
    for part in marks:
        kept = part.vertices([name for _, name in places])
        area[:, part.rows] = quality[:, part.rows][..., kept] @ weights(cost[kept], low, high)
    return area[:, :, None]


def _told_area(
    results: Results, column: NDArray[np.float64], unsure: bool, least: float
) -> dict[str, Any]:
    """The mean of a column of `least` to 1 with its interval, or without where none would hold."""
    told = dict(clip(intervals(results.crossed.overall(column), results.confidence)[0], least, 1.0))
    return {**told, "low": None, "high": None} if unsure else told


def _hull(results: Results, places: Sequence[tuple[float, str]]) -> dict[str, list[float]]:
    means = [results.values(*place)[:, :, :2].mean(axis=(0, 1)) for place in places]
    curve = hull([mean[1] for mean in means], [mean[0] for mean in means])
    return {"relative_cost": curve.cost.tolist(), "quality": curve.quality.tolist()}


def _recovered(
    results: Results, models: Sequence[str], marks: Sequence[Marks]
) -> dict[str, dict[str, Any]]:
    """PGR, APGR and CPT against each reference, or the best single model where there is none.

    The weak model is the cheapest of the pool. Weak and best are so on the training queries.
    """
    first = next(iter(results.plays))
    names = [f"single:{name}" for name in models]
    ends = {name: _endpoint(results, first, name) for name in names}
    references = [name for name in results.plays[first] if name.startswith("reference:")]
    ends |= {name: _endpoint(results, first, name) for name in references}
    weak, best = weak_and_strong(marks, names)
    strong = references or [best]
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

"""What the router does, beside how well it does: spread, agreement of seeds, regret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.diagnostics import agreement, calibration, regret, usage
from hierrouter.evaluation.statistics.bounds import extremes, guarded
from hierrouter.evaluation.statistics.intervals import intervals
from hierrouter.evaluation.statistics.multiplicity import LEVEL, POWER, holm, queries_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.statistics.intervals import Interval
    from hierrouter.evaluation.summary import Results

FAMILY = ("best_single", "best_path_per_task", "knn", "ridge", "one_hop")
"""The comparisons that an evaluation is about; Holm's correction is over those of them that were
played."""
IN_PLACE = {"best_path_per_task": "best_single_per_task"}
"""What stands for a comparison where it was not played."""
SAME = 1e-9
"""Qualities closer than this are equal."""
VISIBLE = 0.01
"""The difference in reward that evaluations are planned for: one point."""


def conduct(results: Results) -> list[dict[str, Any]]:
    """Diagnostics at every alpha.

    Returns:
        One entry an alpha: `alpha`, `usage` (entropy, top_share, effective, used), `agreement`
        (share, kappa; none with one seed) and, where the oracle was played, `regret`.
    """
    found = []
    for alpha, policies in results.plays.items():
        each = policies["router"]
        routes = dict.fromkeys(name for played in each for name in played.routes)
        number = {name: column for column, name in enumerate(routes)}
        taken = np.stack(
            [
                np.array([number[name] for name in played.routes])[played.taken]
                for played in each
                if played.taken is not None
            ]
        )
        counts = np.bincount(taken.ravel(), minlength=len(routes))
        used = usage(counts.astype(np.float64), each[0].possible)
        entry: dict[str, Any] = {"alpha": alpha, "usage": vars(used)}
        entry["agreement"] = vars(agreement(taken, len(routes))) if len(each) > 1 else None
        if "oracle" in policies:
            best = results.values(alpha, "oracle")[0, :, 2]
            mine = results.values(alpha, "router")[:, :, 2].mean(axis=0)
            missed = regret(mine, best)
            entry["regret"] = {
                "mean": missed.mean,
                "none": missed.none,
                "quantiles": {f"{at:g}": value for at, value in missed.quantiles.items()},
            }
        found.append(entry)
    return found


def calibrations(results: Results, alpha: float) -> dict[str, dict[str, Any]]:
    """Whether policies that foretell the reward of what they take are right about it.

    Args:
        results: of all policies.
        alpha: the headline.

    Returns:
        By policy that foretells, over all of its seeds: `error`, `slope`, `intercept` and `bins`
        (each `n`, `predicted`, `realised`); see `diagnostics.calibration`.
    """
    found = {}
    for name, each in results.plays[alpha].items():
        foretold = [played.predicted for played in each if played.predicted is not None]
        if len(foretold) < len(each):
            continue
        realised = [played.quality - alpha * played.cost / results.cost_unit_usd for played in each]
        told = calibration(np.concatenate(foretold), np.concatenate(realised))
        bins = [dict(zip(("n", "predicted", "realised"), each, strict=True)) for each in told.bins]
        found[name] = {**vars(told), "bins": bins}
    return found


def level_of(confidence: float) -> float:
    """The p-value under which a difference is called one: never more than an interval allows."""
    return min(LEVEL, round(1 - confidence, 12))


def too_coarse(resamples: int, comparisons: int, confidence: float) -> bool:
    """Whether no difference could be called one: the least p-value, corrected, is not small enough.

    Args:
        resamples: B; no p-value is under 2 / (B + 1).
        comparisons: m, by which Holm's correction multiplies the least.
        confidence: of the intervals.
    """
    return 2 * comparisons / (resamples + 1) >= level_of(confidence)


def over_grid(results: Results, names: Sequence[str] = FAMILY) -> dict[str, Interval]:
    """The router minus each rival in reward, averaged over the alpha grid, with its interval.

    Args:
        results: of all policies at every alpha.
        names: rivals; those not played are left out.
    """
    first = next(iter(results.plays.values()))
    return {
        name: intervals(results.over_grid("router", name), results.confidence)[0]
        for name in (*names, "best_single_per_task")
        if name in first
    }


def family(results: Results, alpha: float, names: Sequence[str] = FAMILY) -> dict[str, Any]:
    """The router against each rival in reward, with Holm's correction, and what it takes to see.

    Better and worse need p_holm under `level_of` the confidence, and a bound that also holds where
    the two give other answers to a handful of queries alone (`bounds.guarded`).

    Args:
        results: of all policies.
        alpha: the headline.
        names: rivals; those not played are left out.

    Returns:
        By rival: `reward` (mean and interval), `p`, `p_holm`, `differing` (queries on which the two
        differ in quality, with any seed), `at_least` and `at_most` (bounds of the difference, each
        at half the level), `better` and `worse`, `unproven` (by p_holm alone it would be one of
        these), `queries_needed` to see the measured difference and to see one point with 80%
        power, counted among all of these comparisons, and the smallest difference `seen` by the
        present queries.
    """
    there = results.plays[alpha]
    stand_ins = (name if name in there else IN_PLACE.get(name, name) for name in names)
    played = [name for name in stand_ins if name in there]
    level = level_of(results.confidence)
    differences = results.differences(alpha)
    adjusted = holm({name: differences[name]["p"] for name in played})
    found = {}
    for name in played:
        all_three = results.values(alpha, "router") - results.values(alpha, name)
        column = all_three[:, :, 2:]
        parts = results.crossed.parts(column)
        measured = float(column.mean())
        queries = len(results.tasks)
        # As strict as Holm's first step: every comparison may be the one that is asked about.
        share = level / len(played)
        point = queries_needed(parts, queries, VISIBLE, level=share)
        least, most = _bounds(results, all_three, level)
        called, better, worse = adjusted[name] < level, least > 0, most < 0
        entry = {
            "reward": differences[name]["reward"],
            "p": differences[name]["p"],
            "p_holm": adjusted[name],
            "differing": int((np.abs(all_three[:, :, 0]) > SAME).any(axis=0).sum()),
            "at_least": least,
            "at_most": most,
            "better": called and measured > 0 and better,
            "worse": called and measured < 0 and worse,
            "unproven": called and not (better if measured > 0 else worse),
            "power": POWER,
            "queries_for_one_point": point.queries,
            "queries_for_this_difference": None,
            "seen": point.seen,
        }
        if abs(measured) > 1e-9:
            need = queries_needed(parts, queries, measured, level=share)
            entry["queries_for_this_difference"] = need.queries
        found[name] = entry
    return found


def _bounds(
    results: Results, differences: NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Bounds of a difference in reward, each at half the level, by S x N x 3 differences."""
    worst, best = extremes(differences)
    means = results.crossed.overall(differences[:, :, 2:])
    queries, confidence = len(results.tasks), 1 - level / 2
    least, most = guarded(means, queries, worst[2:], best[2:], confidence, results.seed)
    return float(least[0]), float(most[0])

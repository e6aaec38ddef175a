"""Two evaluated routers, query by query: the differences between them with paired intervals.

Only queries that both were tested on count, at the alphas that both were tested at. The cost unit
is that of the one that the others are compared with, so that a reward means the same for both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.evaluation.evaluate import METRICS, RECORDS, read_metrics
from hierrouter.evaluation.statistics.bounds import extremes, guarded
from hierrouter.evaluation.statistics.crossed import Crossed, compare
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.evaluation.versus.fair import other_split, trained_on, unlike
from hierrouter.evaluation.versus.trees import changed_answers, changed_tree, read_singles
from hierrouter.learning.router import Router
from hierrouter.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.evaluation.versus.trees import Singles
    from hierrouter.learning.router import RouterInfo

MEASURES = ("quality", "relative_cost", "reward")
GATE = 0.95
"""Confidence of the one-sided bounds. Gates go by these, so no evaluation's config moves them."""


@dataclass(frozen=True)
class Tested:
    """What a router got at A alphas, with S training seeds, for N test queries."""

    name: str
    """What the user calls it."""
    metrics: dict[str, Any]
    """The content of metrics.json."""
    info: RouterInfo | None
    """Its description, where the router lies beside its evaluation."""
    missing: str
    """Why there is none; empty where there is one."""
    query_ids: tuple[str, ...]
    tasks: NDArray[np.str_]
    alphas: tuple[float, ...]
    quality: NDArray[np.float64]
    """A x S x N."""
    cost: NDArray[np.float64]
    """A x S x N, dollars."""
    singles: Singles
    """What each single model got for these queries, where that is known."""

    @property
    def seeds(self) -> int:
        """S."""
        return int(self.quality.shape[1])

    @property
    def unit(self) -> float:
        """Dollars in a cost unit."""
        return float(self.metrics["cost_unit_usd"])

    @property
    def kind(self) -> tuple[str, int]:
        """Metric and data seed."""
        return str(self.metrics["metric"]), int(self.metrics["router"]["data_seed"])


def read_tested(name: str, evaluation: Path, router: Path | None = None) -> Tested:
    """Reads an evaluation.

    Args:
        name: what the user calls it.
        evaluation: its folder.
        router: the folder of its router; none: `router` beside the evaluation, as `hierrouter run`
            and MLflow have it, if there is such a one.

    Raises:
        HierRouterError: there is no evaluation.
        DamagedFileError: a file cannot be read.
    """
    if not (evaluation / METRICS).is_file() or not (evaluation / RECORDS).is_file():
        raise HierRouterError(
            f"{name} is no evaluation: {evaluation} has no {METRICS} with {RECORDS}; name the "
            "folder that `hierrouter evaluate` made, an MLflow run, or models:/NAME@ALIAS"
        )
    metrics = read_metrics(evaluation)
    try:
        judged = str(metrics["router"]["weights_sha256"])
        metrics["metric"], metrics["router"]["data_seed"], metrics["cost_unit_usd"]
        metrics["confidence"], metrics["resamples"]
        info, missing = _described(router or evaluation.parent / "router", judged)
        return Tested(
            name=name,
            metrics=metrics,
            info=info,
            missing=missing,
            **_records(evaluation / RECORDS),
        )
    except (KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{evaluation / METRICS} has no {error}; evaluate the router anew"
        ) from error


def _described(folder: Path, weights: str) -> tuple[RouterInfo | None, str]:
    """The description of the router in a folder, if it is the one that was judged; else why not."""
    if not (folder / "router.json").exists():
        return None, "no router of its own lies beside its evaluation, in a folder named router"
    try:
        info = Router.load(folder).info
    except HierRouterError as error:
        return None, str(error).replace(str(folder), "its router")
    if info.weights_sha256 != weights:
        return None, "the router beside its evaluation is another than was evaluated"
    return info, ""


def _records(path: Path) -> dict[str, Any]:
    columns = ["query_id", "task", "alpha", "seed", "quality", "cost"]
    try:
        table = pq.read_table(path, columns=columns, filters=[("policy", "==", "router")])
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); evaluate again") from error
    alpha, seed = (np.asarray(table[name].to_numpy()) for name in ("alpha", "seed"))
    alphas, seeds = np.unique(alpha), np.unique(seed)
    if not len(alphas) or len(table) % (len(alphas) * len(seeds)):
        raise DamagedFileError(f"{path} does not hold every query at every alpha; evaluate again")
    shape = (len(alphas), len(seeds), -1)
    # The order of queries is the same in every block.
    order = np.lexsort((seed, alpha))
    ids, tasks = (np.array(table[name].cast("string").to_pylist()) for name in ("query_id", "task"))
    names = ids[order].reshape(shape)
    if not (names == names[0, 0]).all():
        raise DamagedFileError(f"{path} holds its queries in no one order; evaluate again")
    return {
        "query_ids": tuple(names[0, 0].tolist()),
        "tasks": tasks[order].reshape(shape)[0, 0],
        "alphas": tuple(alphas.tolist()),
        "quality": np.asarray(table["quality"].to_numpy())[order].reshape(shape),
        "cost": np.asarray(table["cost"].to_numpy())[order].reshape(shape),
        "singles": read_singles(path, float(alphas[0])),
    }


def check_pair(base: Tested, other: Tested) -> None:
    """Makes sure that two routers can be compared.

    Raises:
        HierRouterError: metric, data seed, split rule or version of the scorer differ, one was
            trained on test queries of the other, they have no query or no alpha in common, or a
            model's answers had other scores or prices.
    """
    names = (base.name, other.name)
    reason = unlike(base.kind, other.kind, names)
    versions = [each.metrics.get("tree", {}).get("scorer_version") for each in (base, other)]
    if reason is None and versions[0] != versions[1]:
        reason = (
            f"answers were scored by other versions of the metric ({versions[0]}, {versions[1]})"
        )
    if reason is None and base.info is not None and other.info is not None:
        reason = other_split(base.info.config["data"], other.info.config["data"])
    for tested, judge in ((base, other), (other, base)):
        if reason is None and judge.info is not None:
            seen = trained_on(tested.query_ids, judge.info.training_query_hashes)
            if seen:
                reason = (
                    f"{judge.name} was trained on {len(seen)} of the {len(tested.query_ids)} test "
                    f"queries of {tested.name} ({', '.join(seen[:3])}{', …' if seen[3:] else ''})"
                )
    known = set(other.query_ids)
    common = [name for name in base.query_ids if name in known]
    if reason is None and not common:
        reason = "no query was a test query of both"
    if reason is None and not set(base.alphas) & set(other.alphas):
        reason = "no alpha is in the grid of both"
    if reason is None:
        reason = changed_answers(base.singles, other.singles, common)
    if reason is not None:
        raise HierRouterError(
            f"{base.name} and {other.name} cannot be compared: {reason}; evaluate both routers on "
            "one tree, with the split that they were trained on"
        )
    trees = [each.metrics.get("tree", {}) for each in (base, other)]
    if not base.singles.keys() & other.singles.keys() and changed_tree(*trees):
        say(
            f"{base.name} and {other.name} were evaluated on trees that differ and have no model "
            "in common; whether prices and scores are the same cannot be told"
        )


def unchecked(base: Tested, other: Tested) -> list[str]:
    """What `check_pair` could not tell of two routers, since the description of one is not there.

    Returns:
        Sentences; none where everything was looked at.
    """
    found = []
    for tested, judge in ((base, other), (other, base)):
        if judge.info is None:
            found.append(
                f"cannot be told whether {judge.name} was trained on test queries of {tested.name}"
                f": {judge.missing}"
            )
    if found:
        found.append(
            f"cannot be told whether the queries of {base.name} and {other.name} were split by "
            "one rule"
        )
    return found


def differences(base: Tested, other: Tested, own: bool = False) -> dict[str, Any]:
    """One router minus another.

    Args:
        base: the one that is compared with. Its cost unit, resamples and confidence are taken.
        other: the one whose advantage is told.
        own: whether only the two routers themselves are compared, not those of further training
            seeds.

    Returns:
        `run`, `n`, `seeds`, `alphas`, `unchecked` (see there; also said), `over_grid` and
        `by_alpha`; in each of the latter `quality`,
        `relative_cost`, `cost` (dollars) and `reward`, each with `base`, `other` (the means),
        `mean` (their difference), `low`, `high`, `at_least`, `at_most` and `p`. The one-sided
        bounds are those of `GATE` and allow for a query that is lost, or won, outright
        (`bounds.guarded`); so they may lie outside the interval. A router is no worse than itself.

    Raises:
        HierRouterError: they cannot be compared (see `check_pair`).
    """
    check_pair(base, other)
    untold = unchecked(base, other)
    for sentence in untold:
        say(sentence)
    seeds = 1 if own else min(base.seeds, other.seeds)
    alphas = [alpha for alpha in base.alphas if alpha in other.alphas]
    known = set(other.query_ids)
    common = [name for name in base.query_ids if name in known]
    mine, theirs = (_values(each, common, alphas, seeds, base.unit) for each in (other, base))
    # Averaged over the grid, and at each alpha: S x N x 3 (1 + A).
    columns = [np.concatenate([each.mean(axis=0)[None], each]) for each in (mine, theirs)]
    mine, theirs = (np.concatenate(list(each), axis=2) for each in columns)
    place = {name: row for row, name in enumerate(base.query_ids)}
    tasks = base.tasks[[place[name] for name in common]]
    asked = base.metrics.get("evaluation", {})
    bootstrap = Bootstrap(tasks, int(base.metrics["resamples"]), int(asked.get("seed", 42)))
    means = Crossed(bootstrap, seeds).overall(mine - theirs)
    confidence = float(base.metrics["confidence"])
    compared = compare(means, confidence)
    same = [each.metrics["router"]["weights_sha256"] for each in (base, other)]
    if same[0] != same[1] or (mine != theirs).any():
        worst, best = extremes(mine - theirs)
        bounds = guarded(means, len(common), worst, best, GATE, bootstrap.seed)
        compared = [
            replace(each, at_least=float(low), at_most=float(high))
            for each, low, high in zip(compared, *bounds, strict=True)
        ]
    found = [
        {"base": float(before), "other": float(after), **asdict(each)}
        for before, after, each in zip(
            theirs.mean(axis=(0, 1)),
            mine.mean(axis=(0, 1)),
            compared,
            strict=True,
        )
    ]
    entries = [_entry(found[start : start + 3], base.unit) for start in range(0, len(found), 3)]
    return {
        "run": other.name,
        "n": len(common),
        "seeds": seeds,
        "alphas": alphas,
        "unchecked": untold,
        "over_grid": entries[0],
        "by_alpha": [
            {"alpha": alpha, **entry} for alpha, entry in zip(alphas, entries[1:], strict=True)
        ],
    }


def _values(
    tested: Tested, queries: list[str], alphas: list[float], seeds: int, unit: float
) -> NDArray[np.float64]:
    """A x S x N x 3: quality, relative cost and reward."""
    place = {name: row for row, name in enumerate(tested.query_ids)}
    rows = [place[name] for name in queries]
    at = [tested.alphas.index(alpha) for alpha in alphas]
    quality = tested.quality[at, :seeds][:, :, rows]
    relative = tested.cost[at, :seeds][:, :, rows] / unit
    reward = quality - np.array(alphas)[:, None, None] * relative
    return np.stack([quality, relative, reward], axis=3)


def _entry(measures: list[dict[str, float]], unit: float) -> dict[str, dict[str, float]]:
    entry = dict(zip(MEASURES, measures, strict=True))
    dollars = {
        key: value if key == "p" else value * unit for key, value in entry["relative_cost"].items()
    }
    return {**entry, "cost": dollars}

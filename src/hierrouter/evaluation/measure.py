"""What policies got on the test queries, as the numbers of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.cautions import cautions_about
from hierrouter.evaluation.intervals import Bootstrap, Means, intervals
from hierrouter.evaluation.policies import NEED_ALL_ROUTES, Arena, Chooser, Filled, Played, play_all
from hierrouter.learning.router import query_hash

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from hierrouter.config import EvaluationConfig
    from hierrouter.routes.outcomes import Moves, Outcomes

FORMAT_VERSION = 1
"""Of metrics.json."""
MEASURES = ("quality", "cost", "relative_cost", "reward")


class RouterFacts(Protocol):
    """What evaluation reads of a router's description."""

    @property
    def models(self) -> Collection[str]:
        """The pool's names, in the order of the action space."""

    @property
    def hops(self) -> int:
        """L."""

    @property
    def moves(self) -> Moves:
        """Which routes are allowed."""

    @property
    def metric(self) -> str:
        """The quality it was trained for."""

    @property
    def cost_unit_usd(self) -> float:
        """Dollars in one cost unit."""

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The least and greatest alpha met in training."""

    @property
    def training_query_hashes(self) -> Collection[str]:
        """Short hashes of the queries it was trained on."""


class Judgeable(Chooser, Protocol):
    """A router that says what it is."""

    @property
    def info(self) -> RouterFacts:
        """What it is."""


@dataclass(frozen=True)
class Measured:
    """The outcome of an evaluation, before anything is written."""

    metrics: dict[str, Any]
    """The content of metrics.json."""
    test: Outcomes
    """The test queries."""
    played: dict[float, dict[str, Played]]
    """By alpha, then by policy: what each got for each test query."""


@dataclass(frozen=True)
class Columns:
    """The distinct results among all policies and alphas, so that each is resampled once."""

    quality: list[NDArray[np.float64]]
    cost: list[NDArray[np.float64]]
    number: dict[tuple[float, str], int]
    """The column of each alpha and policy."""

    @classmethod
    def of(cls, played: dict[float, dict[str, Played]]) -> Columns:
        """Collects what was played; most policies give the same at every alpha."""
        columns = cls([], [], {})
        known: dict[tuple[bytes, bytes], int] = {}
        for alpha, policies in played.items():
            for name, result in policies.items():
                key = (result.quality.tobytes(), result.cost.tobytes())
                if key not in known:
                    known[key] = len(known)
                    columns.quality.append(result.quality)
                    columns.cost.append(result.cost)
                columns.number[alpha, name] = known[key]
        return columns

    def values(self, unit: float) -> NDArray[np.float64]:
        """N x 2K: the qualities, then the relative costs."""
        return np.stack([*self.quality, *(cost / unit for cost in self.cost)], axis=1)

    def extremes(self, unit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """2K worst and 2K best values: quality 0 at the highest cost paid, quality 1 for free."""
        ones = np.ones(len(self.quality))
        dearest = max(float(cost.max()) for cost in self.cost) / unit
        return np.concatenate([0 * ones, dearest * ones]), np.concatenate([ones, 0 * ones])


def check_fit(outcomes: Outcomes, facts: RouterFacts, hops: int) -> None:
    """Makes sure that a router may be judged on these outcomes.

    Args:
        outcomes: all queries, training and test.
        facts: the router's description.
        hops: the most calls of a route in their tree.

    Raises:
        HierRouterError: other models, hops or metric; no training or test query; outcomes that
            are not finite; or a test query that the router was trained on.
    """
    if tuple(facts.models) != outcomes.models:
        raise HierRouterError(
            f"the router was trained for the models {', '.join(facts.models)}, the tree has "
            f"{', '.join(outcomes.models)}; evaluate it on a tree of its own pool"
        )
    if facts.hops != hops:
        raise HierRouterError(
            f"the router makes up to {facts.hops} hops, the tree was recorded for "
            f"{hops}; evaluate it on a tree with pool.hops: {facts.hops}"
        )
    if facts.metric != outcomes.metric:
        raise HierRouterError(
            f"the router was trained for {facts.metric}, the outcomes are scored by "
            f"{outcomes.metric}; score the tree by {facts.metric}"
        )
    tests = [str(name) for name in np.array(outcomes.query_ids)[~outcomes.train]]
    for split, count in (("test", len(tests)), ("training", len(outcomes) - len(tests))):
        if count == 0:
            raise HierRouterError(
                f"the tree holds no {split} queries, so nothing can be compared; sample more "
                "(data.queries_per_task) or split them otherwise (data.train_share)"
            )
    used = set(facts.training_query_hashes)
    seen = [name for name in tests if query_hash(name) in used]
    if seen:
        raise HierRouterError(
            f"{len(seen)} of {len(tests)} test queries were used to train this router "
            f"({', '.join(seen[:3])}{', …' if len(seen) > 3 else ''}); "
            "evaluate it on a tree with the split that it was trained on"
        )
    for values in (outcomes.solve_quality, outcomes.solve_cost, outcomes.analyze_cost):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))[0])
            raise HierRouterError(
                f"query {outcomes.query_ids[row]} has an outcome that is not a number; "
                "score the tree anew"
            )


def measure(
    outcomes: Outcomes,
    router: Judgeable,
    config: EvaluationConfig,
    filled: Filled | None = None,
) -> Measured:
    """Plays every policy on the test queries and averages what they got.

    Args:
        outcomes: all recorded queries, training and test.
        router: the router to judge.
        config: alphas, resamples, confidence and seed.
        filled: the router's own routes at these alphas, where the tree holds no others: `outcomes`
            are then the direct answers.

    Returns:
        The metrics with paired intervals, and every policy's result for each test query.

    Raises:
        HierRouterError: router and outcomes do not fit (see `check_fit`).
    """
    facts = router.info
    check_fit(outcomes, facts, outcomes.hops if filled is None else facts.hops)
    arena = Arena(
        train=outcomes.select(outcomes.train),
        test=outcomes.select(~outcomes.train),
        moves=facts.moves,
        cost_unit_usd=facts.cost_unit_usd,
        router=router,
        filled=filled,
    )
    alphas = sorted(set(config.alphas))
    played = {alpha: play_all(arena, alpha) for alpha in alphas}
    columns = Columns.of(played)
    bootstrap = Bootstrap(arena.test.tasks, config.bootstrap, config.seed)
    values = columns.values(facts.cost_unit_usd)
    by_task = bootstrap.by_task(values, *columns.extremes(facts.cost_unit_usd))
    overall = bootstrap.overall(values, by_task)

    def judged(means: Means, alpha: float) -> dict[str, dict[str, Any]]:
        parts = _parts(means, columns, alpha, list(played[alpha]))
        return _named(list(played[alpha]), parts, config.confidence, facts.cost_unit_usd)

    def differences(alpha: float) -> dict[str, dict[str, Any]]:
        others = [name for name in played[alpha] if name != "router"]
        mine = _parts(overall, columns, alpha, ["router"])
        theirs = _parts(overall, columns, alpha, others)
        parts = {
            key: Means(
                mine[key].measured - theirs[key].measured,
                mine[key].resampled - theirs[key].resampled,
            )
            for key in theirs
        }
        return _named(others, parts, config.confidence, facts.cost_unit_usd)

    policies = judged(overall, config.alpha)
    tasks = {task: judged(means, config.alpha) for task, means in by_task.items()}
    for name, entry in policies.items():
        result = played[config.alpha][name]
        entry["routes"] = result.shares()
        entry["tasks"] = {
            task: {
                **values[name],
                "routes": result.shares(arena.test.tasks == task),
            }
            for task, values in tasks.items()
        }
    by_alpha = []
    for alpha in alphas:
        entries = judged(overall, alpha)
        for name, entry in entries.items():
            entry["routes"] = played[alpha][name].shares()
        by_alpha.append({"alpha": alpha, "policies": entries, "differences": differences(alpha)})
    metrics = {
        "format_version": FORMAT_VERSION,
        "metric": outcomes.metric,
        "alpha": config.alpha,
        "n_test": len(arena.test),
        "n_train": len(arena.train),
        "n_test_by_task": {task: len(rows) for task, rows in bootstrap.rows.items()},
        "models": list(outcomes.models),
        "hops": facts.hops,
        "moves": facts.moves,
        "cost_unit_usd": facts.cost_unit_usd,
        "confidence": config.confidence,
        "resamples": config.bootstrap,
        "left_out": [] if filled is None else list(NEED_ALL_ROUTES),
        "policies": policies,
        "differences": differences(config.alpha),
        "by_alpha": by_alpha,
        "curves": _curves(by_alpha),
        "warnings": cautions_about(arena, facts.alpha_range, played, config.confidence),
    }
    return Measured(metrics, arena.test, played)


def _parts(means: Means, columns: Columns, alpha: float, names: list[str]) -> dict[str, Means]:
    """Quality, relative cost and reward of some policies: reward is linear in the other two."""
    at = np.array([columns.number[alpha, name] for name in names])
    after = at + len(columns.quality)
    quality = Means(means.measured[at], means.resampled[:, at])
    relative = Means(means.measured[after], means.resampled[:, after])
    reward = Means(
        quality.measured - alpha * relative.measured,
        quality.resampled - alpha * relative.resampled,
    )
    return {"quality": quality, "relative_cost": relative, "reward": reward}


def _named(
    names: list[str], parts: dict[str, Means], confidence: float, unit: float
) -> dict[str, dict[str, Any]]:
    """Intervals of every measure, by policy; dollars follow from the relative cost."""
    relative = parts["relative_cost"]
    cost = Means(relative.measured * unit, relative.resampled * unit)
    found = {key: intervals(part, confidence) for key, part in {**parts, "cost": cost}.items()}
    return {
        name: {key: found[key][position] for key in MEASURES} for position, name in enumerate(names)
    }


def _curves(by_alpha: list[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """Each policy's mean quality and cost at every alpha."""
    return {
        name: [
            {
                "alpha": at["alpha"],
                **{key: at["policies"][name][key]["mean"] for key in MEASURES},
            }
            for at in by_alpha
        ]
        for name in by_alpha[0]["policies"]
    }

"""Does hopping help? Routes of more than one call against direct answers, and where a gain is from.

A second hop brings three things: another prompt and more tokens (the same weights twice), another
model (a mixture), and a higher price. Each is told apart here, task by task, from recorded outcomes
alone. Whatever is compared is chosen on other folds than it is judged on, so all queries count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.policies.play import best_column, play
from hierrouter.evaluation.statistics.crossed import CROSS_FITTED, Crossed
from hierrouter.evaluation.statistics.intervals import Bootstrap, clip, intervals
from hierrouter.evaluation.tradeoff.hull import hull
from hierrouter.routes.outcomes import RouteTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from hierrouter.config import EvaluationConfig
    from hierrouter.evaluation.policies.arena import Played
    from hierrouter.evaluation.statistics.intervals import Interval
    from hierrouter.routes.outcomes import Moves, Outcomes

ENOUGH = 150
"""Queries of a task from which the answer is given without reserve."""
GAINS = ("gain", "quality_gain", "at_cost", "same_gain", "mixture_gain")
OF_ROUTER = ("router_share", "router_gain")
IN_QUALITY = ("quality_gain", "at_cost", "router_share")
"""Those that are no rewards: differences in quality, and a share."""


@dataclass(frozen=True)
class Judged:
    """What a router took for some of the queries."""

    each: tuple[Played, ...]
    """With each of S training seeds."""
    rows: NDArray[np.int64]
    """n row numbers: for which of all queries, in the order of the results."""


def hopping(
    outcomes: Outcomes,
    moves: Moves,
    weights: Mapping[str, str],
    unit: float,
    router: Judged,
    config: EvaluationConfig,
) -> dict[str, Any] | None:
    """Whether a second call pays, by task and over all of them, at the headline alpha.

    Args:
        outcomes: N queries of both splits, with all routes that the moves allow.
        moves: which routes are allowed.
        weights: digest of each model's weights, by its name. One that is missing is a model of
            weights that no other has.
        unit: dollars in one cost unit.
        router: what the judged router took, at the headline alpha.
        config: alpha, resamples, confidence and seed.

    Returns:
        `alpha`, `all` (one choice for all tasks), `tasks` (a choice for each), each with `n`,
        `direct`, `two_hop` and `same` (the routes chosen most often), intervals of `GAINS` and
        `OF_ROUTER`, and `router_n`, the queries that the latter are about; and `note`, none where
        each task has enough queries. An interval is none where there is nothing to compare. None in
        all where no route has a second call, or all queries are in one fold.
    """
    table = outcomes.routes(moves)
    if all(len(path) < 2 for path in table.paths) or len(np.unique(outcomes.folds)) < 2:
        return None
    world = _World(outcomes, table, weights, unit, config)
    names, counts = np.unique(outcomes.tasks, return_counts=True)
    few = [f"{name} {count}" for name, count in zip(names, counts, strict=True) if count < ENOUGH]
    note = (
        f"Judged on fewer than {ENOUGH} queries of a task ({', '.join(few)}): the intervals are "
        "wide, and which routes are best may change with more."
    )
    return {
        "alpha": config.alpha,
        "all": _Choices(world, by_task=False).entries(router)["all"],
        "tasks": _Choices(world, by_task=True).entries(router),
        "note": note if few else None,
    }


@dataclass(frozen=True)
class _World:
    """What is compared, and how."""

    outcomes: Outcomes
    table: RouteTable
    weights: Mapping[str, str]
    unit: float
    config: EvaluationConfig

    @cached_property
    def multiple(self) -> RouteTable:
        """The routes of more than one call."""
        return _only(self.table, [len(path) > 1 for path in self.table.paths])

    @cached_property
    def twice(self) -> RouteTable:
        """Those of them whose calls are all of the same weights."""
        return _only(self.multiple, [self._kinds(path) == 1 for path in self.multiple.paths])

    @cached_property
    def mixed(self) -> RouteTable | None:
        """The others; none where the whole pool has the same weights."""
        flags = [self._kinds(path) > 1 for path in self.multiple.paths]
        return _only(self.multiple, flags) if any(flags) else None

    def _kinds(self, path: Sequence[int]) -> int:
        names = [self.outcomes.models[step] for step in path]
        return len({self.weights.get(name, name) for name in names})

    @property
    def dearest(self) -> float:
        """The highest relative cost of any route."""
        return float(max(self.table.cost.max(), self.outcomes.direct().cost.max())) / self.unit


class _Choices:
    """The best routes of each kind for every query, chosen on the other folds."""

    def __init__(self, world: _World, by_task: bool) -> None:
        """Chooses.

        Args:
            world: what among.
            by_task: whether each task gets a choice of its own.
        """
        self._world, self._by_task = world, by_task
        self._direct = self._chosen(world.outcomes.direct())
        self._two_hop = self._chosen(world.multiple)
        self._same = self._chosen(world.twice)

    def entries(self, router: Judged) -> dict[str, dict[str, Any]]:
        """What is told of each task, or under `all` of all queries."""
        tasks = self._world.outcomes.tasks
        gains = self._told(GAINS, self.gains[None], tasks)
        taken = self._told(OF_ROUTER, self._of_router(router), tasks[router.rows])
        found: dict[str, dict[str, Any]] = {}
        for name, intervals_of in gains.items():
            among = tasks == name if self._by_task else np.ones(len(tasks), dtype=np.bool_)
            found[name] = {
                "n": int(among.sum()),
                "direct": next(iter(self._direct.shares(among))),
                "two_hop": next(iter(self._two_hop.shares(among))),
                "same": next(iter(self._same.shares(among))),
                **intervals_of,
                "router_n": int(among[router.rows].sum()),
                **taken.get(name, dict.fromkeys(OF_ROUTER)),
            }
        return found

    @cached_property
    def gains(self) -> NDArray[np.float64]:
        """N x 5 values of `GAINS`; NaN where there is nothing to compare."""
        world, two, one = self._world, self._two_hop, self._direct
        rows, direct = np.arange(len(two.quality)), world.outcomes.direct()
        last = np.array([path[-1] for path in world.twice.paths])[self._same.taken]
        own = direct.reward(world.config.alpha, world.unit)[rows, last]
        same = self._reward(self._same)
        mixed = np.full(len(rows), np.nan)
        if world.mixed is not None:
            mixed = self._reward(self._chosen(world.mixed)) - same
        columns = [
            self._reward(two) - self._reward(one),
            two.quality - one.quality,
            two.quality - self._mix_of_direct_answers(),
            same - own,
            mixed,
        ]
        return np.stack(columns, axis=1)

    def _of_router(self, router: Judged) -> NDArray[np.float64]:
        """S x n x 2 values of `OF_ROUTER`."""
        direct = self._reward(self._direct)[router.rows]
        found = []
        for played in router.each:
            calls = np.array([name.count(":") + name.count("!") for name in played.routes])
            more = (calls[played.taken] > 0).astype(np.float64)
            found.append(np.stack([more, self._reward(played) - direct], axis=1))
        return np.stack(found)

    def _told(
        self, names: Sequence[str], values: NDArray[np.float64], tasks: NDArray[np.str_]
    ) -> dict[str, dict[str, Interval | None]]:
        """Intervals of S x N x K columns, by task or under `all`; none where all are NaN."""
        config = self._world.config
        there = [name for name, nan in zip(names, np.isnan(values[0, 0]), strict=True) if not nan]
        columns = values[:, :, ~np.isnan(values[0, 0])]
        crossed = Crossed(
            Bootstrap(tasks, config.bootstrap, config.seed), len(values), CROSS_FITTED
        )
        if self._by_task:
            # The ends of what there can be, where one query says nothing.
            most = 1 + config.alpha * self._world.dearest
            best = np.array([1.0 if name in IN_QUALITY else most for name in there])
            worst = np.where([name == "router_share" for name in there], 0.0, -best)
            means = crossed.by_task(columns, worst, best)
        else:
            means = {"all": crossed.overall(columns)}
        none: dict[str, Interval | None] = dict.fromkeys(names)
        found = {}
        for key, each in means.items():
            told = dict(zip(there, intervals(each, config.confidence), strict=True))
            if "router_share" in told:
                clip(told["router_share"], 0.0, 1.0)
            found[key] = {**none, **told}
        return found

    def _reward(self, played: Played) -> NDArray[np.float64]:
        return np.asarray(
            played.quality - self._world.config.alpha * played.cost / self._world.unit
        )

    def _chosen(self, table: RouteTable) -> Played:
        """For every query the column of a table that is best on the other folds."""
        alpha, unit = self._world.config.alpha, self._world.unit
        taken = np.zeros(len(table.quality), dtype=np.int64)
        for held, seen in self._parts():
            taken[held] = best_column(table, alpha, unit, seen)
        return play("", table, taken)

    def _mix_of_direct_answers(self) -> NDArray[np.float64]:
        """N expected qualities of direct answers, mixed at random to the two-hop route's cost.

        Which are mixed, and how, follows from the other folds: from the hull of their direct
        answers and the mean cost of the two-hop route there.
        """
        direct = self._world.outcomes.direct()
        quality = np.zeros(len(direct.quality))
        for held, seen in self._parts():
            column = best_column(
                self._world.multiple, self._world.config.alpha, self._world.unit, seen
            )
            budget = float(self._world.multiple.cost[seen, column].mean())
            shares = mixture(
                direct.cost[seen].mean(axis=0), direct.quality[seen].mean(axis=0), budget
            )
            quality[held] = direct.quality[held] @ shares
        return quality

    def _parts(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Which queries are judged, and on which others is chosen for them."""
        outcomes = self._world.outcomes
        for fold in np.unique(outcomes.folds):
            inside = outcomes.folds == fold
            if not self._by_task:
                yield inside, ~inside
                continue
            for task in np.unique(outcomes.tasks[inside]):
                mine = outcomes.tasks == task
                # A task of which other folds have nothing gets what is best over all.
                seen = ~inside & mine if (~inside & mine).any() else ~inside
                yield inside & mine, seen


def mixture(
    cost: NDArray[np.float64], quality: NDArray[np.float64], budget: float
) -> NDArray[np.float64]:
    """The random mix of points that has the highest quality at a mean cost.

    Args:
        cost: P mean costs.
        quality: P mean qualities.
        budget: the mean cost that the mix may have. What a dearest point leaves is not spent; where
            the cheapest is dearer, only a share of the queries is answered (`Hull.at`).

    Returns:
        P shares, which sum to 1, or to less where the budget does not answer every query.
    """
    curve = hull(cost, quality)
    shares = np.zeros(len(cost))
    if budget < curve.cost[0]:
        shares[curve.points[0]] = budget / curve.cost[0]
        return shares
    above = int(np.searchsorted(curve.cost, budget, side="right"))
    if above == len(curve.cost):
        shares[curve.points[-1]] = 1.0
        return shares
    low, high = curve.cost[above - 1], curve.cost[above]
    shares[curve.points[above]] = (budget - low) / (high - low)
    shares[curve.points[above - 1]] = (high - budget) / (high - low)
    return shares


def _only(table: RouteTable, flags: Sequence[bool]) -> RouteTable:
    """Some of a table's routes."""
    kept = [column for column, flag in enumerate(flags) if flag]
    return RouteTable(
        tuple(table.names[column] for column in kept),
        tuple(table.paths[column] for column in kept),
        table.quality[:, kept],
        table.cost[:, kept],
    )

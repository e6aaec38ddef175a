"""Every policy a router is compared with, as what it would have got for each test query.

A policy is one small function from an `Arena` and an alpha to one or more `Played`; `POLICIES`
lists them in the order of reports. Whatever a policy chooses, it chooses on the training queries
at that alpha; only the oracles look at test outcomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.policies.arena import Arena, Foreteller, Played
from hierrouter.evaluation.policies.cascades import tune
from hierrouter.routes.outcomes import cascade_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.evaluation.policies.arena import Contender
    from hierrouter.evaluation.policies.predictors import Predictions
    from hierrouter.routes.outcomes import Moves, Outcomes, RouteTable

TIE = 1e-12
"""Rewards closer than this are equal: sums in another order differ by as much."""


Policy = Callable[[Arena, float], list[Played]]
"""Plays a policy, or a family of policies, on the test queries at an alpha."""


def play(name: str, table: RouteTable, taken: NDArray[np.int64]) -> Played:
    """What taking column `taken[i]` of `table` for query i gives."""
    rows = np.arange(len(taken))
    return Played(name, table.quality[rows, taken], table.cost[rows, taken], table.names, taken)


def play_always(name: str, table: RouteTable, column: int) -> Played:
    """What taking the same column of `table` for every query gives."""
    return play(name, table, np.full(len(table.quality), column, dtype=np.int64))


def cheapest_best(
    reward: NDArray[np.float64], cost: NDArray[np.float64]
) -> NDArray[np.int64] | np.int64:
    """The column of the highest reward along the last axis; ties go to the cheapest, then first."""
    best = reward >= reward.max(axis=-1, keepdims=True) - TIE
    column: NDArray[np.int64] | np.int64 = np.where(best, cost, np.inf).argmin(axis=-1)
    return column


def best_column(
    table: RouteTable, alpha: float, unit: float, among: NDArray[np.bool_] | None = None
) -> int:
    """The column with the highest mean reward over the queries (those in the mask `among`)."""
    rows = slice(None) if among is None else among
    cost = table.cost[rows].mean(axis=0)
    return int(cheapest_best(table.quality[rows].mean(axis=0) - alpha * cost / unit, cost))


def best_by_task(
    name: str, arena: Arena, train: RouteTable, test: RouteTable, alpha: float
) -> Played:
    """For each task the column best on its training queries; unseen tasks get the best overall."""
    unit = arena.cost_unit_usd
    taken = np.full(len(arena.test), best_column(train, alpha, unit), dtype=np.int64)
    for task in np.unique(arena.test.tasks):
        seen = arena.train.tasks == task
        if seen.any():
            taken[arena.test.tasks == task] = best_column(train, alpha, unit, seen)
    return play(name, test, taken)


def random_chances(table: RouteTable, models: int, hops: int, moves: Moves) -> NDArray[np.float64]:
    """The chance of each route when every hop draws a model, then a role, uniformly.

    Before the last hop `early_exit` has two roles to draw from and `paper` one; on the last hop
    there is one in both. A route's chance is the product over its calls. The first answer is
    accepted.

    Returns:
        R probabilities that sum to 1.
    """
    roles = 2 if moves in ("early_exit", "cascade") else 1
    calls = np.array([len(path) for path in table.paths])
    draws_of_role = np.minimum(calls, hops - 1)
    return np.asarray(1.0 / (float(models) ** calls * float(roles) ** draws_of_role))


def random(arena: Arena, alpha: float) -> list[Played]:
    """Uniform over models, then over the roles allowed at that hop: its exact expectation."""
    table = arena.test_routes
    chances = random_chances(table, len(arena.test.models), arena.test.hops, arena.moves)
    return [
        Played("random", table.quality @ chances, table.cost @ chances, table.names, None, chances)
    ]


def best_single(arena: Arena, alpha: float) -> list[Played]:
    """The one model whose direct answers are best on train."""
    column = best_column(arena.train_direct, alpha, arena.cost_unit_usd)
    return [play_always("best_single", arena.test_direct, column)]


def best_single_per_task(arena: Arena, alpha: float) -> list[Played]:
    """For each task the model whose direct answers are best on train."""
    name = "best_single_per_task"
    return [best_by_task(name, arena, arena.train_direct, arena.test_direct, alpha)]


def best_path(arena: Arena, alpha: float) -> list[Played]:
    """The one allowed route that is best on train."""
    column = best_column(arena.train_routes, alpha, arena.cost_unit_usd)
    return [play_always("best_path", arena.test_routes, column)]


def best_path_per_task(arena: Arena, alpha: float) -> list[Played]:
    """For each task the allowed route that is best on train."""
    name = "best_path_per_task"
    return [best_by_task(name, arena, arena.train_routes, arena.test_routes, alpha)]


def singles(arena: Arena, alpha: float) -> list[Played]:
    """`single:A` for every model: its direct answers."""
    table = arena.test_direct
    return [play_always(f"single:{name}", table, k) for k, name in enumerate(table.names)]


def paths(arena: Arena, alpha: float) -> list[Played]:
    """`path:A:B` for every allowed route of more than one call."""
    table = arena.test_routes
    return [
        play_always(f"path:{name}", table, k)
        for k, name in enumerate(table.names)
        if len(table.paths[k]) > 1
    ]


def knn(arena: Arena, alpha: float) -> list[Played]:
    """The route that was best for the queries most like this one, k of them."""
    return [_predicted("knn", arena, arena.neighbours, alpha)]


def ridge_regression(arena: Arena, alpha: float) -> list[Played]:
    """The route of the highest reward by ridge regression on the query's embedding."""
    return [_predicted("ridge", arena, arena.regression, alpha)]


def _predicted(name: str, arena: Arena, predictions: Predictions, alpha: float) -> Played:
    """The routes that predictions come to, with what was predicted of them."""
    choice = predictions.choose(arena.train_routes, alpha, arena.cost_unit_usd)
    return replace(play(name, arena.test_routes, choice.taken), predicted=choice.predicted)


def cascades(arena: Arena, alpha: float) -> list[Played]:
    """`cascade:A:B` for every two models: A, and B where A's answer looks doubtful."""
    played = []
    quality, cost = arena.test.solve_quality[:, 0], arena.test.solve_cost[:, 0]
    names = arena.test.models
    for first, second in itertools.permutations(range(len(names)), 2):
        threshold = tune(arena.train, first, second, alpha, arena.cost_unit_usd)
        if threshold is None:
            continue
        passed = ~threshold.accepts(arena.test, first)
        played.append(
            Played(
                f"cascade:{names[first]}:{names[second]}",
                np.where(passed, quality[:, second], quality[:, first]),
                cost[:, first] + np.where(passed, cost[:, second], 0.0),
                (names[first], f"{names[first]}!{names[second]}"),
                passed.astype(np.int64),
            )
        )
    return played


def majority(arena: Arena, alpha: float) -> list[Played]:
    """All models answer, and what most of them say is returned; all are paid for.

    Where as many say one thing as another, the model that is best on train decides.
    """
    said, count = arena.test.said, len(arena.test.models)
    if said is None or count < 3:
        return []
    direct = said[:, 0]
    votes = ((direct[:, :, None] == direct[:, None, :]) & (direct >= 0)[:, :, None]).sum(axis=2)
    merit = arena.train.solve_quality[:, 0].mean(axis=0)
    returned = np.lexsort((np.broadcast_to(merit, votes.shape), votes), axis=1)[:, -1]
    everybody = tuple(range(count))
    return [
        Played(
            "majority",
            arena.test.solve_quality[np.arange(len(direct)), 0, returned],
            arena.test.solve_cost[:, 0].sum(axis=1),
            tuple(cascade_name((), everybody, each, arena.test.models) for each in everybody),
            returned.astype(np.int64),
        )
    ]


def references(arena: Arena, alpha: float) -> list[Played]:
    """`reference:X` for every model measured beside the pool."""
    quality, cost = arena.test.reference_quality, arena.test.reference_cost
    if quality is None or cost is None:
        return []
    taken = np.zeros(len(arena.test), dtype=np.int64)
    return [
        Played(f"reference:{name}", quality[:, k], cost[:, k], (name,), taken)
        for k, name in enumerate(arena.test.references)
    ]


def oracle(arena: Arena, alpha: float) -> list[Played]:
    """The best allowed route of each test query by realised reward; ties go to the cheapest."""
    table = arena.test_routes
    reward = table.reward(alpha, arena.cost_unit_usd)
    return [play("oracle", table, np.asarray(cheapest_best(reward, table.cost)))]


def oracle_corrected(arena: Arena, alpha: float) -> list[Played]:
    """The oracle that does not foresee how guesses fall: an expectation."""
    if arena.guesses is None:
        return []
    best = arena.guesses.oracle(arena.test_routes.cost / arena.cost_unit_usd, alpha)
    cost = best.relative_cost * arena.cost_unit_usd
    return [Played("oracle_corrected", best.quality, cost, (), None, np.zeros(0))]


POLICIES: dict[str, Policy] = {
    "random": random,
    "best_single": best_single,
    "best_single_per_task": best_single_per_task,
    "best_path": best_path,
    "best_path_per_task": best_path_per_task,
    "knn": knn,
    "ridge": ridge_regression,
    "single": singles,
    "path": paths,
    "cascade": cascades,
    "majority": majority,
    "reference": references,
    "oracle_corrected": oracle_corrected,
    "oracle": oracle,
}
"""Every policy or family of policies beside the trained routers, in the order of reports."""

NEED_ALL_ROUTES = (
    "random",
    "best_path",
    "best_path_per_task",
    "knn",
    "ridge",
    "path",
    "oracle_corrected",
    "oracle",
)
"""Those that cannot be played where only the router's own routes are recorded."""


def play_contender(contender: Contender, test: Outcomes, alpha: float) -> tuple[Played, ...]:
    """What each of S routers of one recipe got, acting by argmax, and what it expected."""
    seen = test.first_hop() if contender.hops < test.hops else test
    table = seen.every_route(contender.moves)
    return tuple(
        replace(
            play(contender.name, table, router.follow(seen, alpha)),
            predicted=router.foretell(seen, alpha) if isinstance(router, Foreteller) else None,
        )
        for router in contender.routers
    )


def play_all(arena: Arena, alpha: float) -> dict[str, tuple[Played, ...]]:
    """Plays every policy on the test queries at one alpha.

    Args:
        arena: splits, moves, cost unit and routers.
        alpha: quality given up for one cost unit saved.

    Returns:
        By policy, in the order of reports, its result with each of the S training seeds, or the
        one result of a policy that has none; without `NEED_ALL_ROUTES` where not all routes are
        recorded.
    """
    found: dict[str, tuple[Played, ...]]
    if arena.filled is not None:
        found = {"router": (arena.filled.played[alpha],)}
    else:
        found = {each.name: play_contender(each, arena.test, alpha) for each in arena.contenders}
    left_out = () if arena.filled is None else NEED_ALL_ROUTES
    policies = [policy for name, policy in POLICIES.items() if name not in left_out]
    found |= {played.name: (played,) for policy in policies for played in policy(arena, alpha)}
    return found

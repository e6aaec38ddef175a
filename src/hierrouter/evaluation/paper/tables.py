"""Our pool in the paper's tables: token F1, dollars and net reward, beside the paper's own numbers.

Token F1 is what the paper reports as quality, whatever metric the router was trained for; accuracy
stands beside it. Both are read from the scores of the recorded replies, of the same test queries
and of the routes that the router took at the headline alpha.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.paper.findings import Found, findings
from hierrouter.evaluation.paper.results import ALPHA, TASKS, table
from hierrouter.evaluation.report.sankey import ENDS, steps
from hierrouter.routes.imported.store import is_imported
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.scores import read_scores
from hierrouter.routes.store import NodeStore
from hierrouter.routes.tree import read_info

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.evaluation.measure import Measured
    from hierrouter.evaluation.policies.arena import Played
    from hierrouter.routes.outcomes import Outcomes

MEASURES = ("f1", "cost", "accuracy", "tokens_out")
ROUTER = "router"
RECIPE = "router_ppo_paper"
"""Trained with the paper's numbers: the counterpart of its own router, where it was played."""


@dataclass(frozen=True)
class Answers:
    """What the answers of one row of the tables are like, for N test queries."""

    f1: NDArray[np.float64]
    """N token F1."""
    cost: NDArray[np.float64]
    """N dollars, of the whole route."""
    accuracy: NDArray[np.float64]
    """N accuracies."""
    tokens_out: NDArray[np.float64]
    """N lengths of the final reply, in its model's tokens."""


def side_by_side(tree: Path, measured: Measured) -> dict[str, Any] | None:
    """The section of metrics.json with our pool in the paper's layout.

    Args:
        tree: the route tree.
        measured: what was measured on its test queries.

    Returns:
        `tasks`, `ours`, `theirs` and `findings`; none where no test query is of one of the paper's
        tasks, or there are no scored replies.
    """
    if is_imported(read_info(tree)) or not np.isin(measured.test.tasks, TASKS).any():
        return None
    played = measured.played[measured.metrics["alpha"]]
    routers = {name: played[name] for name in (ROUTER, RECIPE) if name in played}
    answers = read_answers(tree, measured.test, routers)
    if not any(name in answers for name in measured.test.models):
        return None
    return section(answers, measured)


def section(answers: Mapping[str, Answers], measured: Measured) -> dict[str, Any]:
    """As `side_by_side`, of answers at hand.

    Args:
        answers: by row, of the N test queries: references, models of the pool, `router`.
        measured: what was measured on these queries.
    """
    theirs, ours = table(), in_their_layout(answers, measured.test.tasks)
    found = Found(
        ours=ours,
        pool=tuple(name for name in measured.test.models if name in ours),
        references=tuple(name for name in measured.test.references if name in ours),
        changes=route_change(measured),
        cost_unit_usd=measured.metrics["cost_unit_usd"],
        metrics=measured.metrics,
    )
    return {"tasks": list(TASKS), "ours": ours, "theirs": theirs, "findings": findings(found)}


def in_their_layout(
    answers: Mapping[str, Answers], tasks: NDArray[np.str_]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means by row and task, of the paper's tasks that are there.

    Returns:
        By row and task: `f1`, `cost` (dollars), `net_reward` (at the paper's alpha, in dollars),
        `accuracy`, `tokens_out` (of the final reply) and `n`.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row, each in answers.items():
        found[row] = {}
        for task in TASKS:
            among = tasks == task
            if not among.any():
                continue
            mean = {name: float(getattr(each, name)[among].mean()) for name in MEASURES}
            net = mean["f1"] - ALPHA * mean["cost"]
            found[row][task] = {**mean, "net_reward": net, "n": int(among.sum())}
    return found


def read_answers(
    tree: Path, test: Outcomes, routers: Mapping[str, Sequence[Played]]
) -> dict[str, Answers]:
    """What references, pool and routers answered, from the scores and nodes of a tree.

    Args:
        tree: the route tree.
        test: N test queries.
        routers: by row, what a router took for them, with each of S training seeds; their mean
            counts.

    Returns:
        By row; a row of which an answer is not scored is left out.
    """
    _, scores = read_scores(tree)
    nodes = NodeStore(tree / "nodes")

    def of(routes: Sequence[tuple[str, ...]]) -> NDArray[np.float64] | None:
        """4 x N: `MEASURES` of one route a query, the cost that of the last call."""
        rows = []
        for query, models in zip(test.query_ids, routes, strict=True):
            place = NodeKey(query, models, "solve")
            score, node = scores.get(place), nodes.get(place)
            if score is None or node is None:
                return None
            f1, accuracy = (float(score.metrics[name] or 0) for name in ("token_f1", "accuracy"))
            rows.append((f1, score.cost, accuracy, float(node.tokens_out)))
        return np.array(rows).T

    found = {}
    for name in (*test.references, *test.models):
        values = of([(name,)] * len(test))
        if values is not None:
            found[name] = Answers(*values)
    for name, each in routers.items():
        seeds = []
        for played in each:
            if played.taken is None:
                continue
            places = [_answered(route) for route in played.routes]
            values = of([places[column] for column in played.taken])
            if values is None:
                continue
            values[MEASURES.index("cost")] = played.cost
            seeds.append(values)
        if len(seeds) == len(each):
            found[name] = Answers(*np.mean(seeds, axis=0))
    return found


def _answered(route: str) -> tuple[str, ...]:
    """The models whose node holds the answer that a route returns: those before it, and its own.

    Answers that were checked and not returned are no part of what the answer was given to.
    """
    calls = steps(route)
    before = [name for name, does in calls if does == ENDS[":"]]
    (returned,) = {name for name, does in calls if does == ENDS[""]}
    return (*before, returned)


def route_change(measured: Measured) -> tuple[float, float] | None:
    """Between which two alphas of the grid a router first takes other routes; none: nowhere."""
    alphas = sorted(measured.played)
    for low, high in itertools.pairwise(alphas):
        pairs = zip(measured.played[low][ROUTER], measured.played[high][ROUTER], strict=True)
        for before, after in pairs:
            if before.taken is None or after.taken is None:
                continue
            if not np.array_equal(
                np.array(before.routes)[before.taken], np.array(after.routes)[after.taken]
            ):
                return low, high
    return None

"""Examples: a query that the router wins, one that it loses, and one that it saves money on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.report.sankey import steps
from hierrouter.routes.imported.store import is_imported
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.tree import RouteTree, read_info, withheld_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.data.queries import Query
    from hierrouter.evaluation.policies.arena import Played
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.outcomes import Outcomes

RIVAL = "best_single"
NEVER_SHOWN = frozenset({"math"})
"""Tasks whose texts may not be passed on, whatever a tree says: reports are passed on."""
LONGEST, KEPT = 1400, 1200
"""Most characters of a question or a reply, and how many are kept of a longer one."""
TRIED = 50
"""Most queries that are looked at for one example, should replies be missing."""
RIGHT = 0.5
"""Least quality that counts as right when both answered as well."""
SAME = 1e-9


@dataclass(frozen=True)
class Call:
    """One model call of a route."""

    model: str
    does: str
    reply: str
    """As the model wrote it (not to be trusted), cut to a bounded length."""
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Side:
    """What one policy did with the query."""

    policy: str
    route: str
    quality: float
    relative_cost: float
    calls: list[Call]


@dataclass(frozen=True)
class Example:
    """One query, as the router and its rival answered it."""

    kind: str
    """`win`, `loss` or `cheap save`."""
    count: int
    """How many of the test queries are of this kind."""
    of: int
    """How many test queries there are."""
    query_id: str
    question: str
    reference: str
    sides: list[Side]


def examples_of(
    tree: Path, test: Outcomes, plays: Mapping[str, Sequence[Played]], cost_unit_usd: float
) -> list[Example]:
    """One example of each kind, of the router itself (its own training seed).

    Of each kind, the one with the largest difference that may be shown: the questions of tasks
    that the tree withholds, and their replies, which repeat them, are not.

    Args:
        tree: the folder of the route tree.
        test: N test queries.
        plays: by policy, what each got at one alpha.
        cost_unit_usd: dollars in one cost unit.

    Returns:
        No example of a kind of which there is none; none at all of imported outcomes, which have
        no replies.
    """
    info = read_info(tree)
    if is_imported(info) or RIVAL not in plays:
        return []
    try:
        opened = RouteTree(tree)
    except HierRouterError:  # questions that have to be fetched anew, and cannot be
        return []
    hidden = withheld_tasks(info) | NEVER_SHOWN
    asked = {query.query_id: query for query in opened.queries if query.task not in hidden}
    mine, theirs = plays["router"][0], plays[RIVAL][0]
    found = []
    for kind, among, by in _kinds(mine, theirs):
        ranked = [int(row) for row in np.argsort(-by, kind="stable") if among[row]]
        shown = [row for row in ranked if test.query_ids[row] in asked]
        for row in shown[:TRIED]:
            query = asked[test.query_ids[row]]
            sides = [_side(opened, query, each, row, cost_unit_usd) for each in (mine, theirs)]
            if None not in sides:
                known = [side for side in sides if side is not None]
                found.append(
                    Example(
                        kind,
                        len(ranked),
                        len(test),
                        query.query_id,
                        cut(query.prompt),
                        cut(" or ".join(query.reference)),
                        known,
                    )
                )
                break
    return found


def cut(text: str) -> str:
    """A text without its middle where it is too long."""
    if len(text) <= LONGEST:
        return text
    half = KEPT // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _kinds(
    mine: Played, theirs: Played
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    """Name, which of the queries, and how much it is one."""
    gain, saved = mine.quality - theirs.quality, theirs.cost - mine.cost
    same = (np.abs(gain) <= SAME) & (mine.quality >= RIGHT) & (saved > 0)
    return [
        ("win", gain > SAME, gain),
        ("loss", gain < -SAME, -gain),
        ("cheap save", same, saved),
    ]


def _side(tree: RouteTree, query: Query, played: Played, row: int, unit: float) -> Side | None:
    """What a policy did with a query; none where a reply is not recorded."""
    if played.taken is None:
        return None
    route = played.routes[played.taken[row]]
    calls = []
    for place, does in _places(query.query_id, route):
        try:
            node: Node = tree.nodes[place]
        except KeyError:
            return None
        calls.append(Call(place.models[-1], does, cut(node.reply), node.tokens_in, node.tokens_out))
    quality, cost = float(played.quality[row]), float(played.cost[row])
    return Side(played.name, route, quality, cost / unit, calls)


def _places(query_id: str, route: str) -> list[tuple[NodeKey, str]]:
    """Where the replies of a route stand: whoever is asked after an answer does not see it."""
    found: list[tuple[NodeKey, str]] = []
    before: tuple[str, ...] = ()
    for model, does in steps(route):
        role: Role = "analyze" if does == "analyses" else "solve"
        found.append((NodeKey(query_id, (*before, model), role), does))
        before = (*before, model) if role == "analyze" else before
    return found

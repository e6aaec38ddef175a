"""Judging a router on a tree that is filled on demand: its own routes are recorded, no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.fit import check_fit
from hierrouter.evaluation.policies.arena import Filled, Played
from hierrouter.learning.contexts import FilledContexts
from hierrouter.learning.greedy import walk
from hierrouter.learning.threads import present
from hierrouter.routes.fill import Filler, filling
from hierrouter.routes.load import load_outcomes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierrouter.config import PoolConfig
    from hierrouter.learning.router import Router
    from hierrouter.routes.outcomes import Outcomes


def fill_routes(
    tree: Path,
    router: Router,
    alphas: Sequence[float],
    max_dollars: float | None = None,
    pool: PoolConfig | None = None,
) -> tuple[Outcomes, Filled | None]:
    """Records the routes that a router takes for the test queries.

    Args:
        tree: the folder of the tree, whose direct answers are there.
        router: a router that was trained by filling.
        alphas: at which it is judged; all of them are played side by side.
        max_dollars: what the calls may cost by the pool's rates; none: anything.
        pool: says where servers are asked; none: where the tree was recorded.

    Returns:
        The direct answers and what the router got; or, where the tree is whole, its outcomes and
        none.

    Raises:
        HierRouterError: router and tree do not fit, or filling stopped.
    """
    info = router.info
    with filling(tree, info.metric, info.view, max_dollars, pool) as filler:
        if filler.is_whole():
            return load_outcomes(tree, info.metric, info.view, info.moves), None
        direct = load_outcomes(tree, info.metric, info.view, "direct")
        check_fit(direct, info, filler.pool.hops)
        played = _follow(router, filler, direct.select(~direct.train), alphas)
        return direct, Filled(played, *filler.extent())


def _follow(
    router: Router, filler: Filler, test: Outcomes, alphas: Sequence[float]
) -> dict[float, Played]:
    unit = router.info.cost_unit_usd
    contexts = FilledContexts(filler, test, router.policy.state, unit, present())
    walks = walk(router, contexts, alphas)
    # One list of routes for all alphas, so that what is taken can be compared between them.
    paths = sorted({route.path for each in walks.routes for route in each})
    number = {path: column for column, path in enumerate(paths)}
    names = tuple(":".join(test.models[step] for step in path) for path in paths)
    count, hops, moves = len(test.models), router.info.hops, router.info.moves
    calls = (hops,) if moves == "paper" else range(1, hops + 1)
    possible = sum(count**number for number in calls)
    return {
        alpha: Played(
            "router",
            walks.quality[row],
            walks.cost[row] * unit,
            names,
            np.array([number[route.path] for route in walks.routes[row]], dtype=np.int64),
            predicted=router.foretell(test, alpha),
            possible=possible,
        )
        for row, alpha in enumerate(alphas)
    }

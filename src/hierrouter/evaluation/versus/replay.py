"""Playing an older router on the tree of a newer one, whose pool may have grown since."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.evaluate import check_origin
from hierrouter.evaluation.policies.play import play
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.outcomes import context_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.learning.router import Router
    from hierrouter.routes.outcomes import Outcomes


def replay(
    router: Router, tree: Path, metric: str, query_ids: Sequence[str], alphas: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a router gets on recorded queries, by the tree's replies, scores and rates.

    Args:
        router: its models must be among the tree's, with the same weights and the same encoder.
        tree: the folder of a route tree.
        metric: what answers are held to.
        query_ids: N queries.
        alphas: A alphas.

    Returns:
        Qualities and costs in dollars, A x N each.

    Raises:
        HierRouterError: the tree does not hold all that the router may choose; says what is
            missing.
    """
    info = router.info
    check_origin(info, tree_info(tree))
    outcomes = load_outcomes(tree, metric, info.view, info.moves)
    row = {name: number for number, name in enumerate(outcomes.query_ids)}
    known = [row[name] for name in query_ids if name in row]
    if len(known) < len(query_ids):
        raise HierRouterError(
            f"the tree holds all of its routes for only {len(known)} of {len(query_ids)} queries"
        )
    seen = of_pool(outcomes.select(np.array(known, dtype=np.int64)), info.models, info.hops)
    table = seen.every_route(info.moves)
    played = [play("router", table, router.follow(seen, alpha)) for alpha in alphas]
    return (
        np.stack([each.quality for each in played]),
        np.stack([each.cost for each in played]),
    )


def of_pool(outcomes: Outcomes, models: Sequence[str], hops: int) -> Outcomes:
    """The outcomes of a smaller pool, or of fewer hops, in the order of its models.

    A call does not depend on which other models there are, nor on how many hops may follow.

    Args:
        outcomes: of a pool with these models and maybe others.
        models: M names.
        hops: L, at most that of `outcomes`.

    Raises:
        HierRouterError: the outcomes have no such model, or fewer hops.
    """
    strangers = [name for name in models if name not in outcomes.models]
    if strangers:
        raise HierRouterError(f"the tree has no replies of {', '.join(strangers)}")
    if hops > outcomes.hops:
        raise HierRouterError(
            f"the tree has routes of {outcomes.hops} calls, it makes up to {hops}"
        )
    if tuple(models) == outcomes.models and hops == outcomes.hops:
        return outcomes
    chosen = [outcomes.models.index(name) for name in models]
    at = {path: number for number, path in enumerate(outcomes.contexts)}
    paths = context_paths(len(models), hops if outcomes.analysed else 1)
    contexts = [at[tuple(chosen[step] for step in path)] for path in paths]
    analyze_cost = outcomes.analyze_cost[:, contexts][:, :, chosen]
    analyze_cost[:, [len(path) == hops - 1 for path in paths]] = 0.0
    return replace(
        outcomes,
        models=tuple(models),
        hops=hops,
        embeddings=outcomes.embeddings[:, contexts],
        analyze_cost=analyze_cost,
        solve_cost=outcomes.solve_cost[:, contexts][:, :, chosen],
        solve_quality=outcomes.solve_quality[:, contexts][:, :, chosen],
        signals=None if outcomes.signals is None else outcomes.signals[:, contexts][:, :, chosen],
        said=None if outcomes.said is None else outcomes.said[:, contexts][:, :, chosen],
    )

"""Whether a router may be judged on some outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.policies.arena import Chooser
from hierrouter.learning.router import query_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hierrouter.routes.outcomes import Moves, Outcomes


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
    def weights(self) -> Mapping[str, str]:
        """Digest of each model's weights, by the model's name."""

    @property
    def training_query_hashes(self) -> Collection[str]:
        """Short hashes of the queries it was trained on."""


class Judgeable(Chooser, Protocol):
    """A router that says what it is."""

    @property
    def info(self) -> RouterFacts:
        """What it is."""


def judged_of(outcomes: Outcomes) -> Outcomes:
    """Without the training queries of which only some models' outcomes are known.

    Routers learn from these, too; whatever compares models on the same queries cannot.

    Args:
        outcomes: all queries. An outcome is not known where quality and cost both are NaN.
    """
    blank = np.isnan(outcomes.solve_quality) & np.isnan(outcomes.solve_cost)
    known = ~blank.any(axis=(1, 2))
    if outcomes.reference_quality is not None:
        known &= ~np.isnan(outcomes.reference_quality).any(axis=1)
    kept = known | ~outcomes.train
    return outcomes if kept.all() else outcomes.select(kept)


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
        if count == 0 and outcomes.signals is None:  # imported: nothing more can be sampled
            raise HierRouterError(
                f"no {split} query has the outcomes of all models, so nothing can be compared; ask "
                "all of them a few hundred of the same queries, and import those too (a column "
                "split puts queries on a side)"
            )
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

"""Which version of a registered router is the one to serve, and when another takes its place.

A challenger replaces the champion only where it is better: on its own test queries, the reward
averaged over the alpha grid, with a one-sided bound that is stricter with every attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.statistics.crossed import Crossed, compare, difference
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.evaluation.verdict import FLOOR
from hierrouter.evaluation.versus.fair import other_split, trained_on, unlike
from hierrouter.evaluation.versus.pairs import read_tested
from hierrouter.evaluation.versus.replay import replay
from hierrouter.learning.router import Router
from hierrouter.routes.load import tree_info
from hierrouter.tracking.store import connected

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.evaluation.versus.pairs import Tested

CHALLENGER, CHAMPION = "challenger", "champion"
CHANCE = 0.05
"""Of taking a challenger for better that is not, at the first attempt."""
RESAMPLES_BEYOND = 20
"""So many resamples lie beyond the bound at least, however strict it is."""


@dataclass(frozen=True)
class Decision:
    """Whether a challenger becomes champion, and why."""

    replaces: bool
    reason: str
    """One line."""
    attempt: bool = False
    """Whether the two were compared on the test queries: it counts as an attempt then."""


def champion_of(name: str) -> str | None:
    """The version that is champion now.

    Args:
        name: the registered model.

    Returns:
        Its URI, `models:/NAME/VERSION`; none if no version is.

    Raises:
        UnreachableError: MLflow does not answer.
        HierRouterError: it refuses, or has no such model.
    """
    with connected() as client:
        version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else f"models:/{name}/{int(version)}"


def first_champion(metrics: dict[str, Any]) -> Decision:
    """The decision where no version is champion: there would be nothing to serve.

    Args:
        metrics: the content of metrics.json.
    """
    reason = "becomes champion, for there was none"
    found = metrics.get("differences", {}).get("best_single")
    if found is not None:
        mean, low, high = (_points(found["reward"][end]) for end in ("mean", "low", "high"))
        reason += (
            f"; its reward at alpha {metrics['alpha']:g} is {mean} points from best_single "
            f"({metrics['confidence']:.0%} interval {low} to {high})"
        )
    return Decision(True, reason)


def judge(
    router: Path,
    evaluation: Path,
    tree: Path | None,
    champion: Path,
    title: str = "the champion",
    attempt: int = 1,
) -> Decision:
    """Whether a challenger is better than the champion.

    With D_i = mean over the alpha grid of (challenger's reward - champion's reward) on test query
    i, both in the challenger's cost unit, it replaces the champion if the lower bound of mean D at
    confidence 1 - 0.05 / k is above 0, k being the number of this attempt.

    Args:
        router: the folder of the challenger.
        evaluation: the folder of its evaluation.
        tree: the route tree of this evaluation; none: they cannot be compared.
        champion: the folder of the champion's router.
        title: what to call the champion.
        attempt: k, how many challengers this champion will have met, with this one.

    Returns:
        The decision. Where they cannot be compared, the champion stays, and the reason says why.
    """
    stays = f"{title} stays champion"
    try:
        tested = read_tested("the challenger", evaluation, router)
        standing = Router.load(champion)
        if reason := _apart(tested, standing):
            raise HierRouterError(reason)
        if tree is None:
            raise HierRouterError("no tree was named on which the champion can be played (--tree)")
        _check_tree(tested, tree)
        metric = standing.info.metric
        quality, cost = replay(standing, tree, metric, tested.query_ids, tested.alphas)
    except HierRouterError as error:
        return Decision(False, f"{stays}, the two were not compared: {error}")
    theirs, mine = (
        _reward(each, spent, tested)
        for each, spent in ((quality, cost), (tested.quality[:, 0], tested.cost[:, 0]))
    )
    return _decide(difference(mine, theirs), tested, title, stays, attempt)


def _apart(tested: Tested, champion: Router) -> str | None:
    """What keeps challenger and champion from being compared, if something does."""
    info = champion.info
    reason = unlike(tested.kind, (info.metric, info.data_seed), (tested.name, "the champion"))
    if reason is None and tested.info is not None:
        reason = other_split(tested.info.config["data"], info.config["data"])
    seen = trained_on(tested.query_ids, info.training_query_hashes)
    if reason is None and seen:
        reason = (
            f"the champion was trained on {len(seen)} of the challenger's "
            f"{len(tested.query_ids)} test queries"
        )
    if reason is None and len(tested.query_ids) < FLOOR:
        reason = f"{len(tested.query_ids)} test queries are too few to tell; {FLOOR} are the least"
    return reason


def _check_tree(tested: Tested, tree: Path) -> None:
    """Makes sure that the tree holds what the challenger was evaluated on, scored the same way."""
    judged, now = tested.metrics.get("tree", {}), tree_info(tree)
    if any(judged.get(key) != now.get(key) for key in ("query_digest", "scorer_version")):
        raise HierRouterError(
            f"{tree} holds other queries or scores than the challenger was evaluated on; evaluate "
            "it anew"
        )


def _reward(quality: Any, cost: Any, tested: Tested) -> Any:
    """N rewards averaged over the alpha grid, of A x N qualities and dollars."""
    alphas = np.array(tested.alphas)[:, None]
    return (quality - alphas * cost / tested.unit).mean(axis=0)


def _decide(column: Any, tested: Tested, title: str, stays: str, attempt: int) -> Decision:
    """The decision by 1 x N x 1 differences in reward."""
    asked = tested.metrics.get("evaluation", {})
    resamples = max(
        int(tested.metrics["resamples"]), int(np.ceil(RESAMPLES_BEYOND * attempt / CHANCE))
    )
    bootstrap = Bootstrap(tested.tasks, resamples, int(asked.get("seed", 42)))
    confidence = 1 - CHANCE / attempt
    (found,) = compare(Crossed(bootstrap, 1).overall(column), confidence)
    grid = ", ".join(f"{alpha:g}" for alpha in tested.alphas)
    bound = (
        f"one-sided {100 * confidence:.4g}% bound {_points(found.at_least)}; "
        f"{column.shape[1]} test queries, mean over alpha {grid}; attempt {attempt} against {title}"
    )
    if not np.abs(column).max() > 0:
        return Decision(
            False, f"{stays}: the challenger gets exactly its reward on every query", True
        )
    told = f"its reward is {_points(found.mean)} points from {title}'s ({bound})"
    if found.at_least > 0:
        return Decision(True, f"replaces {title} as champion: {told}", True)
    return Decision(False, f"{stays}: the challenger is not shown to be better; {told}", True)


def _points(reward: float) -> str:
    """Hundredths of reward, with their sign; no minus before a zero."""
    shown = f"{100 * reward:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")

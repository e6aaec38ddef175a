"""Which version of a registered router is the one to serve, and when another takes its place.

A challenger replaces the champion only where it is better: both played on one tree, on the
challenger's test queries, the reward averaged over a fixed grid of alpha, with a one-sided bound
that is stricter with every attempt and knows of losses too rare to have been seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.config import ALPHA_GRID
from hierrouter.errors import HierRouterError
from hierrouter.evaluation.statistics.bounds import least_mean
from hierrouter.evaluation.verdict import FLOOR
from hierrouter.evaluation.versus.fair import other_split, trained_on, unlike
from hierrouter.evaluation.versus.pairs import read_tested
from hierrouter.evaluation.versus.replay import replay
from hierrouter.evaluation.versus.trees import changed_tree
from hierrouter.files import digest_of
from hierrouter.learning.router import Router
from hierrouter.routes.load import tree_info
from hierrouter.tracking.store import connected

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.evaluation.versus.pairs import Tested

CHALLENGER, CHAMPION = "challenger", "champion"
CHANCE = 0.05
"""Of ever taking a challenger for better than a champion that is not, in all attempts together."""
SAME = 1e-12
"""Rewards that differ by less are equal: sums in another order differ by as much."""
CHANGED = (
    "; the tree is no longer what the challenger was evaluated on (replies, scores or prices), "
    "both were played on it as it is now"
)


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

    Both are played on the tree as it is now. With D_i = mean over `ALPHA_GRID` of (challenger's
    reward - champion's reward) on test query i, both in the challenger's cost unit, it replaces the
    champion if the lower bound of mean D (`bounds.least_mean`) at confidence 1 - 0.05 / (k (k + 1))
    is above 0, k being the number of this attempt. These chances of error add up to 0.05.

    Args:
        router: the folder of the challenger.
        evaluation: the folder of its evaluation, which says what it was tested on.
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
        mine, theirs = Router.load(router), Router.load(champion)
        if reason := _apart(tested, mine, theirs):
            raise HierRouterError(reason)
        if tree is None:
            raise HierRouterError("no tree was named on which the two can be played (--tree)")
        changed = _check_tree(tested, tree)
        gains = _play("challenger", mine, tree, tested) - _play("champion", theirs, tree, tested)
    except HierRouterError as error:
        return Decision(False, f"{stays}, the two were not compared: {error}")
    decision = _decide(gains[0], gains[1] / tested.unit, title, stays, attempt)
    return replace(decision, reason=decision.reason + CHANGED) if changed else decision


def _play(name: str, router: Router, tree: Path, tested: Tested) -> NDArray[np.float64]:
    """Qualities and dollars over the alpha grid, 2 x A x N."""
    try:
        return np.stack(
            replay(router, tree, tested.metrics["metric"], tested.query_ids, ALPHA_GRID)
        )
    except HierRouterError as error:
        raise HierRouterError(f"the {name} cannot be played on {tree}: {error}") from error


def _apart(tested: Tested, challenger: Router, champion: Router) -> str | None:
    """What keeps challenger and champion from being compared, if something does."""
    info = champion.info
    reason = unlike(tested.kind, (info.metric, info.data_seed), (tested.name, "the champion"))
    if reason is None and tested.info is None:
        reason = "the challenger's evaluation is that of another router"
    if reason is None:
        reason = other_split(challenger.info.config["data"], info.config["data"])
    for name, router in (("champion", champion), ("challenger", challenger)):
        seen = trained_on(tested.query_ids, router.info.training_query_hashes)
        if reason is None and seen:
            reason = (
                f"the {name} was trained on {len(seen)} of the challenger's "
                f"{len(tested.query_ids)} test queries"
            )
    if reason is None and len(tested.query_ids) < FLOOR:
        reason = f"{len(tested.query_ids)} test queries are too few to tell; {FLOOR} are the least"
    return reason


def _check_tree(tested: Tested, tree: Path) -> bool:
    """Makes sure that the tree holds the queries of the evaluation; whether else it has changed."""
    judged, now = tested.metrics.get("tree", {}), tree_info(tree)
    if any(judged.get(key) != now.get(key) for key in ("query_digest", "scorer_version")):
        raise HierRouterError(
            f"{tree} holds other queries or scores than the challenger was evaluated on; evaluate "
            "it anew"
        )
    return changed_tree(judged, {**now, "pool_digest": digest_of(now["pool"])})


def _decide(
    quality: NDArray[np.float64],
    cost: NDArray[np.float64],
    title: str,
    stays: str,
    attempt: int,
) -> Decision:
    """The decision by the differences in quality and relative cost, A x N each."""
    dearer = (np.array(ALPHA_GRID)[:, None] * cost).mean(axis=0)
    gained = quality.mean(axis=0) - dearer
    if not np.abs(gained).max() > SAME:
        return Decision(
            False, f"{stays}: the challenger gets exactly its reward on every query", True
        )
    chance = CHANCE / (attempt * (attempt + 1))
    # The worst that a query could give: right turns wrong, and as much dearer as any that was seen.
    bound = least_mean(gained, -1.0 - max(float(dearer.max()), 0.0), 1 - chance)
    digits = max(0, 1 - int(np.floor(np.log10(100 * chance))))
    told = (
        f"its reward is {_points(gained.mean())} points from {title}'s (one-sided "
        f"{100 * (1 - chance):.{digits}f}% bound {_points(bound)}; {len(gained)} test queries, "
        f"mean over alpha {', '.join(f'{alpha:g}' for alpha in ALPHA_GRID)}; attempt {attempt} "
        f"against {title})"
    )
    if bound > 0:
        return Decision(True, f"replaces {title} as champion: {told}", True)
    return Decision(False, f"{stays}: the challenger is not shown to be better; {told}", True)


def _points(reward: float) -> str:
    """Hundredths of reward, with their sign; no minus before a zero."""
    shown = f"{100 * reward:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")

"""What a reader of the results should know before believing them, in plain sentences."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.conduct import level_of, too_coarse
from hierrouter.evaluation.policies.play import NEED_ALL_ROUTES
from hierrouter.evaluation.statistics.crossed import CROSS_FITTED
from hierrouter.evaluation.verdict import FLOOR, handful
from hierrouter.learning.router import query_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hierrouter.config import EvaluationConfig
    from hierrouter.evaluation.fit import RouterFacts
    from hierrouter.evaluation.policies.arena import Arena, Played
    from hierrouter.evaluation.summary import Plays
    from hierrouter.routes.outcomes import Outcomes

FEW = 100
"""Test queries of a task below which a warning is due."""
DISAGREEMENT = 0.3
"""Share of queries on which two policies are taken to differ by right against wrong."""


def visible_points(queries: int, confidence: float, widened: float = 1.0) -> float:
    """Half the width of the interval of a difference in accuracy, in points (hundredths).

    For two policies of about the same accuracy of which one is right and the other wrong on a
    share `DISAGREEMENT` of the queries: z * sqrt(share / queries), so many times `widened`.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return float(100 * widened * z * np.sqrt(DISAGREEMENT / queries))


def cautions_about(
    arena: Arena,
    alpha_range: tuple[float, float],
    played: Plays,
    confidence: float,
) -> list[str]:
    """Warnings about results on the test queries, most important first.

    Args:
        arena: what was played on.
        alpha_range: the least and greatest alpha that the router met in training.
        played: by alpha, then by policy.
        confidence: coverage of the intervals.
    """
    found = []
    if arena.filled is not None:
        found.append(
            f"Left out: {', '.join(NEED_ALL_ROUTES)}. They need every route of every query; this "
            f"tree was filled with what the router visited and holds {arena.filled.nodes:,} of "
            f"{arena.filled.whole:,} nodes."
        )
    found += _few(arena.test.tasks, "test queries", confidence)
    unseen = [str(name) for name in np.setdiff1d(arena.test.tasks, arena.train.tasks)]
    if unseen:
        found.append(
            f"No training query of {_some(unseen, 'tasks')}: there the per-task baselines fall "
            "back to what is best over all tasks."
        )
    unjudged = [str(name) for name in np.setdiff1d(arena.train.tasks, arena.test.tasks)]
    if unjudged:
        found.append(
            f"No test query of {_some(unjudged, 'tasks')}: the router was trained on it, but "
            "nothing here says how it does there."
        )
    own = {alpha: policies["router"][:1] for alpha, policies in played.items()}
    return [*found, *_of_alpha(alpha_range, own, "the router", "test query")]


def cautions_crossed(
    outcomes: Outcomes,
    alpha_range: tuple[float, float],
    played: Plays,
    confidence: float,
) -> list[str]:
    """Warnings about cross-fitted results, most important first.

    Args:
        outcomes: the queries that were judged, all of them.
        alpha_range: the least and greatest alpha that the router met in training.
        played: by alpha, then by policy.
        confidence: coverage of the intervals.
    """
    found = _few(outcomes.tasks, "queries", confidence, CROSS_FITTED)
    alone = [
        str(name)
        for name in np.unique(outcomes.tasks)
        if len(np.unique(outcomes.folds[outcomes.tasks == name])) == 1
    ]
    if alone:
        found.append(
            f"All queries of {_some(alone, 'tasks')} are in one fold: they are judged by what was "
            "made without the task, and the per-task baselines fall back to what is best over all."
        )
    routers = {alpha: policies["router"] for alpha, policies in played.items()}
    return [*found, *_of_alpha(alpha_range, routers, "each router", "query")]


def cautions_of_learning(
    facts: RouterFacts,
    learned: Outcomes,
    judged: Outcomes,
    unplayed: Sequence[str],
    fills: bool = False,
) -> list[str]:
    """Warnings about what was trained for an evaluation, whatever it is judged on.

    Args:
        facts: the router's description.
        learned: what routers learn from here.
        judged: those of its queries that all models answered.
        unplayed: recipes that were asked for and differ from no other here.
        fills: whether its recipe, which was trained again, fills a tree.
    """
    found = []
    hashes = {query_hash(name) for name in np.array(learned.query_ids)[learned.train].tolist()}
    known = set(facts.training_query_hashes)
    if hashes != known:
        found.append(
            f"The router was trained on {len(known):,} queries, of which {len(known & hashes):,} "
            f"are among the {len(hashes):,} training queries that the tree holds now. Routers that "
            "were trained for this evaluation (other seeds, folds and recipes) and the baselines "
            "learned from these, so they are not of one recipe with it; train the router anew."
        )
    if fills:
        found.append(
            "The router was trained by filling the tree. Those of other seeds and folds, which "
            "were trained for this evaluation, learned from all of it, so they are not of one "
            "recipe with it; train the router anew with training.fill=false."
        )
    train, whole = int(learned.train.sum()), int(judged.train.sum())
    if whole < train:
        found.append(
            f"{train - whole:,} of {train:,} training queries have the outcomes of some models "
            f"only. Routers learn from all, the baselines choose on the other {whole:,}."
        )
    if unplayed:
        found.append(
            f"Left out: {', '.join(unplayed)}. Routes of one call are all there is here, so it is "
            "the router's own recipe."
        )
    return found


def cautions_of_resamples(comparisons: int, config: EvaluationConfig) -> list[str]:
    """A warning where there are too few resamples for so many comparisons.

    Args:
        comparisons: that Holm's correction is over.
        config: resamples and confidence.
    """
    if not too_coarse(config.bootstrap, comparisons, config.confidence):
        return []
    return [
        f"Nothing can be called better or worse: with {config.bootstrap:,} resamples no p of "
        f"{comparisons} comparisons gets under {level_of(config.confidence):g}, whatever was "
        "measured. Take evaluation.bootstrap=2000, or more."
    ]


def cautions_of_proof(family: Mapping[str, Mapping[str, Any]], queries: int) -> list[str]:
    """Warnings about differences that look certain and would not outlive one more extreme query.

    Most hang on a handful of queries; the others are only just certain, or a few queries are far
    dearer than the rest. None where there are so few queries that there is no verdict at all.

    Args:
        family: the comparisons; see `conduct.family`.
        queries: N, behind them.
    """
    if queries < FLOOR:
        return []
    return [
        f"router and {name} {_doubt(about, queries)}, so that it is called neither better nor "
        "worse; record more queries."
        for name, about in family.items()
        if about["unproven"]
    ]


def _doubt(about: Mapping[str, Any], queries: int) -> str:
    """Why a difference is no proof."""
    outright = f"{'lost' if about['reward']['mean'] > 0 else 'won'} outright"
    few = handful(about, queries)
    if few is None:
        return (
            f"differ in reward, but not beyond doubt. One more query that is {outright}, with the "
            "largest difference in cost seen, could undo the difference"
        )
    return (
        f"give different quality on {few} of {queries:,} queries: no proof. A rare query that is "
        f"{outright} could undo the difference in reward"
    )


def caution_of_seeds(seeds: int, trains: bool) -> list[str]:
    """A warning where there is no telling what training again would give.

    Args:
        seeds: S, the training seeds that were judged.
        trains: whether more could have been.
    """
    if seeds > 1:
        return []
    remedy = " Take evaluation.seeds=5." if trains else ""
    return [f"One training seed: the intervals say nothing about training again.{remedy}"]


def _few(tasks: NDArray[np.str_], what: str, confidence: float, widened: float = 1.0) -> list[str]:
    """How wide intervals are where a task has few queries."""
    names, counts = np.unique(tasks, return_counts=True)
    few = [f"{name} {count}" for name, count in zip(names, counts, strict=True) if count < FEW]
    if not few:
        return []
    least = int(counts.min())
    of_all, of_least = (visible_points(n, confidence, widened) for n in (len(tasks), least))
    return [
        f"Fewer than {FEW} {what} in {_some(few, 'tasks')}. The intervals are wide: "
        f"differences under about {of_all:.0f} points over all {len(tasks)} queries, or under "
        f"about {of_least:.0f} points in a task of {least}, cannot be seen (two policies that "
        f"disagree on {DISAGREEMENT:.0%} of the queries)."
    ]


def _of_alpha(
    alpha_range: tuple[float, float], played: Mapping[float, Sequence[Played]], who: str, what: str
) -> list[str]:
    """Whether alpha is outside of what was trained, or changes nothing with any training seed."""
    found = []
    low, high = alpha_range
    outside = [f"{alpha:g}" for alpha in played if not low - 1e-9 <= alpha <= high + 1e-9]
    if outside:
        met = f"alpha {low:g} alone" if low == high else f"alpha {low:g} to {high:g}"
        found.append(
            f"The router was trained for {met}; alpha {', '.join(outside)} is outside of that."
        )
    taken = [np.stack([np.asarray(each.taken) for each in seeds]) for seeds in played.values()]
    if len(taken) > 1 and all(np.array_equal(taken[0], other) for other in taken[1:]):
        found.append(
            f"alpha changes nothing: at every alpha of the grid {who} takes the same route for "
            f"each {what}."
        )
    return found


def _some(names: list[str], many: str, shown: int = 8) -> str:
    """A list of names, cut where it gets long."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[:shown])} and {len(names) - shown} more {many}"

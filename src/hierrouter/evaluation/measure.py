"""What policies got on queries that were not trained on, as the numbers of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.cautions import (
    caution_of_seeds,
    cautions_about,
    cautions_crossed,
    cautions_of_learning,
    cautions_of_proof,
    cautions_of_resamples,
)
from hierrouter.evaluation.conduct import calibrations, conduct, family, over_grid
from hierrouter.evaluation.fit import check_fit, judged_of
from hierrouter.evaluation.forewarn import warnings_of
from hierrouter.evaluation.headroom import gained
from hierrouter.evaluation.hopping import Judged, hopping
from hierrouter.evaluation.new_tasks import new_tasks
from hierrouter.evaluation.policies.arena import Arena, Contender
from hierrouter.evaluation.policies.play import NEED_ALL_ROUTES, play_all
from hierrouter.evaluation.resplit import cross_fitted, left_out_tasks
from hierrouter.evaluation.statistics.crossed import CROSS_FITTED
from hierrouter.evaluation.summary import SAVING, Results, curves
from hierrouter.evaluation.tradeoff.curves import curves_of
from hierrouter.evaluation.tradeoff.marks import marks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.config import EvaluationConfig
    from hierrouter.evaluation.fit import Judgeable
    from hierrouter.evaluation.policies.arena import Filled
    from hierrouter.evaluation.policies.contenders import Workshop
    from hierrouter.evaluation.summary import Plays
    from hierrouter.evaluation.tradeoff.marks import Marks
    from hierrouter.routes.outcomes import Outcomes

FORMAT_VERSION = 3
"""Of metrics.json."""


@dataclass(frozen=True)
class Measured:
    """The outcome of an evaluation, before anything is written."""

    metrics: dict[str, Any]
    """The content of metrics.json."""
    test: Outcomes
    """The test queries."""
    played: Plays
    """By alpha, then by policy: what each got for each test query, with each training seed."""


def _trains_anew(config: EvaluationConfig) -> bool:
    """Whether the router's own recipe is trained again, for other seeds or queries."""
    return config.seeds > 1 or config.cross_fit or config.leave_one_task_out


def measure(
    outcomes: Outcomes,
    router: Judgeable,
    config: EvaluationConfig,
    filled: Filled | None = None,
    workshop: Workshop | None = None,
) -> Measured:
    """Plays every policy on the test queries and averages what they got.

    Args:
        outcomes: all recorded queries, training and test, as routers learn from them: what is
            judged is `judged_of` these.
        router: the router to judge.
        config: alphas, resamples, confidence and seed.
        filled: the router's own routes at these alphas, where the tree holds no others: `outcomes`
            are then the direct answers.
        workshop: trains routers to compare with; none: the router is judged by itself.

    Returns:
        The metrics with paired intervals, and every policy's result for each test query.

    Raises:
        HierRouterError: router and outcomes do not fit (see `check_fit`).
    """
    facts, learned = router.info, outcomes
    outcomes = judged_of(learned)
    check_fit(outcomes, facts, outcomes.hops if filled is None else facts.hops)
    alone = Contender("router", (router,), facts.moves, facts.hops)
    train, test = outcomes.select(outcomes.train), outcomes.select(~outcomes.train)
    trains = workshop is not None and filled is None
    unplayed = workshop.without(outcomes.hops) if workshop and trains else ()
    arena = Arena(
        train=train,
        test=test,
        moves=facts.moves,
        cost_unit_usd=facts.cost_unit_usd,
        contenders=workshop.on_split(learned) if workshop and trains else (alone,),
        seed=config.seed,
        filled=filled,
    )
    alphas = sorted(set(config.alphas))
    played = sorted({*alphas, SAVING}) if filled is None else alphas
    results = results_of(
        {alpha: play_all(arena, alpha) for alpha in played}, test.tasks, facts.cost_unit_usd, config
    )
    names, counts = np.unique(test.tasks, return_counts=True)
    metrics = {
        "format_version": FORMAT_VERSION,
        "metric": outcomes.metric,
        "alpha": config.alpha,
        "n_test": len(test),
        "n_train": len(train),
        "n_test_by_task": {
            str(name): int(count) for name, count in zip(names, counts, strict=True)
        },
        "models": list(outcomes.models),
        "hops": facts.hops,
        "moves": facts.moves,
        "cost_unit_usd": facts.cost_unit_usd,
        "confidence": config.confidence,
        "resamples": config.bootstrap,
        "left_out": [*unplayed] if filled is None else list(NEED_ALL_ROUTES),
        **summarised(
            results, outcomes.models, config.alpha, [marks_of(arena, np.arange(len(test)))]
        ),
    }
    of_both = [
        *(
            cautions_of_learning(
                facts, learned, outcomes, unplayed, workshop.fills and _trains_anew(config)
            )
            if workshop and trains
            else ()
        ),
        *caution_of_seeds(results.seeds, trains),
        *cautions_of_resamples(len(metrics["family"]), config),
        # Of the training queries, as before training; a tree that is filled holds too little.
        *(warnings_of(learned, facts, config) if filled is None else ()),
    ]
    told = cautions_about(arena, facts.alpha_range, results.plays, config.confidence)
    metrics["warnings"] = [*told, *cautions_of_proof(metrics["family"], len(test)), *of_both]
    judged = Judged(results.plays[config.alpha]["router"], np.flatnonzero(~outcomes.train))
    if workshop and trains and config.cross_fit:
        fitted, marks = cross_fitted(outcomes, arena, workshop, played, learned)
        crossed = replace(
            results_of(fitted, outcomes.tasks, facts.cost_unit_usd, config), widened=CROSS_FITTED
        )
        told = cautions_crossed(outcomes, facts.alpha_range, crossed.plays, config.confidence)
        numbers = summarised(crossed, outcomes.models, config.alpha, marks)
        unproven = cautions_of_proof(numbers["family"], len(outcomes))
        metrics["cross_fitted"] = {**numbers, "warnings": [*told, *unproven, *of_both]}
        judged = Judged(fitted[config.alpha]["router"], np.arange(len(outcomes)))
    if filled is None:
        unit = facts.cost_unit_usd
        hops = hopping(outcomes, facts.moves, facts.weights, unit, judged, config)
        if hops is not None:
            metrics["hopping"] = hops
    if workshop and trains and config.leave_one_task_out:

        def counted(plays: Plays, tasks: NDArray[np.str_]) -> Results:
            return results_of(plays, tasks, facts.cost_unit_usd, config)

        without = left_out_tasks(learned, arena, workshop, config.alpha)
        left_out = {}
        for task, plays in without.items():
            named = test.tasks[test.tasks == task]
            got = counted({config.alpha: plays}, named)
            # A single query gets the whole range, as in the other tables by task.
            left_out[task] = (
                got.policies(config.alpha)
                if len(named) > 1
                else {name: of[task] for name, of in got.by_task(config.alpha).items()}
            )
        metrics["left_out_tasks"] = left_out
        if without:
            metrics["new_tasks"] = new_tasks(without, test.tasks, config.alpha, counted)
    return Measured(metrics, test, results.plays)


def results_of(plays: Plays, tasks: Any, cost_unit_usd: float, config: EvaluationConfig) -> Results:
    """What policies got, with the resamples that a config asks for."""
    saving = plays.get(SAVING, {})
    asked = {SAVING} & set(config.alphas)
    among = {alpha: each for alpha, each in plays.items() if alpha != SAVING or asked}
    return Results(
        among, tasks, cost_unit_usd, config.bootstrap, config.confidence, config.seed, saving
    )


def summarised(
    results: Results, models: Sequence[str], alpha: float, marks: Sequence[Marks]
) -> dict[str, Any]:
    """Everything that results say, of whatever split.

    Args:
        results: of all policies at every alpha.
        models: names of the pool.
        alpha: the headline.
        marks: what training queries say of fixed routes.
    """
    policies, by_alpha = results.policies(alpha), results.by_alpha()
    for name, tasks in results.by_task(alpha).items():
        policies[name]["tasks"] = tasks
    return {
        "n": len(results.tasks),
        "n_by_task": {task: len(rows) for task, rows in results.crossed.bootstrap.rows.items()},
        "seeds": results.seeds,
        "policies": policies,
        "differences": results.differences(alpha),
        "family": family(results, alpha),
        "over_grid": over_grid(results),
        "by_alpha": by_alpha,
        "curves": curves(by_alpha),
        "tradeoff": curves_of(results, models, marks),
        "headroom": gained(results, alpha),
        "conduct": conduct(results),
        "calibration": calibrations(results, alpha),
    }

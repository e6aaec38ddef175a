"""Is the router at least as good as simple rules on outcomes that came from elsewhere?

    python benchmarks/imported_worlds.py [--tree studies/small_pool] [--seeds 3]

Eighteen kinds of data, each drawn anew with every seed: 5, 8 or 11 models, 300 or 600 of the
study's questions, and three ways in which models differ. `tasks`: each has its own skill for each
task. `words`: what it can do is linear in the question's embedding. `kinds`: it depends on which of
thirty questions is nearest. Embeddings are the study's; outcomes are coins with these odds, costs
differ by model and question. Seven tenths are trained on.

Printed at alpha 0 and .1: the router's reward less that of `best_single`, of `knn` and `ridge`
(tuned as in an evaluation), and of `best_single_per_task`, which is told the task and so is no bar
for what is not; and the area under its curve (AIQ) less that of the single models and of `knn`.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from _report import print_header

from hierrouter.config import ALPHA_GRID, TrainingConfig
from hierrouter.evaluation.policies.arena import Arena, Contender
from hierrouter.evaluation.policies.play import play_all
from hierrouter.evaluation.tradeoff.hull import aiq, hull
from hierrouter.learning.train import fit
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.outcomes import Outcomes

RULES = ("best_single", "knn", "ridge", "best_single_per_task")
KINDS = ("tasks", "words", "kinds")
HEADLINES = (0.0, 0.1)


def world(study: Outcomes, kind: str, models: int, count: int, seed: int) -> Outcomes:
    """Outcomes of one call for `count` of the study's questions."""
    random = np.random.default_rng([seed, models, count, KINDS.index(kind)])
    chosen = random.permutation(len(study))[:count]
    vectors, tasks = study.embeddings[chosen, 0], study.tasks[chosen]
    names, task = np.unique(tasks, return_inverse=True)
    skill = random.normal(0, 0.7, models)
    by_task = random.normal(0, 1.0, (len(names), models))[task]
    if kind == "tasks":
        odds = skill + by_task
    elif kind == "words":
        spread = (vectors - vectors.mean(axis=0)) / vectors.std()
        told = spread @ random.normal(size=(vectors.shape[1], models))
        odds = skill + 0.5 * by_task + 1.2 * told / told.std()
    else:
        nearest = (vectors @ vectors[random.permutation(count)[:30]].T).argmax(axis=1)
        odds = skill + random.normal(0, 1.3, (30, models))[nearest]
    ease = random.normal(0, 1, (count, 1))
    right = random.random((count, models)) < 1 / (1 + np.exp(-(odds + ease)))
    rate = np.exp(random.normal(0, 1, models))
    cost = rate * np.exp(random.normal(0, 0.3, (count, models))) * (1 + task[:, None] / 10)
    return Outcomes(
        query_ids=tuple(f"q{number}" for number in range(count)),
        tasks=tasks,
        train=np.arange(count) % 10 < 7,
        folds=np.arange(count) % 5,
        models=tuple(f"m{number}" for number in range(models)),
        hops=1,
        metric="accuracy",
        embeddings=vectors[:, None],
        analyze_cost=np.zeros((count, 1, models)),
        solve_cost=cost[:, None],
        solve_quality=right[:, None].astype(np.float64),
    )


def described(study: dict[str, Any], models: int) -> dict[str, Any]:
    """What a tree of so many models would say of itself."""
    spec = study["pool"]["models"][0]
    names = [f"m{number}" for number in range(models)]
    pool = {**study["pool"], "hops": 1, "models": [{**spec, "name": name} for name in names]}
    return {**study, "pool": pool, "weights": dict.fromkeys(names, "w")}


def judged(outcomes: Outcomes, info: dict[str, Any]) -> dict[str, float]:
    """The differences of one world."""
    router, _ = fit(TrainingConfig(moves="direct", learner="regression"), outcomes, info)
    train, test = outcomes.select(outcomes.train), outcomes.select(~outcomes.train)
    unit = router.info.cost_unit_usd
    arena = Arena(train, test, "direct", unit, (Contender("router", (router,), "direct", 1),))
    plays = {alpha: play_all(arena, alpha) for alpha in ALPHA_GRID}
    told = {}
    for alpha in HEADLINES:
        got = {
            name: float((played[0].quality - alpha * played[0].cost / unit).mean())
            for name, played in plays[alpha].items()
        }
        for name in RULES:
            told[f"{name}, alpha {alpha:g}"] = got["router"] - got[name]
    singles = test.direct()
    costs = singles.cost.mean(axis=0) / unit
    low, high = float(costs.min()), float(costs.max())
    areas = {"single models": aiq(hull(costs, singles.quality.mean(axis=0)), low, high)}
    for name in ("router", "knn"):
        points = [plays[alpha][name][0] for alpha in ALPHA_GRID]
        cost = np.array([each.cost.mean() / unit for each in points])
        areas[name] = aiq(hull(cost, np.array([each.quality.mean() for each in points])), low, high)
    told["AIQ of the single models"] = areas["router"] - areas["single models"]
    told["AIQ of knn"] = areas["router"] - areas["knn"]
    return told


def main() -> None:
    """Draws, trains, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=Path("studies/small_pool"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print_header(f"worlds of imported outcomes, embeddings like those of {options.tree}")
    study, info = (
        load_outcomes(options.tree, "accuracy", "paper", "direct"),
        tree_info(options.tree),
    )
    rows: list[dict[str, float]] = []
    columns = [f"{name}, alpha .1" for name in RULES]
    print("router less each at alpha .1, in points" + "".join(f"{name:>22}" for name in RULES))
    for kind, models, count in itertools.product(KINDS, (5, 8, 11), (300, 600)):
        found = [
            judged(world(study, kind, models, count, seed), described(info, models))
            for seed in range(options.seeds)
        ]
        mean = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
        rows.append(mean)
        values = "".join(f"{100 * mean[name.replace('.1', '0.1')]:>+22.1f}" for name in columns)
        print(f"{kind:<8}{models:>3} models {count:>6,} questions   {values}", flush=True)
    print("\nover all, in points: mean, least, greatest")
    for name in rows[0]:
        values = 100 * np.array([row[name] for row in rows])
        least, most = values.min(), values.max()
        print(f"  router less {name:<34}{values.mean():>+7.2f}{least:>+7.2f}{most:>+7.2f}")


if __name__ == "__main__":
    main()

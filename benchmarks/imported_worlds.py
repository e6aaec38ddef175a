"""Is the router at least as good as simple rules on outcomes that came from elsewhere?

    python benchmarks/imported_worlds.py [--tree studies/small_pool] [--seeds 3] [--only NAME …]

Each world takes the study's questions with their embeddings and draws outcomes: how well each
model does, how hard questions are (part of it in the embedding and the task, part of it not), and
what sets models apart: `tasks` (each has its own skill for each task), `words` (it is linear in the
embedding), `kinds` (it depends on which of thirty questions is nearest), `few` (two hidden traits
of questions that models are good at in different measure), or `none` but their skill. Worlds also
differ in their number of models, questions and tasks, in how dear good models are, and in how far
costs scatter. Where a world has more questions than the study, they lie between two of the study's
questions of one task. Seven tenths are trained on, with outcomes that are coins; judged is on the
others by the odds themselves, so that luck of the judged questions has no part in it.

Printed for each world, at alpha 0 and .1, in points of reward: the router less the best of
`best_single_per_task`, `knn` and `ridge` (tuned as in an evaluation), which is to be at least -.5
in the mean over worlds and -1 in each; the same without `best_single_per_task`, which is told the
task and so knows what no router can; the router less `best_single`; and the area under
its curve (AIQ, over the alpha grid and alpha 10) less that of the single models and
of `knn`. Behind the reward differences stand the half widths of their 95% intervals (bootstrap over
the judged questions, of the mean over the draws). Below: of the draws in which choosing by the
known task is surely above `best_single`, in how many the router is, too. Exit code 1 if the bar is
missed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import print_header

from hierrouter.config import ALPHA_GRID, TrainingConfig
from hierrouter.evaluation.policies.arena import Arena, Contender
from hierrouter.evaluation.policies.play import play_all
from hierrouter.evaluation.statistics.crossed import Crossed, compare, difference
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.evaluation.summary import SAVING
from hierrouter.evaluation.tradeoff.hull import hull, weights
from hierrouter.learning.train import fit
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.outcomes import Outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHAS = (0.0, 0.1)
TOLD = "best_single_per_task"
RULES = ("knn", "ridge")
SINGLE = "best_single"
CONFIDENCE, RESAMPLES = 0.95, 1000
MEAN, EACH = -0.5, -1.0
"""Points of reward that the router may be below the best rule: in the mean, and in each world."""


@dataclass(frozen=True)
class World:
    """What outcomes are drawn from."""

    apart: str
    """What sets models apart."""
    models: int = 8
    questions: int = 600
    tasks: int = 0
    """How many tasks the questions are grouped into by likeness; 0: their own six."""
    hard: float = 1.5
    """Deviation of the part of a question's difficulty that is in its embedding or its task."""
    strength: float = 1.0
    """Of what sets models apart."""
    scatter: float = 0.3
    """Deviation of the logarithm of one model's costs."""
    good_is_dear: bool = False
    graded: bool = False
    """Whether scores are numbers between 0 and 1, and not right or wrong."""


WORLDS = {
    "tasks": World("tasks"),
    "tasks, equally hard": World("tasks", models=5, hard=0.0),
    "tasks, 24 of them": World("tasks", models=11, tasks=24),
    "words": World("words"),
    "words, small": World("words", models=5, questions=300),
    "words, many models": World("words", models=11, questions=150),
    "words, one task": World("words", tasks=1, strength=0.5),
    "words, graded": World("words", graded=True, good_is_dear=True),
    "kinds": World("kinds"),
    "kinds, one task": World("kinds", tasks=1),
    "few": World("few"),
    "few, small": World("few", models=11, questions=300, good_is_dear=True),
    "few, 40 tasks": World("few", tasks=40, strength=0.6),
    "few, wild costs": World("few", scatter=1.2, good_is_dear=True),
    "none": World("none"),
    "none, 40 tasks": World("none", models=11, tasks=40),
    "tasks, thousands": World("tasks", questions=3000),
    "few, thousands": World("few", models=11, questions=3000),
}


def drawn(study: Outcomes, world: World, seed: int) -> tuple[Outcomes, Outcomes]:
    """Outcomes of one call: as coins, and the odds that they were thrown with."""
    random = np.random.default_rng([seed, world.models, world.questions])
    count, models = world.questions, world.models
    chosen = random.permutation(len(study))[:count]
    if count > len(study):
        chosen = random.integers(len(study), size=count)
    vectors = study.embeddings[chosen, 0]
    if count > len(study):
        vectors = _between(study, chosen, random)
    tasks = _tasks(study.tasks[chosen], vectors, world.tasks, seed)
    names, task = np.unique(tasks, return_inverse=True)
    spread = (vectors - vectors.mean(axis=0)) / vectors.std()

    def linear(columns: int) -> NDArray[np.float64]:
        told = spread @ random.normal(size=(vectors.shape[1], columns))
        return np.asarray(told / told.std())

    def of_task(columns: int) -> NDArray[np.float64]:
        return np.asarray(random.normal(size=(len(names), columns))[task])

    skill = random.normal(0, 0.7, models)
    apart = of_task(models)
    if world.apart == "words":
        apart = 0.5 * apart + 1.2 * linear(models)
    elif world.apart == "kinds":
        nearest = (vectors @ vectors[random.permutation(count)[:30]].T).argmax(axis=1)
        apart = random.normal(0, 1.3, (30, models))[nearest]
    elif world.apart == "few":
        apart = 0.7 * (linear(2) + of_task(2)) @ random.normal(size=(2, models))
    elif world.apart == "none":
        apart = np.zeros((count, models))
    ease = world.hard * (0.6 * linear(1) + 0.8 * of_task(1)) + random.normal(0, 1, (count, 1))
    odds = 1 / (1 + np.exp(-(skill + world.strength * apart + ease)))
    got = (random.random((count, models)) < odds).astype(np.float64)
    if world.graded:
        got = np.clip(odds + random.normal(0, 0.15, odds.shape), 0, 1)
    rate = np.exp(random.normal(0, 1, models))
    if world.good_is_dear:
        rate = np.sort(rate)[skill.argsort().argsort()]
    cost = rate * np.exp(0.5 * linear(1) + random.normal(0, world.scatter, (count, models)))
    coins = Outcomes(
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
        solve_quality=got[:, None],
    )
    return coins, replace(coins, solve_quality=odds[:, None])


def _between(
    study: Outcomes, chosen: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float32]:
    """Vectors of length 1 between those of the chosen questions and of others of their tasks."""
    other = chosen.copy()
    for task in np.unique(study.tasks):
        here = study.tasks[chosen] == task
        other[here] = random.choice(np.flatnonzero(study.tasks == task), here.sum())
    share = random.uniform(0, 0.5, (len(chosen), 1)).astype(np.float32)
    mixed = (1 - share) * study.embeddings[chosen, 0] + share * study.embeddings[other, 0]
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))


def _tasks(
    own: NDArray[np.str_], vectors: NDArray[np.float32], count: int, seed: int
) -> NDArray[np.str_]:
    from sklearn.cluster import KMeans

    if not count:
        return own
    labels = KMeans(count, n_init=1, random_state=seed).fit(vectors).labels_
    return np.array([f"t{label}" for label in labels])


def described(study: dict[str, Any], models: int) -> dict[str, Any]:
    """What a tree of so many models would say of itself."""
    spec = study["pool"]["models"][0]
    names = [f"m{number}" for number in range(models)]
    pool = {**study["pool"], "hops": 1, "models": [{**spec, "name": name} for name in names]}
    return {**study, "pool": pool, "weights": dict.fromkeys(names, "w")}


@dataclass(frozen=True)
class Found:
    """What one draw of a world gave, in points."""

    told: dict[str, float]
    """The router less something."""
    error: dict[str, float]
    """Standard errors of those of them that are means over the judged questions."""
    sure: list[tuple[bool, bool]]
    """For each alpha, whether choosing by the known task, and the router, are surely better than
    the best single model."""


def judged(outcomes: tuple[Outcomes, Outcomes], info: dict[str, Any], centres: int) -> Found:
    """The differences of one draw, for a router that knows so many typical queries."""
    coins, odds = outcomes
    router, _ = fit(
        TrainingConfig(moves="direct", learner="regression", centres=centres), coins, info
    )
    train, test = coins.select(coins.train), odds.select(~coins.train)
    unit = router.info.cost_unit_usd
    arena = Arena(train, test, "direct", unit, (Contender("router", (router,), "direct", 1),))
    plays = {alpha: play_all(arena, alpha) for alpha in (*ALPHA_GRID, SAVING)}
    crossed = Crossed(Bootstrap(test.tasks, RESAMPLES, 42), 1)
    told, error, sure = {}, {}, []
    for alpha in ALPHAS:
        got = {
            name: 100 * (played[0].quality - alpha * played[0].cost / unit)
            for name, played in plays[alpha].items()
        }
        means = {name: float(each.mean()) for name, each in got.items()}
        fair = max(RULES, key=means.__getitem__)
        best = max((*RULES, TOLD), key=means.__getitem__)
        for name, other in (("best rule", best), ("best fair rule", fair), (SINGLE, SINGLE)):
            column = difference(got["router"], got[other])
            told[f"{name}, alpha {alpha:g}"] = means["router"] - means[other]
            resampled = crossed.overall(column).resampled
            error[f"{name}, alpha {alpha:g}"] = float(resampled.std())
        told_task, ours = (
            compare(crossed.overall(difference(got[name], got[SINGLE])), CONFIDENCE)[0].low > 0
            for name in (TOLD, "router")
        )
        sure.append((bool(told_task), bool(ours)))
    singles = test.direct()
    costs = singles.cost.mean(axis=0) / unit
    low, high = float(costs.min()), float(costs.max())
    areas = {"single models": 100 * _zero_router(train, test, unit, low, high)}
    for name in ("router", "knn"):
        points = [each[name][0] for each in plays.values()]
        cost = np.array([each.cost.mean() / unit for each in points])
        quality = np.array([each.quality.mean() for each in points])
        areas[name] = 100 * float(weights(cost, low, high) @ quality)
    told["AIQ of the single models"] = areas["router"] - areas["single models"]
    told["AIQ of knn"] = areas["router"] - areas["knn"]
    return Found(told, error, sure)


def _zero_router(train: Outcomes, test: Outcomes, unit: float, low: float, high: float) -> float:
    """AIQ of mixing single models at random: those of the hull of the training questions."""
    seen, judged_on = train.direct(), test.direct()
    kept = hull(seen.cost.mean(axis=0) / unit, seen.quality.mean(axis=0)).points
    cost = judged_on.cost.mean(axis=0)[kept] / unit
    return float(weights(cost, low, high) @ judged_on.quality.mean(axis=0)[kept])


def main() -> None:
    """Draws, trains, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=Path("studies/small_pool"))
    parser.add_argument("--seeds", type=int, default=3, help="draws of each world (3)")
    parser.add_argument("--only", nargs="+", choices=WORLDS, default=list(WORLDS), metavar="NAME")
    parser.add_argument(
        "--centres", type=int, default=TrainingConfig().centres, help="of the recipe (%(default)s)"
    )
    options = parser.parse_args()
    print_header(f"worlds of imported outcomes on the questions of {options.tree}", "scikit-learn")
    study = load_outcomes(options.tree, "accuracy", "paper", "direct")
    info = tree_info(options.tree)
    rows: list[dict[str, float]] = []
    sure: list[tuple[bool, bool]] = []
    for name in options.only:
        world = WORLDS[name]
        found = [
            judged(drawn(study, world, seed), described(info, world.models), options.centres)
            for seed in range(options.seeds)
        ]
        rows.append(
            {key: float(np.mean([each.told[key] for each in found])) for key in found[0].told}
        )
        wide = {
            key: 1.96 * float(np.sqrt(np.square([each.error[key] for each in found]).sum()))
            for key in found[0].error
        }
        for each in found:
            sure += each.sure
        if len(rows) == 1:
            print(f"router less, in points: {'; '.join(rows[0])}")
        line = "".join(
            f"{value:>+7.1f}" + (f" ±{wide[key] / len(found):<4.1f}" if key in wide else "")
            for key, value in rows[-1].items()
        )
        print(f"{name:<22}{world.models:>3} models{world.questions:>5} questions{line}", flush=True)
    print(f"\nover {len(rows)} worlds, in points: mean, least, greatest")
    good = True
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        wrong = ""
        if name.startswith("best rule") and (values.mean() < MEAN or values.min() < EACH):
            good, wrong = False, "  FAIL"
        print(
            f"  router less {name:<28}"
            f"{values.mean():>+7.2f}{values.min():>+7.2f}{values.max():>+7.2f}{wrong}"
        )
    needed = [ours for told_task, ours in sure if told_task]
    print(
        f"choosing by the known task is surely above {SINGLE} in {len(needed)} of {len(sure)} draws"
        f" at an alpha; there the router is in {sum(needed)}"
    )
    print(f"\n{'PASS' if good else 'FAIL'}: at least {MEAN} in the mean and {EACH} in each world")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

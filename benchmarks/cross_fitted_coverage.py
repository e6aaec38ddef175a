"""Do cross-fitted 95% intervals hold the truth, though each query is judged by what others made?

    python benchmarks/cross_fitted_coverage.py [--studies 1000] [--resamples 1000] [--seed 1]

Each simulated study has queries of six tasks and models whose chance to be right differs by task.
In five folds, the best model of each task and the best single model are chosen on the queries of
the other folds, and the difference of what the two get is averaged over all queries, with the
interval of an evaluation (`hierrouter.evaluation.statistics.crossed`). With several seeds, each
chooses on a part of its training queries, drawn by chance, as a learner that is unsure would.

Two truths are asked for. *These*: what the choices of this very study, fold by fold, get on queries
to come. *Any*: what choices from so many queries get on average over studies. Printed: the shares
of studies whose interval holds either, and by how much the deviation of the estimate from the first
is greater than it would be if nothing hung together: the queries of one fold decide what the others
are judged by, and the other way round, which shows where a choice hangs on luck. That is what the
interval's width is put right by, with one number for all (`CROSS_FITTED`). Exit code 1 if with
models like the study's own (`as in the study`) less than 93% or more than 97% hold the first; the
other scenarios show how far that carries.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from _report import print_header

from hierrouter.evaluation.statistics.crossed import CROSS_FITTED, Crossed
from hierrouter.evaluation.statistics.intervals import Bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALLOWED = (0.93, 0.97)
FOLDS, TASKS = 5, 6
AT_ONCE = 250
"""Studies that share their resamples."""


@dataclass(frozen=True)
class Scenario:
    """How a study is drawn."""

    name: str
    models: int = 3
    queries: int = 600
    apart: float = 0.15
    """Deviation of a model's chance to be right over the tasks."""
    seeds: int = 1
    judged: bool = False


LIKE_THE_STUDY = np.array(
    # Shares of right direct answers in studies/small_pool (`hierrouter tree info`), 100 queries a
    # task: gsm8k, math, mbpp, arc_easy, arc_challenge, mmlu.
    [
        [0.04, 0.06, 0.62],
        [0.06, 0.08, 0.43],
        [0.33, 0.54, 0.50],
        [0.31, 0.75, 0.63],
        [0.30, 0.61, 0.54],
        [0.40, 0.52, 0.39],
    ]
)
SCENARIOS = (
    Scenario("as in the study", judged=True),
    Scenario("as in the study, five seeds", seeds=5, judged=True),
    Scenario("three models drawn by chance"),
    Scenario("eight models", models=8),
    Scenario("120 queries", queries=120),
    Scenario("1,800 queries", queries=1800),
    Scenario("models hardly apart", apart=0.04),
    Scenario("models far apart", apart=0.3),
    Scenario("five seeds", seeds=5),
    Scenario("five seeds, eight models, 120 queries", models=8, queries=120, seeds=5),
    Scenario("six models, all alike", models=6, apart=0.0),
)


def study(
    scenario: Scenario, rng: np.random.Generator, task: NDArray[np.int64], chance: NDArray
) -> tuple[NDArray, float]:
    """S x N differences of a study, and what its choices get on queries to come."""
    count, models = scenario.queries, scenario.models
    right = (rng.random((count, models)) < chance[task]).astype(float)
    fold = rng.permutation(count) % FOLDS
    values, truth = np.zeros((scenario.seeds, count)), 0.0
    share = np.bincount(task, minlength=TASKS) / count
    for seed in range(scenario.seeds):
        for part in range(FOLDS):
            rest = fold != part
            if scenario.seeds > 1:
                rest &= rng.random(count) < 0.7
            sums = np.zeros((TASKS, models))
            np.add.at(sums, task[rest], right[rest])
            seen = np.bincount(task[rest], minlength=TASKS)[:, None]
            single = int(sums.sum(axis=0).argmax())
            routed = (sums / np.maximum(seen, 1)).argmax(axis=1)
            left = np.flatnonzero(fold == part)
            values[seed, left] = right[left, routed[task[left]]] - right[left, single]
            each = chance[np.arange(TASKS), routed] - chance[:, single]
            truth += float(share @ each) * len(left) / count / scenario.seeds
    return values, truth


def covered(
    scenario: Scenario, studies: int, resamples: int, seed: int
) -> tuple[float, float, float]:
    """The shares of studies whose interval holds either truth, and the ratio of deviations."""
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    task = np.sort(np.arange(scenario.queries) % TASKS)
    names = np.array([f"task{each}" for each in task])
    # One world for all studies: "any" is its mean.
    drawn = 0.5 + scenario.apart * rng.standard_normal((TASKS, scenario.models))
    chance = LIKE_THE_STUDY if scenario.judged else np.clip(drawn, 0.02, 0.98)
    lows, highs, found, truths = [], [], [], []
    for start in range(0, studies, AT_ONCE):
        block = [study(scenario, rng, task, chance) for _ in range(min(AT_ONCE, studies - start))]
        values = np.stack([each for each, _ in block], axis=2)
        crossed = Crossed(Bootstrap(names, resamples, seed + start), scenario.seeds, CROSS_FITTED)
        low, high = crossed.overall(values).ends(0.95)
        lows, highs = [*lows, *low], [*highs, *high]
        found += [each.mean() for each, _ in block]
        truths += [truth for _, truth in block]
    low, high, truth = (np.array(each) for each in (lows, highs, truths))
    told = (high - low).mean() / (2 * 1.96) / CROSS_FITTED
    return (
        float(((low <= truth) & (truth <= high)).mean()),
        float(((low <= truth.mean()) & (truth.mean() <= high)).mean()),
        float((np.array(found) - truth).std() / told),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000, help="of each scenario (1000)")
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    given = parser.parse_args()
    print_header("Coverage of cross-fitted 95% intervals", "numpy")
    print(f"{'scenario':40} {'these':>6} (95 % of that share) {'any':>8} {'deviation':>10}")
    good, began = True, perf_counter()
    for scenario in SCENARIOS:
        these, anything, ratio = covered(scenario, given.studies, given.resamples, given.seed)
        half = 1.96 * np.sqrt(these * (1 - these) / given.studies)
        fine = ALLOWED[0] <= these <= ALLOWED[1]
        good &= fine or not scenario.judged
        told = ("" if fine else "  FAIL") if scenario.judged else "  not judged"
        print(
            f"{scenario.name:40} {these:6.3f} ({these - half:.3f} to {these + half:.3f})   "
            f"{anything:8.3f} {ratio:10.2f}{told}",
            flush=True,
        )
    print(
        f"\n{'PASS' if good else 'FAIL'}: between {ALLOWED[0]:.0%} and {ALLOWED[1]:.0%}; "
        f"{given.studies} studies a scenario, {perf_counter() - began:.0f} s"
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

"""Do 95% intervals hold the truth in 95% of studies, with seeds and queries both drawn anew?

    python benchmarks/interval_coverage.py [--studies 2000] [--resamples 2000] [--seed 1]

Each simulated study trains a router with several seeds on a world whose truth is known, judges all
of them on the same test queries and gives an interval for the mean difference to a fixed rival.
Router and rival take one of two routes for each query, whose answers are right or wrong. Where
only one is right, a seed takes that one with a chance that depends on the seed (some are trained
better), on the query (some are plain to all seeds) and, where it is not plain, on luck. Scenarios
differ in which of the three weighs most, and in how many seeds, queries and tasks there are.

Printed: the share of studies whose interval holds the truth, with the Monte-Carlo 95% interval of
that share, for the method in use (`hierrouter.evaluation.statistics.crossed`) and for three that
were tried: queries drawn alone; both drawn and nothing put right; both drawn and the seeds' part
scaled. Exit code 1 if the method in use holds the truth in less than 93% or more than 97% of the
studies of a scenario. The last four scenarios show where it ends and are not judged.

A second table has differences that are nothing like normal: a small saving on most queries and an
outright loss on a rare one, of true mean 0 (`_rare_losses.py`). There the two-sided interval ends,
and so does the one-sided bound of the same resamples. Judged are the bounds that decide something,
those of `hierrouter compare` and of the champion rule (`statistics.bounds`): code 1 if one is
above 0 in more than 5% of the studies, and what chance may add.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from _rare_losses import print_rare
from _report import print_header

from hierrouter.evaluation.statistics.crossed import Crossed
from hierrouter.evaluation.statistics.intervals import Bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CONFIDENCE = 0.95
ALLOWED = (0.93, 0.97)
STUDIES_AT_ONCE = 250
"""So that the values of a block stay in some 100 MB."""


@dataclass(frozen=True)
class Scenario:
    """How a study is drawn."""

    name: str
    seeds: int
    counts: tuple[int, ...]
    """Test queries of each task."""
    seed_spread: float = 0.0
    """Standard deviation over seeds of the logit of taking the right route."""
    query_spread: float = 0.0
    """The same over queries; infinite: all seeds take the same."""
    skew: bool = False
    """Whether most seeds are alike and a few far worse."""
    task_seed_spread: float = 0.0
    """The same as `seed_spread`, drawn for each task and seed."""


EVEN = (50,) * 6
SCENARIOS = (
    Scenario("realistic: all three", 5, EVEN, 0.5, 1.5),
    Scenario("no seed effect, seeds alike", 5, EVEN, 0.0, np.inf),
    Scenario("no seed effect, luck only", 5, EVEN, 0.0, 0.0),
    Scenario("small seed effect", 5, EVEN, 0.2, 1.0),
    Scenario("seeds weigh as much as queries", 5, EVEN, 0.8, 1.0),
    Scenario("seeds dominate", 5, (500,) * 6, 0.5, 0.5),
    Scenario("seeds differ task by task", 5, EVEN, 0.3, 1.0, task_seed_spread=1.0),
    Scenario("uneven tasks, some small", 5, (150, 90, 40, 8, 5, 3), 0.5, 1.5),
    Scenario("few queries", 5, (16,) * 6, 0.5, 1.5),
    Scenario("three seeds", 3, EVEN, 0.5, 1.5),
    Scenario("ten seeds", 10, EVEN, 0.5, 1.5),
    Scenario("one seed, alike", 1, EVEN, 0.0, np.inf),
)
STRESS = (
    Scenario("seeds good or useless", 5, (300,) * 6, 2.0, 0.5),
    Scenario("a few seeds far worse", 5, (300,) * 6, 1.0, 0.5, skew=True),
    Scenario("twelve queries in six tasks", 1, (1, 1, 2, 2, 3, 3), 0.0, np.inf),
    Scenario("eighteen queries in six tasks", 1, (3,) * 6, 0.0, np.inf),
)
"""Seeds that are far from normally distributed and all that matters, and fewer queries than a
verdict takes: printed, not judged."""


def chances(
    scenario: Scenario, seeds: NDArray[np.float64], queries: NDArray[np.float64]
) -> NDArray:
    """The chance that a seed takes the right route of a query on which the routes differ."""
    if np.isinf(scenario.query_spread):
        return np.where(queries > -0.4, 1.0, 0.0) + 0 * seeds
    logits = 0.4 + seeds + scenario.query_spread * queries
    return 1 / (1 + np.exp(-logits))


def seed_effects(scenario: Scenario, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    """Standard normal or skewed, times their spread."""
    if scenario.skew:
        return scenario.seed_spread * (1.0 - rng.exponential(size=shape))
    return scenario.seed_spread * rng.standard_normal(shape)


def task_rates(scenario: Scenario) -> tuple[NDArray, NDArray]:
    """By task: how often the routes differ in being right, and how often then the rival's is."""
    tasks = len(scenario.counts)
    return np.linspace(0.15, 0.55, tasks), np.linspace(0.65, 0.45, tasks)


def true_difference(scenario: Scenario, rng: np.random.Generator) -> float:
    """The mean difference over all seeds and queries that there could be."""
    draws = 4_000_000
    seeds = seed_effects(scenario, rng, (draws,))
    seeds += scenario.task_seed_spread * rng.standard_normal(draws)
    right = chances(scenario, seeds, rng.standard_normal(draws)).mean()
    differ, rival = task_rates(scenario)
    weights = np.array(scenario.counts) / sum(scenario.counts)
    return float(weights @ (differ * (right - rival)))


def draw(scenario: Scenario, rng: np.random.Generator, studies: int) -> tuple[NDArray, NDArray]:
    """Task names of N queries, and S x N x studies differences of -1, 0 or 1."""
    tasks = np.repeat([f"task{k}" for k in range(len(scenario.counts))], scenario.counts)
    number = np.repeat(np.arange(len(scenario.counts)), scenario.counts)
    count = len(tasks)
    differ, rival = (rates[number][:, None] for rates in task_rates(scenario))
    differs = rng.random((count, studies)) < differ
    rival_right = rng.random((count, studies)) < rival
    seeds = seed_effects(scenario, rng, (scenario.seeds, 1, studies))
    by_task = rng.standard_normal((scenario.seeds, len(scenario.counts), studies))
    chance = chances(
        scenario,
        seeds + scenario.task_seed_spread * by_task[:, number],
        rng.standard_normal((count, studies)),
    )
    right = rng.random((scenario.seeds, count, studies)) < chance
    return tasks, differs * (right.astype(np.float64) - rival_right)


def in_use(bootstrap: Bootstrap, values: NDArray) -> NDArray:
    """Ends of the intervals, 2 x studies, by the library's method."""
    return Crossed(bootstrap, len(values)).overall(values).ends(CONFIDENCE)


def queries_alone(bootstrap: Bootstrap, values: NDArray) -> NDArray:
    """Queries are drawn, seeds are averaged over."""
    over_seeds = values.mean(axis=0)
    ends = np.zeros(values.shape[2])
    means = bootstrap.overall(over_seeds, bootstrap.by_task(over_seeds, ends, ends))
    return means.ends(CONFIDENCE)


def plainly_crossed(bootstrap: Bootstrap, values: NDArray, scale: bool = False) -> NDArray:
    """Both are drawn with replacement and nothing is put right, or only the seeds' scale."""
    seeds, total = values.shape[:2]
    weights = np.concatenate(list(bootstrap.weights("seeds", seeds))) / seeds
    if scale and seeds > 1:
        weights = 1 / seeds + (weights - 1 / seeds) * np.sqrt(seeds / (seeds - 1))
    resampled = np.zeros((bootstrap.resamples, values.shape[2]))
    for name, rows in bootstrap.strata.items():
        drawn = np.concatenate(list(bootstrap.weights(name, len(rows)))) / total
        for seed in range(seeds):
            resampled += weights[:, seed, None] * (drawn @ values[seed, rows])
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(resampled, [tail, 1 - tail], axis=0)


def crossed_and_scaled(bootstrap: Bootstrap, values: NDArray) -> NDArray:
    """Plainly crossed, the seeds' part scaled by sqrt(S / (S - 1))."""
    return plainly_crossed(bootstrap, values, scale=True)


METHODS: dict[str, Callable[[Bootstrap, NDArray], NDArray]] = {
    "in use": in_use,
    "queries": queries_alone,
    "crossed": plainly_crossed,
    "scaled": crossed_and_scaled,
}


def covered(scenario: Scenario, studies: int, resamples: int, seed: int) -> dict[str, float]:
    """The share of studies whose interval holds the truth, by method."""
    rng = np.random.default_rng([seed, (*SCENARIOS, *STRESS).index(scenario)])
    truth = true_difference(scenario, rng)
    held = dict.fromkeys(METHODS, 0)
    for start in range(0, studies, STUDIES_AT_ONCE):
        tasks, values = draw(scenario, rng, min(STUDIES_AT_ONCE, studies - start))
        # A seed for each block: studies share their resamples only within one.
        bootstrap = Bootstrap(tasks, resamples, seed + start)
        for name, method in METHODS.items():
            low, high = method(bootstrap, values)
            held[name] += int(((low <= truth) & (truth <= high)).sum())
    return {name: count / studies for name, count in held.items()}


def verdict_on(scenario: Scenario, fine: bool) -> str:
    """What stands at the end of a scenario's line."""
    if scenario in STRESS:
        return "  not judged"
    return "" if fine else "  FAIL"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=2000, help="of each scenario (2000)")
    parser.add_argument("--resamples", type=int, default=2000, help="of each bootstrap (2000)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    given = parser.parse_args()
    print_header("Coverage of 95% intervals, seeds and queries both drawn", "numpy")
    print(f"{'scenario':34} {'in use':>6} (95 % of that share)", end="")
    print("".join(f" {name:>8}" for name in METHODS if name != "in use"))
    good, began = True, perf_counter()
    for scenario in (*SCENARIOS, *STRESS):
        shares = covered(scenario, given.studies, given.resamples, given.seed)
        share = shares.pop("in use")
        half = 1.96 * np.sqrt(share * (1 - share) / given.studies)
        fine = ALLOWED[0] <= share <= ALLOWED[1]
        good &= fine or scenario in STRESS
        print(
            f"{scenario.name:34} {share:6.3f} ({share - half:.3f} to {share + half:.3f})  ", end=""
        )
        print("".join(f" {other:8.3f}" for other in shares.values()) + verdict_on(scenario, fine))
    print(
        f"\n{'PASS' if good else 'FAIL'}: in use between {ALLOWED[0]:.0%} and {ALLOWED[1]:.0%}; "
        f"{given.studies} studies a scenario, {perf_counter() - began:.0f} s"
    )
    good &= print_rare(given.studies, given.resamples, given.seed)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

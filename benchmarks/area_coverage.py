"""Do 95% intervals of AIQ hold the truth, though a hull takes the lucky of many points?

    python benchmarks/area_coverage.py [--studies 400] [--resamples 500] [--seed 1]

Each simulated study has single models whose answers are right by chance, test queries, and training
queries that say which of them are mixed; the area is that of the zero router in an evaluation
(`hierrouter.evaluation.tradeoff.curves`). The truth is the area of the same mix in expectation, its
weights at the expected costs.

Beside it: *of the hull*, the area under the hull of the judged queries' own points with the
percentile interval of its resamples, against the area under the hull of the expected points. That
is what the choice on training queries is there to avoid. Exit code 1 if the method in use holds
the truth in less than 92% of the studies of a scenario.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from _report import print_header

from hierrouter.evaluation.policies.arena import Played
from hierrouter.evaluation.statistics.crossed import Crossed
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.evaluation.summary import Results
from hierrouter.evaluation.tradeoff.curves import ZERO, curves_of
from hierrouter.evaluation.tradeoff.hull import hull, weights
from hierrouter.evaluation.tradeoff.marks import Marks

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 0.92


@dataclass(frozen=True)
class Scenario:
    """How a study is drawn."""

    name: str
    chances: tuple[float, ...]
    """Of each model to be right, cheapest first; a model costs one more than the one before."""
    queries: int
    """Those that judge. Twice as many say what is mixed."""
    by_difficulty: float = 0.0
    """How much dearer the hardest query is than the mean one, as a share."""


SCENARIOS = (
    Scenario("six models, all alike", (0.5,) * 6, 200),
    Scenario("four that differ, costs by difficulty", (0.35, 0.5, 0.55, 0.7), 60, 0.5),
    Scenario("four that differ, costs by difficulty", (0.35, 0.5, 0.55, 0.7), 200, 0.5),
)


def draw(
    scenario: Scenario, rng: np.random.Generator, queries: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Qualities and costs, queries x M each."""
    hard = rng.uniform(-1, 1, (queries, 1))
    chances = np.clip(np.array(scenario.chances) - 0.25 * scenario.by_difficulty * hard, 0, 1)
    quality = (rng.random(chances.shape) < chances).astype(np.float64)
    price = np.arange(1.0, 1 + len(scenario.chances))
    return quality, price * (1 + scenario.by_difficulty * hard)


def in_use(scenario: Scenario, rng: np.random.Generator, resamples: int) -> bool:
    """Whether the interval of one study's evaluation holds the truth."""
    quality, cost = draw(scenario, rng, scenario.queries)
    names = [f"single:{number}" for number in range(len(scenario.chances))]
    played = {
        name: (
            Played(
                name, quality[:, k], cost[:, k], (name,), np.zeros(len(quality), dtype=np.int64)
            ),
        )
        for k, name in enumerate(names)
    }
    results = Results(
        {0.0: {"router": played[names[0]], **played}},
        np.array(["t"] * len(quality)),
        1.0,
        resamples,
        0.95,
        int(rng.integers(2**31)),
    )
    known, paid = (each.mean(axis=0) for each in draw(scenario, rng, 2 * scenario.queries))
    points = {name: (float(paid[k]), float(known[k])) for k, name in enumerate(names)}
    marks = Marks(np.arange(len(quality)), points)
    found = curves_of(results, [name.removeprefix("single:") for name in names], [marks])
    kept = marks.vertices(names)
    price = np.arange(1.0, 1 + len(names))
    truth = np.array(scenario.chances)[kept] @ weights(price[kept], price[0], price[-1])
    told = found["aiq"][ZERO]
    return bool(told["low"] <= truth <= told["high"])


def of_the_hull(scenario: Scenario, rng: np.random.Generator, resamples: int) -> bool:
    """Whether the percentile interval of the judged queries' own hull holds the hull's truth."""
    quality, cost = draw(scenario, rng, scenario.queries)
    price = np.arange(1.0, 1 + len(scenario.chances))

    def area(at: NDArray[np.float64], good: NDArray[np.float64]) -> float:
        curve, grid = hull(at, good), np.linspace(price[0], price[-1], 201)
        return float(curve.at(grid).mean())

    drawn = Bootstrap(np.array(["t"] * len(quality)), resamples, int(rng.integers(2**31)))
    means = Crossed(drawn, 1).overall(np.concatenate([cost, quality], axis=1)[None]).resampled
    areas = [area(*np.split(row, 2)) for row in means]
    low, high = np.quantile(areas, [0.025, 0.975])
    return bool(low <= area(price, np.array(scenario.chances)) <= high)


def main() -> int:
    """Prints the shares; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=400, help="simulated studies a scenario")
    parser.add_argument("--resamples", type=int, default=500, help="of the bootstrap of each")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    arguments = parser.parse_args()
    print_header("area_coverage: 95% intervals of AIQ", "numpy")
    print(f"{'scenario':40} {'queries':>7}  in use  of the hull")
    failed = False
    for scenario in SCENARIOS:
        rng = np.random.default_rng(arguments.seed)
        shares = [
            np.mean([each(scenario, rng, arguments.resamples) for _ in range(arguments.studies)])
            for each in (in_use, of_the_hull)
        ]
        failed |= bool(shares[0] < LEAST)
        print(
            f"{scenario.name:40} {scenario.queries:7}  {shares[0]:6.3f}  {shares[1]:11.3f}",
            flush=True,
        )
    print("FAIL" if failed else "PASS")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

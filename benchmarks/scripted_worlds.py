"""Does the default recipe find what is known to be there, and nothing that is not?

    python benchmarks/scripted_worlds.py [--seeds 5] [--queries-per-task 300] [--worlds ...]

Three checks, each over several training seeds, one after the other on one thread:

  tasks     configs/scripted.yaml, where choosing the model by task is best. Reported: the share
            (router - random) / (best_path_per_task - random) of the reward, at the headline alpha
            and averaged over the alpha grid. Passes if both are at least .95 for every seed.
  markers   configs/scripted_markers.yaml, where only hopping and looking helps. Reported: the
            router's margin over best_path_per_task at the headline alpha, beside the margin that
            the construction gives: (1 - alpha c2) - max(.3 - alpha c1, .378 - alpha c2), with the
            measured relative costs c1 and c2 of routes of one and two calls. Passes if every seed
            gets at least .9 of it and the interval's lower end is above the margin of a router
            that looks at the marker or the analysis only, (.533 - alpha c2).
  permuted  configs/scripted.yaml with each query's outcomes (every quality and cost, kept together)
            given to another query of the same split. Nothing that a query shows can then say which
            route is good. Test queries are permuted among themselves too: otherwise the arbitrary
            choice that a router makes for a whole task is right or wrong for all of that task's
            queries, which the bootstrap over queries knows nothing of. Passes if no seed's router
            is above best_path at the headline alpha (its paired interval reaches 0).

Exit code 1 if a check fails. Intervals: 95 %, paired bootstrap over test queries within tasks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import print_header

from hierrouter.configfile import load_config
from hierrouter.data.sample import sample_queries
from hierrouter.evaluation.measure import measure
from hierrouter.learning.train import fit
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes, tree_info

if TYPE_CHECKING:
    from hierrouter.config import Config
    from hierrouter.routes.outcomes import Outcomes

CONFIGS = Path(__file__).parents[1] / "configs"
WORLDS = ("tasks", "markers", "permuted")
SHARE, MARKERS_SHARE = 0.95, 0.9
"""What the router must reach of what is there, in each world."""
DIRECT, FIXED, ONE_LOOK, BOTH = 0.3, 1 / 9 + 8 / 9 * 0.3, 1 / 3 + 2 / 3 * 0.3, 1.0
"""Qualities in the markers' world, by its construction."""


def record(config: Config, folder: Path) -> tuple[Outcomes, dict[str, Any]]:
    """Samples and collects, as the pipeline's stages do."""
    tree = collect_routes(config.pool, sample_queries(config.data, folder / "q"), folder / "tree")
    return load_outcomes(tree, config.training.metric), tree_info(tree)


def permuted(outcomes: Outcomes, seed: int) -> Outcomes:
    """Each query gets the outcomes of another one of its split; embeddings stay."""
    random = np.random.default_rng(seed)
    source = np.arange(len(outcomes))
    for split in (outcomes.train, ~outcomes.train):
        rows = np.flatnonzero(split)
        source[rows] = random.permutation(rows)
    return replace(
        outcomes,
        analyze_cost=outcomes.analyze_cost[source],
        solve_cost=outcomes.solve_cost[source],
        solve_quality=outcomes.solve_quality[source],
    )


def judged(
    config: Config, outcomes: Outcomes, info: dict[str, Any], seed: int
) -> tuple[dict[str, Any], float]:
    """Metrics of a router trained with this seed, and the seconds that training took."""
    started = time.perf_counter()
    router, _ = fit(config.training.model_copy(update={"seed": seed}), outcomes, info)
    took = time.perf_counter() - started
    return measure(outcomes, router, config.evaluation).metrics, took


def rewards(at: dict[str, Any], *names: str) -> list[float]:
    """Mean rewards of some policies."""
    return [at["policies"][name]["reward"]["mean"] for name in names]


def check_tasks(metrics: dict[str, Any]) -> tuple[str, bool]:
    """Share of the distance from random to the best choice by task."""
    names = ("router", "random", "best_path_per_task")
    by_alpha = np.array([rewards(at, *names) for at in metrics["by_alpha"]])
    here = np.array(rewards(metrics, *names))
    headline, grid = ((m[0] - m[1]) / (m[2] - m[1]) for m in (here, by_alpha.mean(axis=0)))
    text = (
        f"router {here[0]:.3f}, random {here[1]:.3f}, best_path_per_task {here[2]:.3f}; "
        f"share {headline:.3f}, over the grid {grid:.3f}"
    )
    return text, min(headline, grid) >= SHARE


def check_markers(metrics: dict[str, Any], outcomes: Outcomes) -> tuple[str, bool]:
    """Margin over the best choice by task, against what the construction gives."""
    alpha, unit = metrics["alpha"], metrics["cost_unit_usd"]
    table = outcomes.routes("early_exit")
    calls = np.array([len(path) for path in table.paths])
    one, two = (float(table.cost[:, calls == n].mean()) / unit for n in (1, 2))
    fixed = max(DIRECT - alpha * one, FIXED - alpha * two)
    possible, partial = BOTH - alpha * two - fixed, ONE_LOOK - alpha * two - fixed
    margin = metrics["differences"]["best_path_per_task"]["reward"]
    share = margin["mean"] / possible
    text = (
        f"margin {margin['mean']:.3f} (95 % {margin['low']:.3f} to {margin['high']:.3f}), "
        f"by construction {possible:.3f} (one look {partial:.3f}; costs {one:.2f} and {two:.2f}); "
        f"share {share:.3f}"
    )
    return text, share >= MARKERS_SHARE and margin["low"] > partial


def check_permuted(metrics: dict[str, Any]) -> tuple[str, bool]:
    """Whether the router is above the best fixed route although nothing can be known."""
    margin = metrics["differences"]["best_path"]["reward"]
    text = (
        f"router - best_path {margin['mean']:+.3f} "
        f"(95 % {margin['low']:+.3f} to {margin['high']:+.3f})"
    )
    return text, margin["low"] <= 0


def run(world: str, config: Config, seeds: int, folder: Path) -> bool:
    """Records a world, trains and checks one router a seed."""
    outcomes, info = record(config, folder)
    test = int((~outcomes.train).sum())
    alpha = config.evaluation.alpha
    print(
        f"\n{world}: {len(outcomes) - test} training and {test} test queries, alpha {alpha:g}, "
        f"{config.training.iterations} iterations"
    )
    passed = []
    for seed in range(1, seeds + 1):
        played = permuted(outcomes, seed) if world == "permuted" else outcomes
        metrics, took = judged(config, played, info, seed)
        if world == "tasks":
            text, good = check_tasks(metrics)
        elif world == "markers":
            text, good = check_markers(metrics, played)
        else:
            text, good = check_permuted(metrics)
        passed.append(good)
        print(f"  seed {seed}: {text}; {took:.1f} s; {'pass' if good else 'FAIL'}", flush=True)
    print(f"  {'PASS' if all(passed) else 'FAIL'}: {sum(passed)} of {seeds} seeds")
    return all(passed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="training seeds 1 to N (5)")
    parser.add_argument("--queries-per-task", type=int, default=300, help="six tasks (300)")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    given = parser.parse_args()
    print_header(
        "Scripted worlds: what the default recipe finds",
        "torch", "numpy", "stable-baselines3", "sb3-contrib",
    )  # fmt: skip
    results = []
    for world in given.worlds:
        name = "scripted_markers.yaml" if world == "markers" else "scripted.yaml"
        overrides = [f"data.queries_per_task={given.queries_per_task}", *given.overrides]
        config = load_config(CONFIGS / name, overrides)
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(world, config, given.seeds, Path(folder)))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()

"""Imported outcomes, from a file to a verdict: seconds and memory of every command.

    python benchmarks/outcomes_evaluation.py [--queries 10000] [--models 10] [--runs 2]

Makes outcomes on which models differ by task, the prompts of a task in a cloud of their own, with
the vectors at hand, and runs `hierrouter import-outcomes`, `train` and `evaluate` as processes with
configs/outcomes.yaml: all baselines, intervals, records and the report.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _report import mean_interval, print_header

CONFIG = Path(__file__).parents[1] / "configs" / "outcomes.yaml"
HIERROUTER = Path(sys.executable).with_name("hierrouter")
WIDTH, TASKS = 384, 12


def make(folder: Path, queries: int, models: int, seed: int) -> None:
    """Writes the outcomes and the vectors of their prompts."""
    rng = np.random.default_rng(seed)
    task = rng.integers(0, TASKS, queries)
    vectors = rng.normal(size=(TASKS, WIDTH))[task] + 1.5 * rng.normal(size=(queries, WIDTH))
    skill = rng.normal(size=(TASKS, models)) + np.linspace(-0.5, 1, models)
    right = rng.random((queries, models)) < 1 / (
        1 + np.exp(-(skill[task] + rng.normal(size=(queries, 1))))
    )
    cost = np.linspace(0.0002, 0.004, models) * rng.uniform(0.5, 1.5, (queries, models))
    prompts = [
        " ".join(f"word{each}" for each in row) for row in rng.integers(0, 9999, (queries, 30))
    ]
    table = {
        "query_id": np.repeat([f"q{number}" for number in range(queries)], models),
        "task": np.repeat([f"task-{number}" for number in task], models),
        "prompt": np.repeat(prompts, models),
        "model": np.tile([f"model-{number}" for number in range(models)], queries),
        "score": right.ravel().astype(float),
        "cost": cost.ravel(),
    }
    pq.write_table(pa.table(table), folder / "outcomes.parquet")
    np.save(folder / "vectors.npy", vectors.astype(np.float32))


def run(*arguments: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of one command."""
    started = time.perf_counter()
    command = [str(HIERROUTER), *arguments, "--config", str(CONFIG)]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return time.perf_counter() - started, usage.ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=10_000, help="queries (10000)")
    parser.add_argument("--models", type=int, default=10, help="models (10)")
    parser.add_argument("--runs", type=int, default=2, help="runs, at least 2 (2)")
    given = parser.parse_args()
    print_header("Judging a router on imported outcomes", "stable-baselines3", "scikit-learn")
    taken: dict[str, list[tuple[float, float]]] = {
        "import-outcomes": [],
        "train": [],
        "evaluate": [],
    }
    for seed in range(given.runs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, given.queries, given.models, seed)
            file = ("outcomes.parquet", "--embeddings", "vectors.npy", "--out", "tree")
            judged = ("--tree", "tree", "--router", "router", "--out", "evaluation")
            taken["import-outcomes"].append(run("import-outcomes", *file, folder=folder))
            taken["train"].append(run("train", "--tree", "tree", "--out", "router", folder=folder))
            taken["evaluate"].append(run("evaluate", *judged, folder=folder))
    print(f"\n{given.queries:,} queries, {given.models} models; {given.runs} runs")
    for command, each in taken.items():
        seconds, peaks = zip(*each, strict=True)
        print(f"{command:<20} {mean_interval(list(seconds))} s   {mean_interval(list(peaks))} MB")
    together = [sum(pair[0] for pair in each) for each in zip(*taken.values(), strict=True)]
    print(f"{'together':<20} {mean_interval(together)} s")


if __name__ == "__main__":
    main()

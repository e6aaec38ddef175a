"""How long the paper's recipe takes from a stored tree to a router, on one thread.

    python benchmarks/paper_recipe.py [--repeats 5] [--queries-per-task 300]

The tree has the shape of the paper's experiment: 1,800 queries of six tasks, M = 3, L = 2, and
768-wide embeddings. It is recorded into a temporary folder with the scripted pool and the hashing
encoder, because the paper's models need a GPU; what is timed reads and learns from the tree alone,
so it does not matter who wrote it. The training part is that of configs/paper.yaml, with accuracy
in place of token F1 (a scripted answer has both).

Each `--repeats` times:
  in process   load_outcomes, tree_info and fit, everything imported
  command      the whole `hierrouter train` process: wall time, processor time and peak memory
               (getrusage of the child), imports, reading and writing included
Targets: under 10 s and under 2 GB for the command on an idle core. It is judged by the processor
time: on one thread that is what an idle core takes, while the wall time also counts waiting for
whatever else the machine does. Exit code 1 if one of them is missed.
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
from _report import mean_interval, print_header

from hierrouter.configfile import dump_config, load_config
from hierrouter.data.sample import sample_queries
from hierrouter.learning.threads import threads
from hierrouter.learning.train import fit
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes, tree_info

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = "config.yaml"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SECONDS, GIGABYTES = 10.0, 2.0


def record(folder: Path, queries_per_task: int) -> Path:
    """The stored tree, beside the config of its pool and the paper's training."""
    config = load_config(
        CONFIGS / "scripted.yaml",
        [f"data.queries_per_task={queries_per_task}", "pool.encoder.dimensions=768"],
    )
    recipe = load_config(CONFIGS / "paper.yaml", ["training.metric=accuracy"]).training
    config = config.model_copy(update={"training": recipe})
    (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")
    return collect_routes(
        config.pool, sample_queries(config.data, folder / "queries"), folder / "tree"
    )


def in_process(tree: Path, repeats: int) -> None:
    """Times loading and learning."""
    config = load_config(tree.with_name(CONFIG)).training
    loading, learning = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        outcomes, info = load_outcomes(tree, config.metric), tree_info(tree)
        read = time.perf_counter()
        fit(config, outcomes, info)
        loading.append(read - started)
        learning.append(time.perf_counter() - read)
    n, contexts, width = outcomes.embeddings.shape
    print(f"{n} queries ({int(outcomes.train.sum())} training), {contexts} contexts, {width} wide")
    print(f"in process, s   load {mean_interval(loading)}")
    print(f"                fit  {mean_interval(learning)}")
    print(f"                both {mean_interval(list(np.add(loading, learning)))}", flush=True)


def command(tree: Path, folder: Path, repeats: int) -> tuple[float, float]:
    """Times the command; returns its mean processor seconds and greatest peak gigabytes."""
    walls, busy, peaks = [], [], []
    for number in range(repeats):
        started = time.perf_counter()
        child = subprocess.Popen(
            [
                sys.executable, "-m", "hierrouter.cli.main", "train",
                "--config", str(folder / CONFIG),
                "--tree", str(tree), "--out", str(folder / f"router-{number}"),
            ],
            stderr=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        walls.append(time.perf_counter() - started)
        if status:
            sys.exit(child.stderr.read().decode() if child.stderr else "hierrouter train failed")
        busy.append(usage.ru_utime + usage.ru_stime)
        # Kilobytes on Linux, bytes on macOS.
        peaks.append(usage.ru_maxrss / (1e6 if sys.platform == "linux" else 1e9) * 1.024)
    print(f"command, s      wall {mean_interval(walls)}")
    print(f"                processor {mean_interval(busy)}")
    print(f"command, GB     {mean_interval(peaks)} peak resident")
    return float(np.mean(busy)), max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="times each (5)")
    parser.add_argument("--queries-per-task", type=int, default=300, help="six tasks (300)")
    given = parser.parse_args()
    if given.repeats < 2:
        parser.error("--repeats: an interval needs at least 2")
    print_header(
        "The paper's recipe, from a stored tree to a router",
        "torch", "numpy", "pyarrow", "stable-baselines3", "sb3-contrib",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tree = record(Path(folder), given.queries_per_task)
        print(f"\nn = {given.repeats} runs, one thread; tree: scripted pool, hashing encoder")
        with threads(1):
            in_process(tree, given.repeats)
        seconds, gigabytes = command(tree, Path(folder), given.repeats)
    good = seconds < SECONDS and gigabytes < GIGABYTES
    print(f"\n{'PASS' if good else 'FAIL'}: under {SECONDS:g} s and {GIGABYTES:g} GB")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

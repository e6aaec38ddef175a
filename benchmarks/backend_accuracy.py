"""Whether another backend answers as well: accuracy per model and task, query by query.

    python benchmarks/backend_accuracy.py [--tree studies/small_pool] [--per-task 10]
        [--backend transformers] [--dtype auto] [--out runs/backend_accuracy]

Takes the direct answers of the first queries of each task from a recorded tree, asks the same
models the same questions through another backend (into a tree under --out; interrupt it as you
like, it goes on), and prints both accuracies with the interval of their difference: the queries are
the same, so they are compared in pairs. A difference whose interval holds 0 is within the noise.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

import numpy as np
from _report import print_header
from scipy.stats import bootstrap

from hierrouter.config import PoolConfig
from hierrouter.data.queries import write_queries
from hierrouter.routes.calls import Part, ranks
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree


def other_pool(pool: PoolConfig, backend: str, dtype: str) -> PoolConfig:
    """The same pool on another backend."""
    changed = {"backend": backend, "dtype": dtype}
    models = [spec.model_copy(update=changed) for spec in pool.models]
    encoder = pool.encoder.model_copy(update={"model": "hashing"})
    return pool.model_copy(update={"models": models, "encoder": encoder})


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean of paired differences."""
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    found = bootstrap((differences,), np.mean, n_resamples=5000, rng=0, method="percentile")
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tree", type=Path, default=Path("studies/small_pool"))
    parser.add_argument("--per-task", type=int, default=10, help="queries of each task (10)")
    parser.add_argument("--backend", default="transformers", help="the other backend")
    parser.add_argument("--dtype", default="auto", help="its number format (auto)")
    parser.add_argument("--out", type=Path, default=Path("runs/backend_accuracy"))
    given = parser.parse_args()
    recorded = RouteTree(given.tree)
    pool = PoolConfig.model_validate(recorded.info["pool"])
    rank = ranks(recorded.queries)
    queries = [each for each in recorded.queries if rank[each.query_id] < given.per_task]
    write_queries(given.out / "queries.parquet", queries)
    asked = other_pool(pool, given.backend, given.dtype)
    collect_routes(asked, given.out / "queries.parquet", given.out / "tree", Part(direct=True))
    other = RouteTree(given.out / "tree")
    scores = read_scores(given.tree)[1], read_scores(given.out / "tree")[1]
    print_header("Two backends, the same questions", "openvino-genai", "transformers", "torch")
    tasks = list(dict.fromkeys(query.task for query in queries))
    print(f"{'model':<18}{'task':<15}{'n':>4}  recorded  other  difference (95 %)  same replies")
    for spec in pool.models:
        rows = {task: [] for task in tasks}
        for query in queries:
            place = NodeKey(query.query_id, (spec.name,), "solve")
            first, second = (each.get(place) for each in scores)
            if first is None or second is None:
                continue
            same = recorded.nodes[place].reply == other.nodes[place].reply
            right = first.metrics["accuracy"], second.metrics["accuracy"]
            rows[query.task].append((*right, float(same)))
        for task in [*tasks, "all"]:
            pairs = np.array(rows[task] if task != "all" else [*chain(*rows.values())])
            if not len(pairs):
                continue
            low, high = interval(pairs[:, 1] - pairs[:, 0])
            mean = pairs.mean(axis=0)
            noise = "" if low <= 0 <= high else "  beyond the noise"
            print(
                f"{spec.name:<18}{task:<15}{len(pairs):>4}  {mean[0]:8.3f}  {mean[1]:5.3f}  "
                f"{mean[1] - mean[0]:+.3f} ({low:+.3f} to {high:+.3f})  {mean[2]:13.0%}{noise}"
            )


if __name__ == "__main__":
    main()

"""A million outcomes imported: how long it takes, in how much memory, and how that grows.

    python benchmarks/import_outcomes.py [--rows 1000000] [--models 10] [--kind csv] [--runs 2]

Makes a file of synthetic outcomes (prompts of about 300 characters; as many rows as said, and a
tenth of them for comparison) and vectors of its prompts, 384 wide, in a temporary folder. Each run
is a process of its own that imports the file with these vectors at hand, so that no encoder's speed
is measured, and then loads the tree as evaluation does. `--shuffled` puts the rows in the order of
their models, so that the rows of a query are far apart. `--template` starts every prompt with the
same forty words, which makes finding near-duplicates hard.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from _report import mean_interval, print_header

from hierrouter.config import Config, PoolConfig
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.load import load_outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 384
TASKS = ("code", "law", "chat")
QUERIES_AT_ONCE = 2000


def prompts(count: int, template: bool) -> list[str]:
    """Synthetic prompts of about 300 characters."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(20_000)]
    start = " ".join(draw.choices(words, k=20)) + " " if template else ""
    own = 15 if template else 34
    return [start + " ".join(draw.choices(words, k=own)) for _ in range(count)]


def tables(texts: list[str], models: int, by_model: bool) -> Iterator[pa.Table]:
    """The outcomes, some thousand rows at a time."""
    draw = np.random.default_rng(1)
    spans = [
        (at, min(at + QUERIES_AT_ONCE, len(texts))) for at in range(0, len(texts), QUERIES_AT_ONCE)
    ]
    groups = [[model] for model in range(models)] if by_model else [list(range(models))]
    for group in groups:
        for start, end in spans:
            query = np.repeat(np.arange(start, end), len(group))
            model = np.tile(group, end - start)
            yield pa.table(
                {
                    "query_id": [f"q{number}" for number in query],
                    "task": [TASKS[number % 3] for number in query],
                    "prompt": [texts[number] for number in query],
                    "model": [f"vendor/model-{number}" for number in model],
                    "score": draw.integers(0, 2, len(query)).astype(float),
                    "cost": draw.uniform(0.0001, 0.01, len(query)),
                }
            )


def make(folder: Path, rows: int, given: argparse.Namespace) -> None:
    """Writes the file of outcomes and its vectors."""
    texts = prompts(rows // given.models, given.template)
    path = folder / f"outcomes.{given.kind}"
    parts = tables(texts, given.models, given.shuffled)
    if given.kind == "jsonl":
        with path.open("w") as file:
            for part in parts:
                file.writelines(json.dumps(row) + "\n" for row in part.to_pylist())
    else:
        first = next(parts)
        writer = pacsv.CSVWriter if given.kind == "csv" else pq.ParquetWriter
        with writer(str(path), first.schema) as out:
            out.write_table(first)
            for part in parts:
                out.write_table(part)
    vectors = np.random.default_rng(2).normal(size=(len(texts), WIDTH)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)


def measure(folder: Path, kind: str) -> dict[str, float]:
    """One run, in a process that has done nothing else."""
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    out = folder / "tree"
    file, vectors = folder / f"outcomes.{kind}", folder / "vectors.npy"
    import_outcomes(file, out, Config(pool=PoolConfig()), embeddings=vectors)
    took, worked = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    outcomes = load_outcomes(out, "accuracy", moves="direct")
    return {
        "import, s": took,
        "import, processor seconds": worked,
        "memory at its peak, MB": peak / 1e3,
        "of which before the import, MB": empty / 1e3,
        f"loading all {len(outcomes):,} queries, s": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows (1000000)")
    parser.add_argument("--models", type=int, default=10, help="models (10)")
    parser.add_argument("--kind", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--runs", type=int, default=2, help="runs, at least 2 (2)")
    parser.add_argument("--shuffled", action="store_true", help="rows model by model")
    parser.add_argument("--template", action="store_true", help="prompts from one template")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make is not None:
        make(given.make, given.rows, given)
        return
    if given.measure is not None:
        print(json.dumps(measure(given.measure, given.kind)))
        return
    print_header("Importing outcomes", "pyarrow", "pandas", "numpy")
    peaks = []
    for rows in (given.rows // 10, given.rows):
        runs = []
        for _ in range(given.runs):
            with tempfile.TemporaryDirectory() as folder:
                # In a process of its own: what a parent once held counts as a child's peak.
                command = [sys.executable, __file__, *sys.argv[1:], "--rows", str(rows)]
                subprocess.run([*command, "--make", folder], check=True)
                size = (Path(folder) / f"outcomes.{given.kind}").stat().st_size
                command = [*command, "--measure", folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs.append(json.loads(done.stdout))
        print(f"\n{rows:,} rows, {given.kind}, {size / 1e6:.0f} MB; {given.runs} runs")
        for name in runs[0]:
            print(f"{name:<45} {mean_interval([run[name] for run in runs])}")
        seconds = float(np.mean([run["import, s"] for run in runs]))
        print(f"{'rows/s':<45} {rows / seconds:,.0f}")
        peaks.append(float(np.mean([run["memory at its peak, MB"] for run in runs])))
    print(f"\nmemory grows by {1e6 * (peaks[1] - peaks[0]) / (0.9 * given.rows):.0f} bytes a row")


if __name__ == "__main__":
    main()

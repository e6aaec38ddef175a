"""A tree of a million recorded nodes: how long resuming and looking up take, in how much memory.

    python benchmarks/store_scale.py [--nodes 1000000] [--runs 5]

Makes a compacted tree of synthetic replies (60 words each; three models, two hops: 15 nodes a
query) in a temporary folder. Each run is a process of its own that reads the sample, opens the tree
for recording and finds that nothing is missing (`resume`: what `hierrouter collect` does before it
asks a model), reads nodes in the order of their queries and at random places, and appends a unit of
360 nodes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import mean_interval, print_header

from hierrouter.config import EncoderConfig, ModelSpec, PoolConfig, ScriptedSkills
from hierrouter.data.queries import Query, read_queries, write_queries
from hierrouter.progress import say
from hierrouter.routes.nodes import Node, NodeKey, NodeWriter, full_tree
from hierrouter.routes.recorder import Recorder
from hierrouter.routes.tree import RouteTree

MODELS = ("a", "b", "c")
SAMPLE = "sample.parquet"
CALLS = [call for depth in (1, 2) for call in full_tree(MODELS, 2, depth)]
ORDERED, AT_RANDOM, UNIT = 30_000, 300, 24


def pool() -> PoolConfig:
    """Three scripted models, two hops."""
    models = [
        ModelSpec(
            name=name, model=name, backend="scripted", scripted=ScriptedSkills(), base_rate=0.001
        )
        for name in MODELS
    ]
    return PoolConfig(models=models, encoder=EncoderConfig(model="hashing"))


def query(number: int) -> Query:
    """A synthetic query."""
    kind = {"kind": "number"}
    return Query(f"t/{number}", "t", "train", 0, f"What is {number}?", ("0",), "0", (), kind)


def nodes_of(number: int, words: list[str], random_: random.Random) -> list[Node]:
    """All nodes of one query."""
    made = "stop", 1.0, -0.1, -2.0, "int8", "openvino", "cpu"
    return [
        Node(
            f"t/{number}",
            models,
            role,
            " ".join(random_.choices(words, k=60)),
            100,
            60,
            *made,
            hashlib.sha256(f"{number}{models}{role}".encode()).hexdigest(),
        )
        for models, role in CALLS
    ]


def make(folder: Path, nodes: int) -> int:
    """Writes the tree, and the sample beside it; returns the size of its nodes in bytes."""
    queries = nodes // len(CALLS)
    sample = [query(number) for number in range(queries)]
    write_queries(folder.with_name(SAMPLE), sample)
    RouteTree.create_or_open(folder, pool(), sample, {})
    words = [hashlib.md5(str(number).encode()).hexdigest()[:6] for number in range(5000)]
    random_ = random.Random(0)
    path = folder / "nodes" / "00000-to-99999.parquet"
    with NodeWriter(path) as writer:
        for first in range(0, queries, 1024):
            few = range(first, min(first + 1024, queries))
            writer.add([node for number in few for node in nodes_of(number, words, random_)])
    return path.stat().st_size


def measure(folder: Path) -> dict[str, float]:
    """One run, in a process that has done nothing else."""
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    sample = read_queries(folder.with_name(SAMPLE))
    tree = RouteTree.create_or_open(folder, pool(), sample, {})
    opened = time.perf_counter()
    Recorder(tree, pool()).record()
    resumed = time.perf_counter()
    figures = {
        "open, s": opened - started,
        "resume (open and find nothing missing), s": resumed - started,
        "memory of resuming, MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - empty)
        / 1e3,
    }
    queries = len(tree.queries)
    places = [
        NodeKey(f"t/{number}", models, role)
        for number in range(ORDERED // len(CALLS))
        for models, role in CALLS
    ]
    started = time.perf_counter()
    for place in places:
        tree.nodes[place]
    figures["a node read, in order, us"] = (time.perf_counter() - started) / len(places) * 1e6
    draw = random.Random(1)
    places = [NodeKey(f"t/{draw.randrange(queries)}", *draw.choice(CALLS)) for _ in range(300)]
    started = time.perf_counter()
    for place in places:
        tree.nodes[place]
    figures["a node read, at random, ms"] = (time.perf_counter() - started) / len(places) * 1e3
    unit = [node for n in range(UNIT) for node in nodes_of(queries + n, ["word"], draw)]
    started = time.perf_counter()
    tree.commit("99999-hop0", unit)
    figures[f"{len(unit)} nodes appended, ms"] = (time.perf_counter() - started) * 1e3
    tree.nodes.files()[-1].unlink()
    figures["memory at the end, MB"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - empty
    ) / 1e3
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1_000_000, help="nodes (1000000)")
    parser.add_argument("--runs", type=int, default=5, help="runs, at least 2 (5)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return
    print_header("A large route tree", "pyarrow", "pandas", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        size = make(Path(folder) / "tree", given.nodes)
        nodes = given.nodes // len(CALLS) * len(CALLS)
        print(f"{nodes} nodes in one file of {size / 1e6:.0f} MB; {given.runs} runs\n")
        command = [sys.executable, __file__, "--measure", f"{folder}/tree"]
        runs = []
        for number in range(given.runs):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout))
            say(f"run {number + 1} of {given.runs}")
    for name in runs[0]:
        print(f"{name:<45} {mean_interval([run[name] for run in runs])}")


if __name__ == "__main__":
    main()

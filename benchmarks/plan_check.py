"""Does `hierrouter plan` foretell what recording then takes?

    python benchmarks/plan_check.py --tree DIR --known N [--skip N] [--until N] [--direct]
        [--off 0.2]

Takes a recorded tree as the truth: plans from the first N queries of each task, as if only those
were recorded, how much recording the others takes, up to the greatest number of queries a task of
which all nodes are there, and compares with what they took. Printed for nodes, generations,
tokens, dollars, hours and bytes: planned, real, and planned / real.

Real hours are recorded latencies added up call by call of the backends (the time that a unit's
slowest reply took, with OpenVINO), so loading models, scoring and embedding are in neither. They
are those of the machines that recorded the tree, whatever else ran there: with --skip and --until
queries before and after those of one machine are left out of everything. Latencies of the
transformers backend do not tell them, and hours are not judged then. N must fill whole units,
since what a unit takes is known only as a whole.

Exit code 1 if tokens, dollars or hours are off by more than --off.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from _report import print_header

from hierrouter.config import PoolConfig
from hierrouter.data.queries import write_queries
from hierrouter.errors import HierRouterError
from hierrouter.files import write_json
from hierrouter.routes.calls import Part, planned_calls, ranks, unit_numbers
from hierrouter.routes.nodes import write_nodes
from hierrouter.routes.plan import plan_recording
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hierrouter.routes.nodes import NodeKey

JUDGED = ("tokens_in", "tokens_out", "dollars", "seconds")
SHOWN = ("nodes", "generations", *JUDGED, "bytes")


def whole_queries(tree: RouteTree, pool: PoolConfig, direct: bool) -> int:
    """The greatest n such that all nodes of the first n queries of each task are recorded."""
    rank = ranks(tree.queries)
    missing = [
        rank[call.query.query_id]
        for call in planned_calls(tree.queries, pool, Part(direct=direct))
        if call.place not in tree.nodes
    ]
    return min(missing, default=max(rank.values()) + 1)


def middle_of(tree: RouteTree, skip: int, until: int, folder: Path) -> RouteTree:
    """The same tree with the queries of each task from number `skip` on, before `until`."""
    rank = ranks(tree.queries)
    chosen = [query for query in tree.queries if skip <= rank[query.query_id] < until]
    known = {query.query_id for query in chosen}
    write_queries(folder / "queries.parquet", chosen)
    return copied(tree, folder, lambda place: place.query_id in known)


def part_of(tree: RouteTree, places: Collection[NodeKey], folder: Path) -> RouteTree:
    """The same tree with these nodes only."""
    write_queries(folder / "queries.parquet", tree.queries)
    return copied(tree, folder, lambda place: place in places)


def copied(tree: RouteTree, folder: Path, wanted: Callable[[NodeKey], bool]) -> RouteTree:
    """A tree in a folder that has its queries, with the wanted nodes of another."""
    write_json(folder / "tree.json", tree.info)
    for path in tree.nodes.files():
        kept = [node for node in tree.nodes.stream({path}) if wanted(node.place)]
        if kept:
            write_nodes(folder / "nodes" / path.name, kept)
    return RouteTree(folder)


def label_of(name: str) -> str:
    """How a figure is called in the table."""
    return "hours" if name == "seconds" else name.replace("_", " ")


def compare(tree: RouteTree, known: int, direct: bool, off: float) -> bool:
    """Prints the comparison; whether every judged figure is near enough."""
    pool = PoolConfig.model_validate(tree.info["pool"])
    size, rank = pool.queries_per_unit, ranks(tree.queries)
    most = whole_queries(tree, pool, direct)
    if not 0 < known < most:
        raise HierRouterError(
            f"--known {known}: {most} queries of each task are recorded whole; give less than that"
        )
    units = unit_numbers(tree.queries, size)
    first, others = (
        {units[q] for q, at in rank.items() if (at < known) == side} for side in (1, 0)
    )
    if first & others:
        raise HierRouterError(f"--known {known} splits a unit of {size} queries")
    wanted = [call.place for call in planned_calls(tree.queries, pool, Part(most, direct))]
    before = {place for place in wanted if rank[place.query_id] < known}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        part = Part(most, direct)
        early = part_of(tree, before, Path(one))
        planned = plan_recording(pool, tree.queries, part, early)
        late = part_of(tree, set(wanted) - before, Path(two))
        taken = plan_recording(pool, tree.queries, part, late)
    real = taken.recorded
    timed = {planned.hours_from, taken.hours_from} == {"latencies"}
    judged = JUDGED if timed else JUDGED[:-1]
    print(
        f"{'direct answers' if direct else 'all nodes'}: the first {known} queries of each task "
        f"are known, those up to {most} are planned; made on {', '.join(taken.made_on)}\n"
    )
    print(f"{'':12} {'planned':>14} {'real':>14} {'ratio':>7}")
    good = True
    for name in SHOWN:
        mine, truth = getattr(planned.left, name), getattr(real, name)
        ratio = mine / truth if truth else (inf if mine else 1.0)
        near = name not in judged or abs(ratio - 1) <= off
        good &= near
        unit = 3600.0 if name == "seconds" else 1.0
        form = ",.4f" if name in ("dollars", "seconds") else ",.0f"
        print(
            f"{label_of(name):12} {mine / unit:>14{form}} {truth / unit:>14{form}} {ratio:>7.3f}"
            f"{'' if near else '  FAIL'}"
        )
    if not timed:
        print("\nhours are not judged: recorded latencies do not tell how long calls took")
    print(f"\n{'PASS' if good else 'FAIL'}: {', '.join(map(label_of, judged))} within {off:.0%}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, required=True, help="a recorded tree")
    parser.add_argument("--known", type=int, required=True, help="queries a task to plan from")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first N a task (0)")
    parser.add_argument("--until", type=int, help="look at the first N a task alone (at all)")
    parser.add_argument("--direct", action="store_true", help="only direct answers")
    parser.add_argument("--off", type=float, default=0.2, help="greatest error allowed (0.2)")
    given = parser.parse_args()
    print_header("A plan against what was then recorded", "pyarrow", "pydantic")
    try:
        with tempfile.TemporaryDirectory() as folder:
            tree = RouteTree(given.tree)
            if given.skip or given.until:
                until = given.until or len(tree.queries)
                tree = middle_of(tree, given.skip, until, Path(folder))
                print(f"the first {given.skip} queries of each task are left out and not counted")
            good = compare(tree, given.known, given.direct, given.off)
    except HierRouterError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

"""Looking after a route tree from the command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from hierrouter.cli.imported import print_imported
from hierrouter.config import PoolConfig
from hierrouter.errors import HierRouterError
from hierrouter.progress import duration, say
from hierrouter.routes.calls import Part, branches, ranks
from hierrouter.routes.costs import call_cost
from hierrouter.routes.imported.store import is_imported
from hierrouter.routes.journal import read_journal
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.scores import read_scores, score_tree
from hierrouter.routes.tree import RouteTree, read_info, read_recorded
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.routes.nodes import Node
    from hierrouter.routes.scores import NodeScore


@dataclass
class _Group:
    """Nodes of one model and role, added up."""

    nodes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cut: int = 0
    made: Counter[str] = field(default_factory=Counter)

    def add(self, node: Node) -> None:
        self.nodes += 1
        self.tokens_in += node.tokens_in
        self.tokens_out += node.tokens_out
        self.cut += node.finish_reason == "length"
        self.made[f"{node.backend} {node.device} {node.dtype}"] += 1


def print_info(folder: Path, per_task: int | None = None) -> None:
    """Prints what a tree holds.

    Args:
        folder: the tree.
        per_task: only the first so many queries of each task are in the table of direct answers.
    """
    info = read_info(folder)
    out = Console(highlight=False, markup=False, emoji=False)
    if is_imported(info):
        print_imported(out, folder, info)
        return
    tree = RouteTree(folder)
    pool = PoolConfig.model_validate(tree.info["pool"])
    out.print(
        f"{folder}: {len(tree.queries)} queries, {len(tree.nodes)} nodes, L = {pool.hops}, "
        f"format {tree.info['format_version']}, digest {tree.digest()[:16]}",
        soft_wrap=True,
    )
    table = Table(
        Column("model", no_wrap=True),
        "role",
        "nodes",
        "tokens in",
        "tokens out",
        "cut off",
        "made on",
    )
    groups: dict[tuple[str, str], _Group] = {}
    rates = {spec.name: spec.rate for spec in (*pool.models, *pool.references)}
    # Nodes that share a generation were paid for once.
    paid: dict[str, float] = {}
    for node in tree.nodes.stream():
        groups.setdefault((node.models[-1], node.role), _Group()).add(node)
        rate = rates.get(node.models[-1], 0.0)
        paid.setdefault(node.key, call_cost(rate, node.tokens_in, node.tokens_out))
    for (model, role), group in sorted(groups.items()):
        table.add_row(
            model,
            role,
            str(group.nodes),
            str(group.tokens_in),
            str(group.tokens_out),
            f"{group.cut / group.nodes:.0%}",
            ", ".join(group.made),
        )
    out.print(table)
    direct, whole = (_complete(tree, pool, Part(direct=only)) for only in (True, False))
    out.print(f"queries with all direct answers: {direct}, with all nodes: {whole}")
    made: dict[str, tuple[int, float]] = {}
    noted = 0
    for entry in read_journal(folder):
        nodes, seconds = made.get(entry["machine"], (0, 0.0))
        made[entry["machine"]] = nodes + entry["nodes"], seconds + entry["seconds"]
        noted += entry["nodes"]
    for machine, (nodes, seconds) in made.items():
        out.print(f"recorded: {nodes} nodes in {duration(seconds)} on {machine}", soft_wrap=True)
    if noted < len(tree.nodes):
        out.print(f"recorded: {len(tree.nodes) - noted} nodes that no journal tells of")
    if (folder / "scores.parquet").exists():
        _, scores = read_scores(folder)
        out.print(_direct_answers(tree, pool, scores, per_task))
    out.print(f"cost of all calls: ${sum(paid.values()):.4f}")


def _complete(tree: RouteTree, pool: PoolConfig, part: Part) -> int:
    """How many queries have every node of `part`."""
    there = np.ones(len(tree.queries), dtype=np.bool_)
    for branch in branches(tree.queries, pool, part):
        ids = [query.query_id for query in branch.queries]
        there &= ~tree.nodes.absent(ids, branch.models, branch.role)
    return int(there.sum())


def _direct_answers(
    tree: RouteTree,
    pool: PoolConfig,
    scores: dict[NodeKey, NodeScore],
    per_task: int | None,
) -> Table:
    """How good, how long and how often cut off each model's direct answers are, by task."""
    table = Table(
        Column("direct answers", no_wrap=True), "task", "n", "accuracy", "tokens out", "cut off"
    )
    rank = ranks(tree.queries)
    for spec in (*pool.models, *pool.references):
        rows: dict[str, list[tuple[float, int, bool]]] = {}
        for query in tree.queries:
            if per_task is not None and rank[query.query_id] >= per_task:
                continue
            place = NodeKey(query.query_id, (spec.name,), "solve")
            node, score = tree.nodes.get(place), scores.get(place)
            if node is not None and score is not None:
                cut = node.finish_reason == "length"
                right = float(score.metrics["accuracy"] or 0.0)
                rows.setdefault(query.task, []).append((right, node.tokens_out, cut))
        for task, found in rows.items():
            right, tokens, cut = np.mean(found, axis=0)
            table.add_row(
                spec.name, task, str(len(found)), f"{right:.3f}", f"{tokens:.0f}", f"{cut:.0%}"
            )
    return table


def verify(folder: Path, keys: bool) -> None:
    """Checks a tree.

    Raises:
        HierRouterError: something is wrong; each fault was printed.
    """
    faults = verify_tree(folder, keys)
    for fault in faults:
        say(fault)
    if faults:
        raise HierRouterError(f"{folder}: {len(faults)} fault(s), see above")
    say(f"{folder}: no fault found")


def rescore(folder: Path, pool: PoolConfig | None) -> None:
    """Scores a tree anew, with the rates of `pool` if one is given.

    Raises:
        ConfigError: `pool` is another pool than the tree's.
    """
    read_recorded(folder)  # Refuses any other folder before a lock is put into it.
    with sole_writer(folder):
        tree = RouteTree(folder)
        if pool is not None:
            tree.take_rates(pool)
        score_tree(tree, anew=True)
    say(f"rescored: {folder / 'scores.parquet'}")

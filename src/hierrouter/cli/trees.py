"""Looking after a route tree from the command line."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hierrouter.config import PoolConfig
from hierrouter.progress import say
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.scores import read_scores, score_tree
from hierrouter.routes.tree import RouteTree, read_info

if TYPE_CHECKING:
    from pathlib import Path


def print_info(folder: Path) -> None:
    """Prints what a tree holds."""
    tree = RouteTree(folder)
    pool = PoolConfig.model_validate(tree.info["pool"])
    out = Console(highlight=False, markup=False, emoji=False)
    out.print(
        f"{folder}: {len(tree.queries)} queries, {len(tree.nodes)} nodes, L = {pool.hops}, "
        f"format {tree.info['format_version']}, digest {tree.digest()[:16]}",
        soft_wrap=True,
    )
    table = Table("model", "role", "nodes", "tokens in", "tokens out", "cut off", "made on")
    kinds = sorted({(node.models[-1], node.role) for node in tree.nodes.values()})
    for model, role in kinds:
        nodes = [n for n in tree.nodes.values() if (n.models[-1], n.role) == (model, role)]
        cut = sum(node.finish_reason == "length" for node in nodes)
        made = Counter(f"{node.backend} {node.device} {node.dtype}" for node in nodes)
        table.add_row(
            model,
            role,
            str(len(nodes)),
            str(sum(node.tokens_in for node in nodes)),
            str(sum(node.tokens_out for node in nodes)),
            f"{cut / len(nodes):.0%}",
            ", ".join(made),
        )
    out.print(table)
    if (folder / "scores.parquet").exists():
        _, scores = read_scores(folder)
        out.print(f"cost of all calls: ${sum(score.cost for score in scores.values()):.4f}")


def rescore(folder: Path, pool: PoolConfig | None) -> None:
    """Scores a tree anew, with the rates of `pool` if one is given.

    Raises:
        ConfigError: `pool` is another pool than the tree's.
    """
    read_info(folder)  # Refuses any other folder before a lock is put into it.
    with sole_writer(folder):
        tree = RouteTree(folder)
        if pool is not None:
            tree.take_rates(pool)
        score_tree(tree, anew=True)
    say(f"rescored: {folder / 'scores.parquet'}")

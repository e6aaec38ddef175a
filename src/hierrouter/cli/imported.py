"""What `hierrouter tree info` says of imported outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Column, Table

from hierrouter.routes.imported.store import names_of, read_columns, read_table
from hierrouter.routes.tree import QUERIES

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def print_imported(out: Console, folder: Path, info: dict[str, Any]) -> None:
    """Prints how many outcomes there are, and how good and dear each model is, by task."""
    said = info["outcomes"]
    out.print(
        f"{folder}: imported outcomes of {said['queries']:,} queries ({said['outcomes']:,} of "
        f"{said['rows']:,} rows of {said['file']}), format {info['format_version']}, digest "
        f"{said['tree_digest'][:16]}",
        soft_wrap=True,
    )
    models, references = names_of(info)
    names = [*models, *references]
    queries = read_columns(folder, info, QUERIES, ("task", "split"))
    tasks = np.array(queries["task"].to_pylist())
    train = int((queries["split"].to_numpy() == "train").sum())
    score, cost = (read_table(folder, info, names, each) for each in ("score", "cost"))
    whole = int((~np.isnan(score)).all(axis=1).sum())
    out.print(
        f"train: {train:,}, test: {len(tasks) - train:,}, queries with the outcomes of all models: "
        f"{whole:,}"
    )
    table = Table(
        Column("model", no_wrap=True), "called", "task", "n", "score", "mean cost, dollars"
    )
    for number, name in enumerate(names):
        for task in np.unique(tasks):
            mine = (tasks == task) & ~np.isnan(score[:, number])
            if mine.any():
                table.add_row(
                    name,
                    said["called"][name],
                    str(task),
                    str(int(mine.sum())),
                    f"{score[mine, number].mean():.3f}",
                    f"{cost[mine, number].mean():.6g}",
                )
    out.print(table)

"""What recording will take, as a table: `hierrouter plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from hierrouter.data.queries import read_queries
from hierrouter.progress import duration
from hierrouter.routes.plan import plan_recording, stand_ins
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import Config
    from hierrouter.routes.amounts import Amount, Plan
    from hierrouter.routes.calls import Part
    from hierrouter.routes.estimate import Pace

HOURS = {
    "latencies": "hours from their latencies",
    "recordings": "hours from the durations of whole recordings",
    "sizes": "hours by model sizes, as nothing tells how long they take",
}
COLUMNS = ("nodes", "recorded", "generated", "tokens in", "tokens out", "hours", "dollars", "MB")
FILE_WIDTH = 120
"""Columns of the table where it does not go to a terminal."""


def print_plan(
    config: Config,
    folder: Path | None,
    queries: Path | None,
    part: Part,
    accelerators: int,
    pace: Pace | None = None,
) -> None:
    """Prints what a part of a tree takes, and what of it is left.

    Args:
        config: the experiment.
        folder: a tree of its pool, from which is estimated; none: from limits and model sizes.
        queries: what is asked; none: the tree's queries, or else so many as the config says.
        part: what of it is wanted.
        accelerators: how many recorders share the work.
        pace: what will run the models; none: this machine, or what recorded the tree.

    Raises:
        ConfigError: the tree is that of another pool.
        HierRouterError: there is no tree in `folder`, or no sample in `queries`.
    """
    tree = None if folder is None else RouteTree(folder)
    if queries is not None:
        sample = read_queries(queries / "queries.parquet" if queries.is_dir() else queries)
    else:
        sample = stand_ins(config.data) if tree is None else tree.queries
    plan = plan_recording(config.pool, sample, part, tree, pace)
    remarks = _remarks(plan, accelerators)
    if config.training.fill:
        remarks.append(
            "only direct answers, as training.fill records the other nodes when episodes visit "
            'them; how many at most: "Pools with too many routes" in docs/training.md'
        )
    if any(spec.backend == "openai" for spec in (*config.pool.models, *config.pool.references)):
        remarks.append(
            "endpoints: as if each were one GPU, until replies of theirs are recorded (--tree)"
        )
    out = Console(highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = max(out.width, FILE_WIDTH)
    out.print(_table(plan))
    for line in remarks:
        out.print(line, soft_wrap=True)


def _table(plan: Plan) -> Table:
    """One row a kind of call, then the sums."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("hop", "role", "model", "based on"):
        table.add_column(column, overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", overflow="fold")
    for row in plan.rows:
        hop, role, model = row.kind
        shared = row.left.nodes and not row.left.generations
        cells = _cells(plan, row.recorded + row.left, row.recorded.nodes)
        table.add_row(str(hop), role, model, "shared" if shared else row.basis, *cells)
    table.add_section()
    recorded, left = plan.recorded, plan.left
    table.add_row("", "", "all", "", *_cells(plan, recorded + left, recorded.nodes))
    if recorded.nodes:
        table.add_row("", "", "recorded", "", *_cells(plan, recorded, recorded.nodes))
        table.add_row("", "", "left", "", *_cells(plan, left, 0))
    return table


def _cells(plan: Plan, amount: Amount, recorded: float) -> list[str]:
    """One amount as the cells of COLUMNS."""
    return [
        f"{amount.nodes:,.0f}",
        f"{recorded:,.0f}",
        f"{amount.generations:,.0f}",
        f"{amount.tokens_in:,.0f}",
        f"{amount.tokens_out:,.0f}",
        f"{amount.seconds / 3600:.2f}",
        f"{amount.dollars:.4f}",
        f"{plan.storage(amount) / 1e6:.1f}",
    ]


def _remarks(plan: Plan, accelerators: int) -> list[str]:
    """What is left in words, and how far it can be relied on."""
    lines = [f"left for one accelerator: {duration(plan.seconds_on(1))}, loading models included"]
    if accelerators > 1:
        longest = duration(plan.seconds_on(accelerators))
        lines.append(f"for {accelerators}: {longest}, the longest of {accelerators} shards")
    if plan.servers > 1:
        lines.append(
            "servers are asked side by side, so their hours overlap; with --max-dollars they do not"
        )
    if plan.made_on:
        lines.append(
            f"estimated from {plan.measured_nodes:,} recorded nodes ({', '.join(plan.made_on)}), "
            f"{HOURS[plan.hours_from]}; where a kind of call is not recorded yet for every task, "
            "from relatives (other nodes of its model) or a share of its token limits"
        )
        if plan.machines > 1 and plan.hours_from != "sizes":
            lines.append(
                f"{plan.machines} machines recorded the tree (`hierrouter tree info` names them): "
                "hours are a mean of theirs"
            )
    else:
        lines.append(
            "rough: by token limits and model sizes; for a good estimate record a few queries "
            "(`hierrouter collect --per-task 10`), then plan with --tree"
        )
    lines.append("not counted: embedding, scoring, downloading and converting models")
    return lines

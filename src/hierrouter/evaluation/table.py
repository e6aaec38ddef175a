"""The results as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from hierrouter.evaluation.verdict import (
    crossed_part,
    headroom_said,
    in_parts,
    lead,
    rivals,
    shortened,
    verdict,
)

if TYPE_CHECKING:
    from hierrouter.evaluation.statistics.intervals import Interval


def spread(interval: Interval) -> str:
    """A mean with the ends of its interval."""
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def task_policies(metrics: dict[str, Any]) -> list[str]:
    """Whose quality is shown task by task.

    Args:
        metrics: the content of metrics.json.
    """
    return ["router", *rivals(metrics)]


def policy_rows(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The shown policies: name, quality, relative cost, and reward with its interval.

    Args:
        metrics: the content of metrics.json.
    """
    names, _ = shortened(metrics)
    return [
        (
            name,
            f"{metrics['policies'][name]['quality']['mean']:.3f}",
            f"{metrics['policies'][name]['relative_cost']['mean']:.3f}",
            spread(metrics["policies"][name]["reward"]),
        )
        for name in names
    ]


def policy_table(metrics: dict[str, Any]) -> Table:
    """One row a policy, at the headline alpha: quality, relative cost, and reward with interval.

    Args:
        metrics: the content of metrics.json.
    """
    _, left_out = shortened(metrics)
    confidence = f"{metrics['confidence']:.0%}"
    table = Table(
        title=f"{metrics['n_test']} test queries, alpha {metrics['alpha']:g}",
        caption=f"{left_out} more paths and cascades; the best of each kind by reward are shown"
        if left_out
        else None,
        title_justify="left",
        caption_justify="left",
    )
    # On a narrow terminal a long name goes on in the next line; a number is never cut.
    table.add_column("policy", overflow="fold")
    table.add_column(metrics["metric"], justify="right", no_wrap=True)
    table.add_column("relative cost", justify="right", no_wrap=True)
    table.add_column(f"reward [{confidence} interval]", justify="right", no_wrap=True)
    for name, *numbers in policy_rows(metrics):
        table.add_row(Text(name), *numbers, style="bold" if name == "router" else None)
    return table


def task_table(metrics: dict[str, Any]) -> Table:
    """One row a task: its test queries and the quality of `task_policies`.

    Args:
        metrics: the content of metrics.json.
    """
    table = Table(title=f"{metrics['metric']} by task", title_justify="left")
    table.add_column("task")
    table.add_column("n", justify="right")
    shown = task_policies(metrics)
    for name in shown:
        table.add_column(name, justify="right")
    for task, count in metrics["n_test_by_task"].items():
        means = [metrics["policies"][name]["tasks"][task]["quality"] for name in shown]
        table.add_row(Text(task), str(count), *(f"{mean['mean']:.3f}" for mean in means))
    return table


def summary(metrics: dict[str, Any]) -> Group:
    """Both tables, the verdicts, the headroom and the warnings, to be printed by rich.

    Where there are cross-fitted numbers, as in the report, their verdict stands first, and each is
    named.

    Args:
        metrics: the content of metrics.json.
    """
    crossed = crossed_part(metrics)
    notes = [*metrics["warnings"], *([] if crossed is None else crossed["warnings"])]
    said = [("", metrics)]
    if crossed is not None:
        said = [("Cross-fitted, the recipe: ", crossed), ("Test queries, this router: ", metrics)]
        if metrics["seeds"] > 1:
            said[1] = ("Test queries, this router and its siblings: ", metrics)
    return Group(
        policy_table(metrics),
        task_table(metrics),
        *(line for name, judged in said for line in _verdict_lines(name, judged)),
        *(Text(f"Note: {text}", style="yellow") for text in dict.fromkeys(notes)),
    )


def _verdict_lines(name: str, judged: dict[str, Any]) -> list[Text]:
    """Whether routing pays, the verdict, what is gained and saved, and the headroom."""
    first, parts, room = lead(judged), in_parts(judged), headroom_said(judged)
    whole = verdict(judged) if first is None else f"{first} {verdict(judged)}"
    return [
        Text(f"{name}{whole}", style="bold"),
        *(Text(line) for line in (parts, room) if line is not None),
    ]


def print_table(metrics: dict[str, Any], console: Console | None = None) -> None:
    """Prints the summary to standard output, or to `console`.

    Args:
        metrics: the content of metrics.json.
        console: where to print.
    """
    (console or Console(highlight=False)).print(summary(metrics))

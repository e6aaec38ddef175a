"""`hierrouter compare`: whether one evaluated router is better than another, for eyes and gates."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hierrouter.evaluation.verdict import FLOOR

if TYPE_CHECKING:
    from collections.abc import Mapping

WORSE = 3
"""Exit code of a gate that does not open; 1 and 2 are for what could not be compared."""


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Folders of evaluations, MLflow run ids, models:/NAME@ALIAS or models:/NAME/3; "
            "the others are compared with the first.",
        ),
    ],
    fail_if_worse: Annotated[
        bool,
        typer.Option("--fail-if-worse", help="Exit with 3 if one is shown to be worse."),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="REWARD",
            help="Exit with 3 unless each is shown to be less than this worse; 0: to be better.",
        ),
    ] = None,
    own: Annotated[
        bool,
        typer.Option("--own", help="Only the routers themselves, not those of other seeds."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print numbers for programs.")] = False,
) -> None:
    """Say how much better a router is than another, on queries that both were tested on."""
    from hierrouter.errors import ConfigError, HierRouterError
    from hierrouter.evaluation.versus.pairs import differences, read_tested
    from hierrouter.tracking.resolve import fetch_evaluation

    if len(runs) < 2:
        raise ConfigError("name two runs or more; the others are compared with the first")
    with tempfile.TemporaryDirectory(prefix="hierrouter-") as scratch:
        base, *others = (
            read_tested(run, fetch_evaluation(run, Path(scratch, str(number))))
            for number, run in enumerate(runs)
        )
    found = [differences(base, other, own) for other in others]
    gated = fail_if_worse or margin is not None
    if gated and (untold := [text for each in found for text in each["unchecked"]]):
        raise HierRouterError(
            f"no gate without these checks: it {untold[0]}; name a folder that `hierrouter run` "
            "made, an MLflow run or version, or copy the router's folder there"
        )
    if gated and (few := [each for each in found if each["n"] < FLOOR]):
        raise HierRouterError(
            f"no gate on {few[0]['n']} common test queries of {base.name} and {few[0]['run']}: too "
            f"few to tell, {FLOOR} are the least; evaluate both on a tree with more test queries"
        )
    for each in found:
        each["passed"] = passes(each["over_grid"]["reward"], fail_if_worse, margin)
    told = {
        "base": base.name,
        "metric": base.metrics["metric"],
        "confidence": base.metrics["confidence"],
        "cost_unit_usd": base.unit,
        "compared": found,
    }
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        _print(told)
    if not all(each["passed"] for each in found):
        raise typer.Exit(WORSE)


def passes(reward: Mapping[str, float], fail_if_worse: bool, margin: float | None) -> bool:
    """Whether a gate lets a router through.

    Args:
        reward: the difference in reward over the grid, with its one-sided bounds.
        fail_if_worse: whether it must not be shown to be worse.
        margin: how much worse it must be shown not to be; none: that is not asked.
    """
    # A router is no worse than itself, whatever the sums' last digits.
    near = 1e-12
    shown_worse = fail_if_worse and reward["at_most"] < -near
    in_doubt = margin is not None and not reward["at_least"] > (near if margin == 0 else -margin)
    return not (shown_worse or in_doubt)


def _print(told: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    for each in told["compared"]:
        console.print(_table(told, each))
        console.print(sentence(told["base"], each, told["confidence"]), style="bold", markup=False)


def _table(told: Mapping[str, Any], each: Mapping[str, Any]) -> Table:
    seeds = f", {each['seeds']} training seeds" if each["seeds"] > 1 else ""
    table = Table(
        title=Text(f"{each['run']} minus {told['base']}: {each['n']} test queries{seeds}"),
        caption=Text(
            f"Differences with {told['confidence']:.0%} intervals; {told['metric']} and reward in "
            f"points (hundredths), cost in units of ${told['cost_unit_usd']:.6g} a query."
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("alpha", no_wrap=True)
    for name in (told["metric"], "cost", "reward"):
        table.add_column(name, justify="right", no_wrap=True)
    for at in each["by_alpha"]:
        table.add_row(f"{at['alpha']:g}", *_cells(at))
    table.add_section()
    table.add_row("all", *_cells(each["over_grid"]), style="bold")
    return table


def _cells(entry: Mapping[str, Any]) -> list[str]:
    return [
        _span(entry["quality"], 100, 1),
        _span(entry["relative_cost"], 1, 2),
        _span(entry["reward"], 100, 1),
    ]


def _span(found: Mapping[str, float], scale: float, digits: int) -> str:
    mean, low, high = (_signed(scale * found[end], digits) for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def sentence(base: str, each: Mapping[str, Any], confidence: float) -> str:
    """The outcome in one line: reward, averaged over the grid.

    Args:
        base: what was compared with.
        each: one entry of `differences`.
        confidence: of the interval.
    """
    if each["n"] < FLOOR:
        return (
            f"{each['n']} common test queries are too few to call {each['run']} better or worse "
            f"than {base}; {FLOOR} are the least."
        )
    reward = each["over_grid"]["reward"]
    span = (
        f"{confidence:.0%} interval {_signed(100 * reward['low'], 1)} to "
        f"{_signed(100 * reward['high'], 1)}"
    )
    mean = 100 * reward["mean"]
    if reward["mean"] == reward["low"] == reward["high"] == 0:
        told = "gets exactly the reward of"
        return f"Over the alpha grid {each['run']} {told} {base}."
    if reward["low"] > 0:
        told = f"is {mean:.1f} points better than {base} ({span})"
    elif reward["high"] < 0:
        told = f"is {-mean:.1f} points worse than {base} ({span})"
    else:
        told = f"cannot be told apart from {base} (difference {_signed(mean, 1)} points, {span})"
    return f"Over the alpha grid {each['run']} {told}."


def _signed(value: float, digits: int) -> str:
    """A number with its sign; no minus before a zero."""
    shown = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(shown) == 0 else shown.replace("-", "−")

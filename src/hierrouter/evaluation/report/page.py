"""The whole page: what each part shows, and the policy that keeps it to itself."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hierrouter.evaluation.conduct import level_of
from hierrouter.evaluation.report.bars import differences, task_bars
from hierrouter.evaluation.report.learning import learning, told
from hierrouter.evaluation.report.plane import plane
from hierrouter.evaluation.report.sankey import sankey
from hierrouter.evaluation.report.scales import NARROW, WIDE
from hierrouter.evaluation.report.shapes import shape
from hierrouter.evaluation.report.words import FILTERS
from hierrouter.evaluation.table import task_policies
from hierrouter.evaluation.verdict import (
    FLOOR,
    crossed_part,
    headroom_said,
    in_parts,
    lead,
    rivals,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hierrouter.evaluation.report.examples import Example
    from hierrouter.evaluation.report.learning import Curve

WIDTHS = (("wide", WIDE), ("narrow", NARROW))
NEW_TASK = ("router", "router_with_task", "knn", "best_single", "best_path_per_task")
"""Whose reward is shown in a task that was left out of training."""


def render_report(
    metrics: dict[str, Any],
    curves: Mapping[str, Curve] | None = None,
    examples: Sequence[Example] = (),
) -> str:
    """The report, as HTML that needs nothing from outside and asks for nothing.

    Where there are cross-fitted numbers, the pictures and tables are of these.

    Args:
        metrics: the content of metrics.json.
        curves: the router's learning curves, by training seed.
        examples: queries with their replies.

    Returns:
        The page. Every name and text in it is escaped.
    """
    environment = Environment(
        loader=PackageLoader("hierrouter.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    style, script = (
        environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]
        for name in ("report.css", "report.js")
    )
    judged = judged_part(metrics)
    router = judged["policies"]["router"]
    routes = {task: entry["routes"] for task, entry in router["tasks"].items()}
    lines = {width: learning(curves or {}, pixels) for width, pixels in WIDTHS}
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        judged=judged,
        crossed="cross_fitted" in metrics,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        lead=lead(judged),
        verdict=verdict(judged),
        parts=in_parts(judged),
        own_verdict=verdict(metrics),
        siblings=_siblings(metrics["seeds"]),
        holm=_after_holm(judged),
        level=level_of(metrics["confidence"]),
        headroom=headroom_said(judged),
        rivals=rivals(judged),
        planes={name: plane(judged, pixels) for name, pixels in WIDTHS},
        shape=shape,
        bars=task_bars(judged, task_policies(judged)),
        routes=routes,
        sankeys={name: sankey(routes, metrics["models"], pixels) for name, pixels in WIDTHS},
        learning=lines if curves else None,
        learned=told(curves or {}),
        family=_family(judged),
        over_grid=differences(judged["over_grid"]),
        new_tasks=_new_tasks(metrics),
        hopping=metrics.get("hopping"),
        paper=_paper(metrics.get("paper")),
        examples=examples,
        facts=_facts(metrics),
    )


def judged_part(metrics: dict[str, Any]) -> dict[str, Any]:
    """The numbers that the report is about: the cross-fitted ones, where there are any.

    Args:
        metrics: the content of metrics.json.
    """
    return crossed_part(metrics) or metrics


def _policy(style: str, script: str) -> str:
    """The content security policy: our own style and script, and nothing else."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _siblings(seeds: int) -> str:
    """The routers beside the judged one, over which numbers on the test queries are means, too."""
    return "sibling of another seed" if seeds == 2 else f"{seeds - 1} siblings of other seeds"


def _after_holm(judged: dict[str, Any]) -> str | None:
    """What stands of the comparisons once it is counted how many there are."""
    if judged["n_test"] < FLOOR or not judged["family"]:
        return None
    family = judged["family"]
    named = [
        f"{entry} than {name}"
        for entry in ("better", "worse")
        for name, about in family.items()
        if about[entry]
    ]
    count = len(family)
    if not named:
        return f"Of all {count} comparisons together (Holm’s correction), no difference is certain."
    return f"Of all {count} comparisons together (Holm’s correction): {', '.join(named)}."


def _family(judged: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Each comparison: where its interval is drawn, and its numbers."""
    family = judged["family"]
    drawn = differences({name: entry["reward"] for name, entry in family.items()})
    return [(each, family[each.name]) for each in drawn]


def _new_tasks(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """By task that was left out: reward of some policies, which those are, and differences."""
    tasks = metrics.get("left_out_tasks")
    if not tasks:
        return None
    names = [name for name in NEW_TASK if all(name in entry for entry in tasks.values())]
    told = metrics.get("new_tasks")
    rows = {} if told is None else {**told["tasks"], f"all tasks ({told['n']})": told["all"]}
    return {"names": names, "tasks": tasks, "differences": rows}


def _paper(paper: dict[str, Any] | None) -> dict[str, Any] | None:
    """The paper's table beside ours: each row with the values of every task."""
    if not paper:
        return None
    return {
        "tasks": paper["tasks"],
        "sides": [("The paper", paper["theirs"]), ("This pool", paper["ours"])],
        "findings": paper["findings"],
    }


def _facts(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, as pairs of a name and its value."""
    origin, versions = metrics["router"], metrics["versions"]
    told = [
        ("test queries", str(metrics["n_test"])),
        ("training queries", str(metrics["n_train"])),
        ("models", ", ".join(metrics["models"])),
        ("hops, moves", f"{metrics['hops']}, {metrics['moves']}"),
        ("cost unit", f"{metrics['cost_unit_usd']:.6g} dollars"),
        ("alpha in training", " to ".join(f"{alpha:g}" for alpha in origin["alpha_range"])),
        ("data seed", str(origin["data_seed"])),
        ("training seed", str(origin["training_seed"])),
        ("training seeds judged", str(metrics["seeds"])),
        (
            "intervals",
            f"{metrics['resamples']} paired resamples within tasks, small tasks together",
        ),
        ("queries digest", origin["query_digest"]),
        ("tree digest", origin["tree_digest"]),
        ("router weights", origin["weights_sha256"]),
    ]
    for name, value in metrics.get("tree", {}).items():
        if name not in ("query_digest", "tree_digest"):
            told.append((f"judged on: {name.replace('_', ' ')}", str(value)))
    for name, value in metrics.get("evaluation", {}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        told.append((f"evaluation.{name}", shown))
    return [
        *told,
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
    ]

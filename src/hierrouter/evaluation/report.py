"""report.html: one self-contained page with the verdict, the numbers and a picture."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hierrouter.evaluation.chart import HEIGHT, WIDTH, chart
from hierrouter.evaluation.table import task_policies
from hierrouter.evaluation.verdict import rivals, shortened, verdict

ROUTES_SHOWN = 6
"""Most routes named for a task; the others are summed up."""


def render_report(metrics: dict[str, Any]) -> str:
    """The report, as HTML that needs nothing from outside.

    Args:
        metrics: the content of metrics.json.

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
    names, _ = shortened(metrics)
    router = metrics["policies"]["router"]
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        verdict=verdict(metrics),
        names=names,
        more=[name for name in metrics["policies"] if name not in names],
        task_policies=[
            *task_policies(metrics),
            *(name for name in ("oracle",) if name in metrics["policies"]),
        ],
        rivals=rivals(metrics),
        routes={
            "all tasks": _routes(router["routes"]),
            **{task: _routes(entry["routes"]) for task, entry in router["tasks"].items()},
        },
        chart=chart(metrics),
        width=WIDTH,
        height=HEIGHT,
        facts=_facts(metrics),
    )


def _routes(shares: dict[str, float]) -> list[tuple[str, float]]:
    """The most frequent routes with their shares, and the sum of the others."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    rest = ranked[ROUTES_SHOWN:]
    if not rest:
        return ranked
    return [*ranked[:ROUTES_SHOWN], (f"{len(rest)} others", sum(share for _, share in rest))]


def _facts(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, as pairs of a name and its value."""
    origin, versions = metrics["router"], metrics["versions"]
    return [
        ("test queries", str(metrics["n_test"])),
        ("training queries", str(metrics["n_train"])),
        ("models", ", ".join(metrics["models"])),
        ("hops, moves", f"{metrics['hops']}, {metrics['moves']}"),
        ("cost unit", f"{metrics['cost_unit_usd']:.6g} dollars"),
        ("alpha in training", " to ".join(f"{alpha:g}" for alpha in origin["alpha_range"])),
        ("data seed", str(origin["data_seed"])),
        ("training seed", str(origin["training_seed"])),
        (
            "intervals",
            f"{metrics['resamples']} paired resamples within tasks, small tasks together",
        ),
        ("queries digest", origin["query_digest"]),
        ("tree digest", origin["tree_digest"]),
        ("router weights", origin["weights_sha256"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
    ]

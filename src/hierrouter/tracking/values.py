"""What MLflow is told of a router and its evaluation: few enough numbers to compare by eye."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError
from hierrouter.files import digest_of
from hierrouter.learning.actions import allowed_actions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hierrouter.learning.router import RouterInfo

COMPARED = ("router", "random", "best_single", "best_path", "best_path_per_task", "knn", "oracle")
"""Policies that MLflow gets, beside every `single:A`; the others stay in metrics.json."""
MEASURES = ("quality", "cost", "reward")
LONGEST_PARAMETER = 6000
"""Characters of a parameter's value; MLflow refuses more."""

ROLES = ("analyze", "solve")


def choices(info: RouterInfo) -> dict[str, int]:
    """What the router can do first, as `MODEL/role`, with the index of the action."""
    allowed = allowed_actions(len(info.models), info.hops, info.moves)[0]
    return {
        f"{model}/{role}": 2 * number + position
        for number, model in enumerate(info.models)
        for position, role in enumerate(ROLES)
        if allowed[2 * number + position]
    }


def parameters(info: RouterInfo, evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Every setting by its dotted path; models by name, so that pools can be compared."""
    found = {}
    for part, values in {**info.config, "evaluation": evaluation}.items():
        for path, value in _leaves(values, part):
            text = value if isinstance(value, str) else json.dumps(value)
            found[path] = text[:LONGEST_PARAMETER]
    return found


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for item in value:
            yield from _leaves(item, f"{path}.{item['name']}")
    else:
        yield path, value


def headline_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Means at the headline alpha: of the compared policies, and the router's by task.

    Args:
        metrics: the content of metrics.json.

    Returns:
        `router/reward`, `single:A/cost`, `router/gsm8k/quality` and so on. `cost` is in dollars.
    """
    policies = metrics["policies"]
    found = {
        f"{name}/{measure}": policies[name][measure]["mean"]
        for name in policies
        if name in COMPARED or name.startswith("single:")
        for measure in MEASURES
    }
    for task, values in policies["router"].get("tasks", {}).items():
        for measure in MEASURES:
            value = values[measure]
            mean = value["mean"] if isinstance(value, dict) else value
            found[f"router/{task}/{measure}"] = mean
    return {name: float(value) for name, value in found.items() if _finite(value)}


def evaluation_table(metrics: Mapping[str, Any]) -> str:
    """The compared policies at the headline alpha, in Markdown, best reward first."""
    policies = {
        name: values
        for name, values in metrics["policies"].items()
        if name in COMPARED or name.startswith("single:")
    }
    head = (
        f"{metrics['n_test']} test queries, alpha {metrics['alpha']:g}; rewards with their "
        f"{metrics['confidence']:.0%} intervals.\n\n"
        f"| policy | {metrics['metric']} | relative cost | reward |\n|---|---|---|---|\n"
    )
    rows = []
    for name in sorted(policies, key=lambda name: -policies[name]["reward"]["mean"]):
        values = policies[name]
        low, high = values["reward"]["low"], values["reward"]["high"]
        rows.append(
            f"| {name} | {values['quality']['mean']:.3f} | {values['relative_cost']['mean']:.3f} "
            f"| {values['reward']['mean']:.3f} [{low:.3f}, {high:.3f}] |"
        )
    return head + "\n".join(rows)


def learning_points(curve: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    """Name, value and iteration of every number of a learning curve; gaps are left out."""
    return [
        (f"training/{name}", float(value), int(entry["iteration"]))
        for entry in curve
        for name, value in {"transitions": entry["transitions"], **entry["metrics"]}.items()
        if _finite(value)
    ]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def query_sets(path: Path) -> dict[str, tuple[Any, str]]:
    """The queries of each split, without their texts.

    Args:
        path: queries.parquet.

    Returns:
        By split: a data frame with `query_id` and `task`, and a digest of ids and texts.

    Raises:
        DamagedFileError: the file cannot be read.
    """
    try:
        table = pq.read_table(path, columns=["query_id", "task", "split", "prompt"])
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); sample the queries anew") from (
            error
        )
    frame = table.to_pandas().sort_values("query_id")
    return {
        str(split): (
            part[["query_id", "task"]].reset_index(drop=True),
            digest_of(part[["query_id", "prompt"]].to_numpy().tolist()),
        )
        for split, part in frame.groupby("split")
    }

"""What MLflow is told of a router and its evaluation: few enough numbers to compare by eye."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hierrouter.data.queries import digest_queries
from hierrouter.evaluation.table import policy_rows
from hierrouter.learning.actions import ROLES, allowed_actions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from mlflow import MlflowClient

    from hierrouter.data.queries import Query
    from hierrouter.learning.router import RouterInfo

LOGGED = ("quality", "cost", "reward")
"""What MLflow gets of each policy."""
POLICIES = (
    "router",
    "random",
    "best_single",
    "best_path",
    "best_path_per_task",
    "knn",
    "oracle",
)
"""What MLflow gets beside the single models; the rest is in metrics.json."""
CROSS_FITTED = ("router", "best_single", "best_path_per_task")
"""Whose reward over all queries MLflow gets, where an evaluation was cross-fitted."""
LONGEST_PARAMETER = 6000
"""Characters of a parameter's value; MLflow refuses more."""


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


def headline_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Means at the headline alpha of a few policies, the router's by task, and its AIQ.

    Args:
        metrics: the content of metrics.json.

    Returns:
        `router/reward`, `single:A/cost`, `router/gsm8k/quality`, `router/aiq`,
        `cross_fitted/router/reward` and so on. `cost` is in dollars.
    """
    policies = metrics["policies"]
    entries = {name: policies[name] for name in policies if is_logged(name)}
    entries |= {f"router/{task}": entry for task, entry in policies["router"]["tasks"].items()}
    found = {
        f"{name}/{measure}": float(entry[measure]["mean"])
        for name, entry in entries.items()
        for measure in LOGGED
    }
    # A query's dollars are so few that charts show 0.00.
    found["router/relative_cost"] = float(policies["router"]["relative_cost"]["mean"])
    if area := metrics.get("tradeoff", {}).get("aiq", {}).get("router"):
        found["router/aiq"] = float(area["mean"])
    fitted = metrics.get("cross_fitted", {}).get("policies", {})
    for name in CROSS_FITTED:
        if name in fitted:
            found[f"cross_fitted/{name}/reward"] = float(fitted[name]["reward"]["mean"])
    return found


def is_logged(policy: str) -> bool:
    """Whether MLflow gets a policy's means."""
    return policy in POLICIES or policy.startswith("single:")


def log_values(
    client: MlflowClient,
    run_id: str,
    settings: Mapping[str, str],
    values: Sequence[tuple[str, float, int]],
    model_id: str | None = None,
) -> None:
    """Logs parameters and metrics in as few requests as MLflow allows.

    Metrics are of the moment when the run began: MLflow then knows those that are logged again.

    Args:
        client: of the tracking store.
        run_id: the run.
        settings: parameters by name.
        values: name, value and step of each metric.
        model_id: the logged model that the metrics are of.
    """
    from mlflow.entities import Metric, Param

    began = client.get_run(run_id).info.start_time
    for params in _chunks([Param(key, value) for key, value in settings.items()], 100):
        client.log_batch(run_id, params=params)
    metrics = [Metric(name, value, began, step, model_id=model_id) for name, value, step in values]
    for some in _chunks(metrics, 1000):
        client.log_batch(run_id, metrics=some)


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def evaluation_table(metrics: dict[str, Any]) -> str:
    """The policies that the terminal shows, at the headline alpha, in Markdown.

    Args:
        metrics: the content of metrics.json.
    """
    head = (
        f"{metrics['n_test']} test queries, alpha {metrics['alpha']:g}; rewards with their "
        f"{metrics['confidence']:.0%} intervals.\n\n"
        f"| policy | {metrics['metric']} | relative cost | reward |\n|---|---|---|---|\n"
    )
    return head + "\n".join(f"| {' | '.join(row)} |" for row in policy_rows(metrics))


def learning_points(curve: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    """Name, value and iteration of every number of a learning curve; gaps are left out."""
    return [
        (f"training/{name}", float(value), int(entry["iteration"]))
        for entry in curve
        for name, value in {"transitions": entry["transitions"], **entry["metrics"]}.items()
        if value is not None
    ]


def query_sets(queries: Sequence[Query]) -> dict[str, tuple[pd.DataFrame, str]]:
    """The queries of each split, without their texts.

    Args:
        queries: those of a route tree.

    Returns:
        By split: a data frame with `query_id` and `task`, and the digest of all that the queries
        hold, reference answers included.
    """
    # A quarter of a second to import, which only runs with data sets need.
    import pandas as pd

    found = {}
    for split in sorted({query.split for query in queries}):
        part = [query for query in queries if query.split == split]
        frame = pd.DataFrame([(query.query_id, query.task) for query in part])
        frame.columns = pd.Index(["query_id", "task"])
        found[split] = (frame, digest_queries(part))
    return found

"""Following a run: each task's state as it changes, what a task waits for, how it ended."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import kfp_server_api
import urllib3

from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.progress import duration, say
from hierrouter.tracking.pipeline_runs import metrics_of
from pipelines.client import Cluster
from pipelines.package import Package

ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
POLL_S = 5.0
PENDING_S = 180.0
"""A task that is pending for longer is named with what it asks for."""
FAILURES = 12
"""So many failed questions in a row, and the cluster is given up; the run goes on."""
MEASURES = ("quality", "cost", "reward")
ASKS = {"collect-routes": "record", "train-router": "train"}
"""Tasks that ask for accelerators, and how their parameters begin."""


def watch(cluster: Cluster, run_id: str, package: Package, poll_s: float = POLL_S) -> None:
    """Follows a run until it ends, then prints its metrics.

    Args:
        cluster: where.
        run_id: the run.
        package: what was started.
        poll_s: seconds between two looks.

    Raises:
        HierRouterError: the run failed or was stopped.
        UnreachableError: the cluster does not answer any more; the run goes on.
    """
    seen: dict[str, str] = {}
    warned: set[str] = set()
    pause, failed = threading.Event(), 0
    while True:
        try:
            run = cluster.client.get_run(run_id)
            failed = 0
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            failed += 1
            if failed == FAILURES or getattr(error, "status", 500) in (401, 403, 404):
                raise UnreachableError(
                    f"{cluster.host} does not say any more how run {run_id} is; the run goes on "
                    "there"
                ) from error
            pause.wait(poll_s)
            continue
        for task in _tasks(run):
            _tell(task, seen)
            _warn(task, package, warned)
        if run.state in ENDED:
            break
        pause.wait(poll_s)
    if run.state != "SUCCEEDED":
        raise HierRouterError(f"run {run_id} {run.state.lower()}: {_reason(run)}")
    _show_metrics(run_id)


def _tasks(run: Any) -> Iterator[Any]:
    details = run.run_details.task_details if run.run_details else None
    for task in details or ():
        # The drivers are Kubeflow's own.
        if task.display_name and not task.display_name.endswith("-driver"):
            yield task


def _tell(task: Any, seen: dict[str, str]) -> None:
    state = task.state or "PENDING"
    if seen.get(task.task_id) != state:
        seen[task.task_id] = state
        say(f"{datetime.now():%H:%M:%S}  {task.display_name:<20} {state}")


def _warn(task: Any, package: Package, warned: set[str]) -> None:
    """Says, once, of a task that is pending for long what it asks for."""
    if task.state not in (None, "PENDING") or task.task_id in warned or not task.create_time:
        return
    waited = (datetime.now(UTC) - task.create_time).total_seconds()
    if waited < PENDING_S:
        return
    warned.add(task.task_id)
    say(f"{task.display_name} has been pending for {duration(waited)}; {_asks(task, package)}")


def _asks(task: Any, package: Package) -> str:
    part = next((part for name, part in ASKS.items() if task.display_name.startswith(name)), None)
    if part is None:
        return "look at its pod: is there room, and can the image be pulled?"
    asked = {
        name: package.value(f"{part}_{name}")
        for name in ("accelerator_count", "accelerator_type", "cpu", "memory", "node_selector")
    }
    return (
        f"it asks for {asked['accelerator_count']:g} x {asked['accelerator_type']}, "
        f"{asked['cpu']} processors and {asked['memory']} on "
        f"{asked['node_selector'] or 'any node'}: is there such a node, and are its taints in "
        f"{part}_tolerations?"
    )


def _reason(run: Any) -> str:
    """The first task that failed, with what is said of it."""
    for task in _tasks(run):
        if task.state == "FAILED" and not task.child_tasks:
            said = task.error.message if task.error else "look at its log"
            return f"{task.display_name}: {' '.join(said.split())[:300]}"
    return str(run.error.message) if run.error else "look at it in Kubeflow"


def _show_metrics(run_id: str) -> None:
    try:
        metrics = metrics_of(run_id)
    except HierRouterError as error:
        say(f"the run succeeded; its metrics are in MLflow ({error})")
        return
    policies = [name.split("/")[0] for name in sorted(metrics) if name.endswith("/reward")]
    for policy in dict.fromkeys(policies):
        values = (
            f"{measure} {metrics[f'{policy}/{measure}']:.4g}"
            for measure in MEASURES
            if f"{policy}/{measure}" in metrics
        )
        say(f"{policy:<24} {'  '.join(values)}")

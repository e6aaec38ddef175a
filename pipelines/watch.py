"""Following a run: each task's state as it changes, what a task waits for, how it ended."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import kfp_server_api
import urllib3

from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.progress import duration, say
from hierrouter.tracking.pipeline_runs import JOB, metrics_of
from hierrouter.tracking.store import tracking_at
from pipelines.client import Cluster
from pipelines.package import Package

ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
POLL_S = 5.0
PENDING_S = 180.0
"""A task that is pending for longer is named with what it asks for."""
FAILURES = 12
"""So many failed questions in a row, and the cluster is given up; the run goes on."""
MEASURES = ("quality", "cost", "reward")
POD, MOST_NODES = "executor", 100
"""How Kubeflow's names of a task's pods begin, and a bound for the way up from one."""
ASKS = {"collect-routes": "record", "train-router": "train"}
"""Tasks that ask for accelerators, and how their parameters begin."""


@dataclass(frozen=True)
class Task:
    """A task of the pipeline, or a pod of one.

    Attributes:
        name: of the task, of a pod too.
        pod: whether it is a pod: Kubeflow calls all of them "executor".
        detail: as the server tells of it.
    """

    name: str
    pod: bool
    detail: Any


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
    pending: dict[str, float] = {}
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
            if not task.pod:
                _tell(task, seen)
            _warn(task, package, pending, warned)
        if run.state in ENDED:
            break
        pause.wait(poll_s)
    if run.state != "SUCCEEDED":
        raise HierRouterError(f"run {run_id} {run.state.lower()}: {_reason(run)}")
    _show_metrics(run_id, str(package.value("mlflow_uri") or ""))


def _tasks(run: Any) -> Iterator[Task]:
    """The tasks of the pipeline and their pods, without Kubeflow's own."""
    details = (run.run_details.task_details if run.run_details else None) or ()
    above = {
        identifier: task
        for task in details
        for child in task.child_tasks or ()
        for identifier in (child.task_id, child.pod_name)
        if identifier
    }
    for task in details:
        if not task.display_name or task.display_name.endswith("-driver"):
            continue
        owner, steps = task, 0
        # Above a pod there may be a node for all of its tries.
        while owner.display_name.startswith(POD) and steps < MOST_NODES:
            owner, steps = above.get(owner.task_id) or above.get(owner.pod_name) or task, steps + 1
        yield Task(owner.display_name, task.display_name.startswith(POD), task)


def _tell(task: Task, seen: dict[str, str]) -> None:
    state = task.detail.state or "PENDING"
    if seen.get(task.detail.task_id) != state:
        seen[task.detail.task_id] = state
        say(f"{datetime.now():%H:%M:%S}  {task.name:<20} {state}")


def _warn(task: Task, package: Package, pending: dict[str, float], warned: set[str]) -> None:
    """Says, once, of a task that is pending for long what it asks for.

    The server gives all tasks the time at which the run was made: how long one is pending is
    counted from the first look that saw it so.
    """
    detail = task.detail
    if detail.state not in (None, "PENDING") or task.name in warned:
        pending.pop(detail.task_id, None)
        return
    waited = time.monotonic() - pending.setdefault(detail.task_id, time.monotonic())
    if waited >= PENDING_S:
        warned.add(task.name)
        say(f"{task.name} has been pending for {duration(waited)}; {_asks(task.name, package)}")


def _asks(name: str, package: Package) -> str:
    part = next((part for task, part in ASKS.items() if name.startswith(task)), None)
    if part is None:
        return "look at its pod: is there room, and can the image be pulled?"
    asked = {
        each: package.value(f"{part}_{each}")
        for each in ("accelerator_count", "accelerator_type", "cpu", "memory", "node_selector")
    }
    return (
        f"it asks for {asked['accelerator_count']} x {asked['accelerator_type']}, "
        f"{asked['cpu']} processors and {asked['memory']} on "
        f"{asked['node_selector'] or 'any node'}: is there such a node, and are its taints in "
        f"{part}_tolerations?"
    )


def _reason(run: Any) -> str:
    """A task that failed, the innermost if it can be, with what is said of it."""
    failed = [each for each in _tasks(run) if each.detail.state == "FAILED"]
    names = {each.name for each in failed if not each.pod}
    # A pod of a task that did not fail was a try, and another one succeeded.
    pods = [each for each in failed if each.pod and each.name in names]
    inwards = [*pods, *reversed([each for each in failed if not each.pod])]
    for task in inwards:
        if task.detail.error:
            return f"{task.name}: {' '.join(task.detail.error.message.split())[:300]}"
    if inwards:
        return f"{inwards[0].name}: look at its log"
    return str(run.error.message) if run.error else "look at it in Kubeflow"


def _show_metrics(run_id: str, mlflow_uri: str) -> None:
    """Prints what MLflow holds of a run, where MLflow is reached from here."""
    # The user's own word first: the pods' address may mean nothing outside of the cluster.
    uri = os.environ.get("MLFLOW_TRACKING_URI") or mlflow_uri
    found = f'tags.`{JOB}` = "{run_id}"'
    if not uri:
        say(f"the run succeeded; its metrics are in MLflow ({found})")
        return
    try:
        with tracking_at(uri):
            metrics = metrics_of(run_id)
    except HierRouterError as error:
        say(f"the run succeeded; its metrics are in MLflow, not reached from here ({error})")
        return
    if not metrics:
        say(f"the run succeeded; MLflow at {uri} has no run with {found}")
        return
    policies = [name.split("/")[0] for name in sorted(metrics) if name.endswith("/reward")]
    for policy in dict.fromkeys(policies):
        values = (
            f"{measure} {metrics[f'{policy}/{measure}']:.4g}"
            for measure in MEASURES
            if f"{policy}/{measure}" in metrics
        )
        say(f"{policy:<24} {'  '.join(values)}")

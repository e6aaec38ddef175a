"""Following a run: each task's state as it changes, what a task waits for, how it ended."""

import math
import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import kfp_server_api
import urllib3

from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.progress import duration, say
from hierrouter.tracking.pipeline_runs import JOB, metrics_of
from hierrouter.tracking.store import shown_uri, tracking_at
from pipelines.client import Cluster
from pipelines.definition import FIXED
from pipelines.package import Package

ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
POLL_S = 5.0
PENDING_S = 180.0
"""A task that is pending for longer is named with what it asks for."""
FAILURES = 12
"""So many failed questions in a row, and the cluster is given up; the run goes on."""
MEASURES = ("quality", "cost", "reward")
POD = "executor"
"""How Kubeflow's names of a task's pods begin."""
ASKS = {"collect-routes": "record", "train-router": "train"}
"""Tasks that ask for accelerators, and how their parameters begin."""


@dataclass(frozen=True)
class Look:
    """What a server says of a run's tasks at one moment.

    It has nodes of the pipeline's own tasks, of their pods, which are all called "executor", and of
    what Kubeflow does around them. Which task a pod belongs to it does not say.

    Attributes:
        tasks: the pipeline's own, with their names.
        pods: those of all tasks.
    """

    tasks: list[tuple[str, Any]]
    pods: list[Any]

    @classmethod
    def at(cls, run: Any) -> "Look":
        """Sorts the nodes of a run."""
        nodes = (run.run_details.task_details if run.run_details else None) or ()
        tasks = [
            (name, node)
            for node in nodes
            for name in (*FIXED, *ASKS)
            # Kubeflow numbers those of one name.
            if re.fullmatch(rf"{name}(-\d+)?", node.display_name or "")
        ]
        return cls(tasks, [node for node in nodes if (node.display_name or "").startswith(POD)])

    def waiting(self) -> set[str]:
        """Names of the tasks that wait for a node to run on."""
        waiting = {name for name, node in self.tasks if node.state == "PENDING"}
        if any(pod.state == "PENDING" for pod in self.pods):
            waiting |= {name for name, node in self.tasks if node.state == "RUNNING"}
        return waiting

    def failed(self) -> str | None:
        """A task that failed, with what is said of it; none if none of them did."""
        failed = [(name, node) for name, node in self.tasks if node.state == "FAILED"]
        if not failed:
            return None
        name, node = failed[-1]
        pods = [pod for pod in self.pods if pod.state == "FAILED"]
        for each in (node, *reversed(pods)):
            if said := _said(each):
                return f"{name}: {said}"
        return f"{name}: look at its log"


def _said(node: Any) -> str:
    """What is said of a node that failed, in one line; empty if nothing is."""
    errors = [node.error, *(status.error for status in reversed(node.state_history or ()))]
    said = next((error.message for error in errors if error and error.message), "")
    return " ".join(said.split())[:300]


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
    told: dict[str, str] = {}
    names: dict[str, str] = {}
    since: dict[str, float] = {}
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
        look = Look.at(run)
        _tell(look, told, names)
        _warn(look, package, since)
        if run.state in ENDED:
            break
        pause.wait(poll_s)
    if run.state != "SUCCEEDED":
        reason = look.failed() or (run.error and run.error.message) or "look at it in Kubeflow"
        raise HierRouterError(f"run {run_id} {run.state.lower()}: {reason}")
    _show_metrics(run_id, str(package.value("mlflow_uri") or ""))


def _tell(look: Look, told: dict[str, str], names: dict[str, str]) -> None:
    """Says each task's state when it changes; of several of one name with a number."""
    for name, node in look.tasks:
        if node.task_id not in names:
            number = sum(each.partition(" ")[0] == name for each in names.values()) + 1
            names[node.task_id] = name if number == 1 else f"{name} ({number})"
        state = node.state or "PENDING"
        if told.get(node.task_id) != state:
            told[node.task_id] = state
            say(f"{datetime.now():%H:%M:%S}  {names[node.task_id]:<20} {state}")


def _warn(look: Look, package: Package, since: dict[str, float]) -> None:
    """Says, once, of a task that has been waiting for long what it asks for.

    The server gives all tasks the time at which the run was made: how long one waits is counted
    from the first look that saw it so.
    """
    waiting = look.waiting()
    for name in since.keys() - waiting:
        if since[name] < math.inf:
            del since[name]
    for name in sorted(waiting):
        waited = time.monotonic() - since.setdefault(name, time.monotonic())
        if waited >= PENDING_S:
            since[name] = math.inf
            say(f"{name} has been pending for {duration(waited)}; {_asks(name, package)}")


def _asks(name: str, package: Package) -> str:
    part = ASKS.get(name)
    if part is None:
        cpu, memory, _ = FIXED[name]
        return (
            f"it asks for {cpu} processors and {memory}: is there room, and can the image "
            f"{package.compiled.image} be pulled?"
        )
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
            shown, metrics = shown_uri(), metrics_of(run_id)
    except HierRouterError as error:
        say(f"the run succeeded; its metrics are in MLflow, not reached from here ({error})")
        return
    if not metrics:
        say(f"the run succeeded; MLflow at {shown} has no run with {found}")
        return
    policies = [name.split("/")[0] for name in sorted(metrics) if name.endswith("/reward")]
    for policy in dict.fromkeys(policies):
        values = (
            f"{measure} {metrics[f'{policy}/{measure}']:.4g}"
            for measure in MEASURES
            if f"{policy}/{measure}" in metrics
        )
        say(f"{policy:<24} {'  '.join(values)}")

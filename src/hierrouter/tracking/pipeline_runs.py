"""The MLflow run of a whole pipeline run, and a child of it for each seed.

Without Kubeflow's own MLflow plugin the first task opens the run and the exit task ends it; they
know each other by a tag, the pipeline run's id. With the plugin, which gives every task a run of
its own below one for the pipeline and ends them itself, we write into the plugin's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hierrouter.tracking.children import PARENT, end_children, judged_child, write_children
from hierrouter.tracking.origin import git_commit
from hierrouter.tracking.register import COMPLETE, experiment_id
from hierrouter.tracking.store import connected

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlflow import MlflowClient

    from hierrouter.config import EvaluationConfig

JOB, LINK = "kubeflow.run_id", "kubeflow.link"
"""Tags: the id of the pipeline run, and its page in the Kubeflow UI."""
PLUGIN_RUN = "MLFLOW_RUN_ID"
"""Set by Kubeflow's MLflow plugin: the run that it opened for this task, and will end."""


def open_pipeline_run(experiment: str, name: str, job: str, ui: str = "") -> str:
    """The run of a pipeline run: the plugin's, or one that is opened now.

    A first task that is tried again finds the run that it opened before.

    Args:
        experiment: the experiment that it is in, where there is no plugin.
        name: what to call it.
        job: the id of the pipeline run.
        ui: the address of the Kubeflow UI; empty: not known.

    Returns:
        The id of the MLflow run.

    Raises:
        UnreachableError: MLflow does not answer.
        HierRouterError: it refuses.
    """
    tags = {JOB: job, **({LINK: run_page(ui, job)} if ui else {})}
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    with connected() as client:
        if task := os.environ.get(PLUGIN_RUN):
            run = str(client.get_run(task).data.tags.get(PARENT, task))
            for key, value in tags.items():
                client.set_tag(run, key, value)
            return run
        where = experiment_id(client, experiment)
        known = _runs_of(client, [where], job)
        if known:
            return known[0]
        tags |= {"mlflow.source.name": "hierrouter", "mlflow.source.type": "PROJECT"}
        return str(client.create_run(where, tags=tags, run_name=name).info.run_id)


def run_page(ui: str, job: str) -> str:
    """The page of a pipeline run in the Kubeflow UI."""
    return f"{ui.rstrip('/')}/#/runs/details/{job}"


def metrics_of(job: str) -> dict[str, float]:
    """What MLflow holds of a pipeline run: the metrics of its run, by name.

    Raises:
        UnreachableError: MLflow does not answer.
    """
    with connected() as client:
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = _runs_of(client, experiments, job)
        return dict(client.get_run(runs[0]).data.metrics) if runs else {}


def close_pipeline_run(job: str, status: str, reason: str = "") -> str | None:
    """Ends the run of a pipeline run, unless the plugin does, and children that were left open.

    Args:
        job: the id of the pipeline run.
        status: how it ended, as Kubeflow says it: SUCCEEDED or COMPLETE, FAILED, CANCELED, ….
        reason: why, if it did not succeed.

    Returns:
        The id of the MLflow run; none if the pipeline failed before there was one.
    """
    with connected() as client:
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = _runs_of(client, experiments, job)
        if not runs:
            return None
        if reason:
            client.set_tag(runs[0], "kubeflow.reason", reason[:5000])
        client.set_tag(runs[0], "kubeflow.status", status)
        run = client.get_run(runs[0])
        ended = _ended(status.upper(), COMPLETE in run.data.tags)
        end_children(client, run, "KILLED" if ended == "KILLED" else "FAILED")
        if not os.environ.get(PLUGIN_RUN):
            client.set_terminated(runs[0], ended)
        return runs[0]


def _ended(status: str, complete: bool) -> str:
    """MLflow's word for how a pipeline run ended.

    Args:
        status: Kubeflow's. Its releases differ, and some still say RUNNING when the exit task
            runs.
        complete: whether everything was logged and registered.
    """
    if status in ("CANCELED", "CANCELLED", "CANCELING"):
        return "KILLED"
    if status in ("SUCCEEDED", "COMPLETE", "CACHED"):
        return "FINISHED"
    return "FINISHED" if complete and status not in ("FAILED", "ERROR") else "FAILED"


def log_seeds(
    config: EvaluationConfig, parent: str, routers: Iterable[Path], evaluations: Path
) -> list[str]:
    """A child run for each seed: settings, learning curve, and the metrics of its evaluation.

    Args:
        config: the evaluation part of a config.
        parent: the run of the pipeline run.
        routers: the routers, one a seed.
        evaluations: a folder with the evaluation of each, named as the routers are.

    Returns:
        The ids of the child runs. Those that are there already are kept.
    """
    children = [judged_child(config, each, evaluations / each.name) for each in routers]
    with connected() as client:
        return write_children(client, parent, children)


def _runs_of(client: MlflowClient, experiments: list[Any], job: str) -> list[str]:
    found = client.search_runs(experiments, f"tags.`{JOB}` = '{job}'", order_by=["start_time"])
    return [str(run.info.run_id) for run in found if PARENT not in run.data.tags]

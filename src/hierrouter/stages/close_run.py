"""What a pipeline run ends with, however it ended."""

from __future__ import annotations

from hierrouter.progress import say
from hierrouter.tracking.pipeline_runs import close_pipeline_run
from hierrouter.tracking.store import use_tracking


def close_run(job: str, status: str, reason: str, mlflow_uri: str = "") -> None:
    """Ends the MLflow run of a pipeline run.

    Args:
        job: the id of the pipeline run.
        status: how it ended, as Kubeflow says it.
        reason: why, if it did not succeed.
        mlflow_uri: the tracking server; empty: as MLFLOW_TRACKING_URI says.

    Raises:
        UnreachableError: MLflow does not answer.
    """
    use_tracking(mlflow_uri)
    run = close_pipeline_run(job, status, reason)
    say(f"{status}: MLflow run {run}" if run else f"{status}, before there was an MLflow run")

"""The exit task: says in MLflow how the pipeline run ended."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report_exit(job: str, status: dsl.PipelineTaskFinalStatus, mlflow_uri: str = "") -> None:
    """Ends the MLflow run of the pipeline run.

    Args:
        job: The id of the pipeline run.
        status: How the pipeline run ended.
        mlflow_uri: The tracking server; empty: as MLFLOW_TRACKING_URI says.
    """
    from hierrouter.stages.close_run import close_run

    close_run(job, status.state, status.error_message or "", mlflow_uri)

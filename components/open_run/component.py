"""The first task: opens the MLflow run and plans the training pods."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def open_run(
    evaluation: str,
    name: str,
    job: str,
    ui: str,
    seeds: str,
    pod_per_seed: bool,
    run_id: dsl.OutputPath(str),
    mlflow_uri: str = "",
    experiment: str = "",
    training: str = "",
) -> list[str]:
    """Opens the MLflow run of the pipeline run, and says which pods train which seeds.

    Args:
        evaluation: The evaluation part of the config, as YAML or JSON.
        name: What to call the run in MLflow.
        job: The id of the pipeline run.
        ui: Address of the Kubeflow UI; empty if it is not known.
        seeds: Training seeds, separated by commas; empty: the one of the training part.
        pod_per_seed: Whether each seed trains in a pod of its own.
        run_id: The MLflow run.
        mlflow_uri: The tracking server; empty: as MLFLOW_TRACKING_URI says.
        experiment: The MLflow experiment; empty: as the evaluation part says.
        training: The training part of the config, as YAML or JSON.

    Returns:
        The seeds of each training pod.
    """
    from pathlib import Path

    from hierrouter.stages.open_run import open_run

    opened = open_run(
        evaluation, name, job, ui, seeds, pod_per_seed, mlflow_uri, experiment, training
    )
    Path(run_id).write_text(opened.run_id, encoding="utf-8")
    return opened.seeds

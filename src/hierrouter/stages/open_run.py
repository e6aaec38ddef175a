"""What a pipeline run begins with: its MLflow run, and what its loops go over."""

from __future__ import annotations

from typing import NamedTuple

from hierrouter.config import EvaluationConfig, TrainingConfig
from hierrouter.configfile import load_part
from hierrouter.stages.settings import parse_seeds
from hierrouter.tracking.pipeline_runs import open_pipeline_run
from hierrouter.tracking.store import use_tracking


class Opened(NamedTuple):
    """What the other tasks go by."""

    run_id: str
    """The MLflow run."""
    seeds: list[str]
    """The seeds of each training pod, separated by commas."""


def open_run(
    evaluation: str,
    name: str,
    job: str,
    ui: str,
    seeds: str,
    pod_per_seed: bool,
    mlflow_uri: str = "",
    experiment: str = "",
    training: str = "",
) -> Opened:
    """Opens the MLflow run of a pipeline run, and plans its training pods.

    Args:
        evaluation: the evaluation part of a config, as YAML or JSON: it names the experiment.
        name: what to call the run.
        job: the id of the pipeline run.
        ui: the address of the Kubeflow UI; empty: not known.
        seeds: training seeds, separated by commas; empty: the one of `training`.
        pod_per_seed: whether each seed trains in a pod of its own; else all in one.
        mlflow_uri: the tracking server; empty: as MLFLOW_TRACKING_URI says.
        experiment: the MLflow experiment; empty: as `evaluation` says.
        training: the training part of a config, as YAML or JSON.

    Raises:
        ConfigError: an argument is wrong, or no tracking server is named; nothing was opened.
        UnreachableError: MLflow does not answer.
    """
    config = load_part(EvaluationConfig, evaluation, "evaluation")
    asked = seeds or str(load_part(TrainingConfig, training, "training").seed)
    numbers = [str(seed) for seed in parse_seeds(asked)]
    use_tracking(mlflow_uri)
    return Opened(
        run_id=open_pipeline_run(experiment or config.experiment, name, job, ui),
        seeds=numbers if pod_per_seed else [",".join(numbers)],
    )

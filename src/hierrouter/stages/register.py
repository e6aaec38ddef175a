"""Bringing the chosen router and all seeds to MLflow, as a pipeline's stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.config import EvaluationConfig
from hierrouter.configfile import load_part
from hierrouter.stages.evaluate import SEEDS
from hierrouter.stages.train import routers_in
from hierrouter.tracking.pipeline_runs import log_seeds
from hierrouter.tracking.register import register_router
from hierrouter.tracking.store import use_tracking

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def register(
    evaluation: str,
    tree: Path,
    routers: Iterable[Path],
    router: Path,
    evaluated: Path,
    run_id: str,
    mlflow_uri: str = "",
    registered_name: str = "",
) -> dict[str, Any]:
    """Fills the pipeline run's MLflow run, logs a child a seed, registers the chosen router.

    Args:
        evaluation: the evaluation part of a config, as YAML or JSON.
        tree: the route tree.
        routers: folders that `train_seeds` filled.
        router: the chosen router.
        evaluated: what `evaluate_seeds` wrote.
        run_id: the MLflow run that `open_pipeline_run` gave.
        mlflow_uri: the tracking server; empty: as MLFLOW_TRACKING_URI says.
        registered_name: the registered model; empty: as `evaluation` says.

    Returns:
        The version's URI, its aliases, why it is champion or is not, and the runs.

    Raises:
        ConfigError: `evaluation` is wrong, or no tracking server is named.
        UnreachableError: MLflow does not answer.
        HierRouterError: it refuses, or these do not belong together.
    """
    config = load_part(EvaluationConfig, evaluation, "evaluation")
    if registered_name:
        config = config.model_copy(update={"registered_name": registered_name})
    use_tracking(mlflow_uri)
    seeds = [each.folder for each in routers_in(routers)]
    children = log_seeds(config, run_id, seeds, evaluated / SEEDS)
    registered = register_router(config, router, evaluated, tree, run_id)
    return {
        "version": registered.uri,
        "aliases": ", ".join(registered.aliases),
        "champion": registered.reason,
        "run_id": run_id,
        "experiment_id": registered.experiment_id,
        "seed_runs": ", ".join(children),
    }

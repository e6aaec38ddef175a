"""Logs everything to MLflow and registers the chosen router."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_router(
    evaluation: str,
    run_id: str,
    tree: dsl.Input[dsl.Dataset],
    routers: dsl.Input[list[dsl.Model]],
    router: dsl.Input[dsl.Model],
    evaluated: dsl.Input[dsl.Artifact],
    registered: dsl.Output[dsl.Model],
    mlflow_uri: str = "",
    registered_name: str = "",
) -> str:
    """Fills the MLflow run, logs a child run a seed, and registers the chosen router.

    Args:
        evaluation: The evaluation part of the config, as YAML or JSON.
        run_id: The MLflow run that open_run gave.
        tree: The folder of the route tree.
        routers: Folders with one router a seed.
        router: The chosen router.
        evaluated: The folder of its evaluation.
        registered: Says which version it is.
        mlflow_uri: The tracking server; empty: as MLFLOW_TRACKING_URI says.
        registered_name: The registered model; empty: as the evaluation part says.

    Returns:
        The version for MLflow and for serving, such as models:/hierrouter/3.
    """
    from pathlib import Path

    from hierrouter.stages.register import register

    made = register(
        evaluation,
        Path(tree.path),
        [Path(each.path) for each in routers],
        Path(router.path),
        Path(evaluated.path),
        run_id,
        mlflow_uri,
        registered_name,
    )
    registered.metadata.update(made)
    Path(registered.path).write_text(made["version"] + "\n", encoding="utf-8")
    return made["version"]

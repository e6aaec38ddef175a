"""Serves the registered router, where it is the champion."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy_router(
    pool: str,
    version: str,
    image: str,
    manifest: dsl.Output[dsl.Artifact],
    apply: bool = False,
    namespace: str = "",
    mlflow_uri: str = "",
    keys_secret: str = "hierrouter-api-keys",
    all_in_one: bool = False,
    wait_minutes: float = 30.0,
    mlflow_secret: str = "hierrouter-mlflow",
    store_secret: str = "hierrouter-store",
    hugging_face_secret: str = "hierrouter-hugging-face",
    endpoint_secret: str = "hierrouter-endpoints",
    pull_secrets: list[str] = [],  # noqa: B006
) -> str:
    """Deploys the version that this run registered, if it is the champion.

    Args:
        pool: The pool part of the config, as YAML or JSON.
        version: What register_router gave, such as models:/hierrouter/3.
        image: The image that serves it.
        manifest: The router's InferenceService.
        apply: Whether it is applied and waited for; else it is only written.
        namespace: Where; empty: the namespace of this pod.
        mlflow_uri: The tracking server; empty: as MLFLOW_TRACKING_URI says.
        keys_secret: The secret with the keys of clients.
        all_in_one: Whether the router's pod runs the models, too.
        wait_minutes: After so many minutes what is not ready has failed.
        mlflow_secret: The secret with MLflow's credentials; it need not exist.
        store_secret: The secret with the object store's credentials; it need not exist.
        hugging_face_secret: The secret with HF_TOKEN; it need not exist.
        endpoint_secret: The secret with the keys of the models' endpoints.
        pull_secrets: Secrets for pulling the image.

    Returns:
        Where it answers; empty if nothing was applied.
    """
    from pathlib import Path

    from hierrouter.stages.deploy import deploy

    return deploy(
        pool,
        version,
        image,
        Path(manifest.path),
        apply,
        namespace,
        mlflow_uri,
        keys_secret,
        all_in_one,
        wait_minutes * 60,
        mlflow_secret=mlflow_secret,
        store_secret=store_secret,
        hugging_face_secret=hugging_face_secret,
        endpoint_secret=endpoint_secret,
        pull_secrets=pull_secrets,
    )

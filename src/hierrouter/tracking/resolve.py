"""From a `models:/` URI or a folder to a router's folder, without running code from either."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder
from hierrouter.learning.router import Router
from hierrouter.tracking.package import ROUTER_FILES
from hierrouter.tracking.store import connected, shown_uri

SCHEME = "models:/"


def fetch_router(uri: str, dest: Path) -> Path:
    """A router's folder.

    Args:
        uri: `models:/hierrouter@champion`, `models:/hierrouter/3`, or a folder.
        dest: where a registered router is downloaded to: new, empty, or a router's folder, which
            is replaced. Not used when `uri` is a folder.

    Returns:
        `dest`, or the folder itself.

    Raises:
        ConfigError: `dest` holds something else, or the URI is of another kind.
        HierRouterError: there is no such version, or it is no router.
        UnreachableError: MLflow does not answer.
    """
    if not uri.startswith(SCHEME):
        if "://" in uri or uri.startswith("runs:/"):
            raise ConfigError(f"{uri}: name a router's folder or models:/NAME@ALIAS")
        Router.load(Path(uri))
        return Path(uri)
    claim_folder(dest, "router.json")
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=dest.parent) as scratch:
        found = _download(uri, Path(scratch))
        Router.load(found)
        # The description goes first: cut short, the folder is still known as a router's.
        for name in ROUTER_FILES:
            if (found / name).exists():
                (found / name).replace(dest / name)
            else:
                (dest / name).unlink(missing_ok=True)
    return dest


def _download(uri: str, scratch: Path) -> Path:
    """Fetches the router inside a registered model, not the model's code."""
    where = shown_uri()
    with connected():
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        try:
            return Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{uri.rstrip('/')}/artifacts/router", dst_path=str(scratch)
                )
            )
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            raise HierRouterError(
                f"{uri} is not a router in MLflow at {where} ({reason}); see what is "
                "registered there, or register one with `hierrouter register`"
            ) from error

"""From a `models:/` URI, a run or a folder to a router's or an evaluation's folder.

No code from either is run.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder, read_json, write_json
from hierrouter.learning.router import Router
from hierrouter.tracking.package import ROUTER_FILES
from hierrouter.tracking.store import connected, no_answer, shown_uri, unanswered

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SCHEME = "models:/"
EVALUATION = "evaluation"
"""Folder of an evaluation among a run's artifacts."""
NOTE = "registered.json"
"""Beside a fetched router: which registered version it is."""


def fetch_router(uri: str, dest: Path) -> Path:
    """A router's folder.

    An alias is looked up each time, as it moves; a version that `dest` holds already is not
    downloaded again.

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
    named = _parts(uri)
    fresh = not dest.exists()
    claim_folder(dest, "router.json")
    try:
        return _fetched(uri, named, dest)
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):  # something came into it: that stays
                dest.rmdir()
        raise


def _fetched(uri: str, named: tuple[str, str | None, str | None], dest: Path) -> Path:
    with connected() as client:
        version = _version(client, uri, *named)
        note = _note(version)
        if _holds(dest, note):
            return dest
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=dest.parent) as scratch:
            found = _download(uri, version, Path(scratch))
            try:
                Router.load(found)
            except HierRouterError as error:
                # Where it was looked at is gone by the time that this is read.
                raise HierRouterError(str(error).replace(str(found), uri)) from error
            (dest / NOTE).unlink(missing_ok=True)
            # The description goes first: cut short, the folder is still known as a router's.
            for file in ROUTER_FILES:
                if (found / file).exists():
                    (found / file).replace(dest / file)
                else:
                    (dest / file).unlink(missing_ok=True)
            write_json(dest / NOTE, note)
    return dest


def fetch_evaluation(run: str, dest: Path) -> Path:
    """The folder of an evaluation, with its router in the folder `router` beside it.

    Args:
        run: the folder itself or one that holds it (of `hierrouter run`), `models:/NAME@ALIAS`,
            `models:/NAME/VERSION`, or the id of an MLflow run (also as `runs:/ID`).
        dest: a new folder, for what is in MLflow.

    Returns:
        The folder, or one below `dest`.

    Raises:
        ConfigError: the URI is of another kind.
        HierRouterError: there is no such run, or it holds no evaluation.
        UnreachableError: MLflow does not answer.
    """
    known = re.fullmatch(r"(?:runs:/)?([0-9a-f]{32})/?", run)
    if Path(run).exists() or not (known or run.startswith(SCHEME)):
        inner = Path(run, EVALUATION)
        return inner if inner.is_dir() else Path(run)
    with connected() as client:
        run_id = known[1] if known else _version(client, run, *_parts(run)).run_id
        _download_run(client, run, str(run_id), dest)
    return dest / EVALUATION


def _download_run(client: MlflowClient, shown: str, run_id: str, dest: Path) -> None:
    """Fetches what a run holds of router and evaluation."""
    from mlflow.exceptions import MlflowException

    dest.mkdir(parents=True)
    parent = None
    try:
        parent = client.get_run(run_id).data.tags.get("mlflow.parentRunId")
        for folder in (EVALUATION, "router"):
            client.download_artifacts(run_id, folder, str(dest))
    except (MlflowException, OSError) as error:
        if unanswered(error):
            raise no_answer(shown_uri()) from error
        hint = f"; it is a child, name its parent {parent}" if parent else ""
        reason = str(error).splitlines()[0][:200]
        raise HierRouterError(
            f"{shown} holds no evaluation in MLflow at {shown_uri()} ({reason}){hint}"
        ) from error


def _parts(uri: str) -> tuple[str, str | None, str | None]:
    """Name, alias and number of `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""
    parts = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))/?", uri)
    if parts is None:
        raise ConfigError(f"{uri}: name models:/NAME@ALIAS, models:/NAME/VERSION, or a folder")
    name, alias, number = parts.groups()
    return name, alias, number


def _version(
    client: MlflowClient, uri: str, name: str, alias: str | None, number: str | None
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise _no_router(uri, error) from error


def _note(version: ModelVersion) -> dict[str, Any]:
    """Tells a version from all others, also from one of the same number in another database."""
    return {
        "mlflow": shown_uri(),
        "name": version.name,
        "version": int(version.version),
        "run_id": version.run_id,
        "source": version.source,
        "created": version.creation_timestamp,
    }


def _holds(folder: Path, note: dict[str, Any]) -> bool:
    """Whether the router in `folder` is the one of the note, and whole."""
    try:
        known = read_json(folder / NOTE)
        Router.load(folder)
    except HierRouterError:
        return False
    return bool(known == note)


def _download(uri: str, version: ModelVersion, scratch: Path) -> Path:
    """Fetches the router inside a registered model, not the model's code."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    # The version's number, not the alias: that may have moved since it was looked up.
    source = f"{SCHEME}{version.name}/{version.version}/artifacts/router"
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(scratch)))
    except (MlflowException, OSError) as error:
        if unanswered(error):
            raise no_answer(shown_uri()) from error
        raise _no_router(uri, error) from error


def _no_router(uri: str, error: Exception) -> HierRouterError:
    reason = str(error).splitlines()[0][:200]
    return HierRouterError(
        f"{uri} is not a router in MLflow at {shown_uri()} ({reason}); see what is registered "
        "there, or register one with `hierrouter register`"
    )

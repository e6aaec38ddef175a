"""The MLflow server or file that runs go to: where it is, patience with it, and its noise."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from hierrouter.errors import ConfigError, HierRouterError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default: a database in the working directory, artifacts in `mlruns` beside it."""

_PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_WORK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
_UNANSWERED = re.compile(
    r"Max retries exceeded|API request to|\b5\d\d Server Error|timed out"
    r"|Connection (aborted|broken|refused|reset)"
)
"""In MLflow's words, which come from several libraries and tell only in the text what it was."""


def tracking_uri() -> str:
    """Where runs go: MLFLOW_TRACKING_URI, else a database in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def use_tracking(uri: str) -> None:
    """Names the tracking server for the rest of this process; empty: what is named stays.

    Raises:
        ConfigError: none is named: the default is a file, which dies with the pod it lies in.
    """
    if uri:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    elif not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ConfigError(
            "no MLflow server; give the pipeline mlflow_uri=http://…, or let Kubeflow's MLflow "
            "plugin set MLFLOW_TRACKING_URI (injectUserEnvVars)"
        )


@contextlib.contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """Names the tracking server for as long as the block runs."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def resolved_uri() -> str:
    """The tracking URI that means the same in every folder and to every process.

    MLflow keeps a connection for every URI it has met: a process that changes its working directory
    would write into the first one's database.
    """
    uri = tracking_uri()
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", ":memory:")):
        return uri
    return f"sqlite:///{Path.cwd() / path}"


def shown_uri() -> str:
    """The tracking URI without the password that may stand in it."""
    parts = urlsplit(tracking_uri())
    if "@" not in parts.netloc:
        return tracking_uri()
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]))


def ui_command() -> str:
    """What to do to see the runs: one command, or the address of the server."""
    if tracking_uri().startswith(("http://", "https://")):
        return f"open {shown_uri()}"
    return f"{program('mlflow')} server --backend-store-uri {shown_uri()}"


def program(name: str) -> str:
    """How a program that is installed beside this Python is called from the working directory."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found is not None and Path(found) == beside:
        return name
    inside = beside.is_relative_to(Path.cwd())
    return str(beside.relative_to(Path.cwd()) if inside else beside)


@contextlib.contextmanager
def connected() -> Iterator[MlflowClient]:
    """A client of the tracking store that is known to answer; its failures become one line.

    Within the block, MLflow prints nothing, sends no telemetry, and gives up on a server after
    few retries unless the user's environment says otherwise.

    Raises:
        UnreachableError: the server does not answer.
        HierRouterError: it answers with a refusal, or the database cannot be used.
    """
    # Read when mlflow is imported, so it has to be there before.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with _quiet():
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        before, where = os.environ.get("MLFLOW_TRACKING_URI"), shown_uri()
        try:
            mlflow.set_tracking_uri(resolved_uri())
            with _environment(_PROBE):
                client = mlflow.MlflowClient()
                client.search_experiments(max_results=1)
            with _environment(_WORK):
                yield client
        except (MlflowException, SQLAlchemyError) as error:
            raise _in_one_line(error, where) from error
        finally:
            # MLflow writes the URI into the environment, where it would look like the user's word.
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before


def _in_one_line(error: Exception, where: str) -> HierRouterError:
    if unanswered(error):
        return no_answer(where)
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if line), repr(error))
    return HierRouterError(f"MLflow at {where}: {first[:300]}")


def unanswered(error: Exception) -> bool:
    """Whether a failure is of the server or the way to it, and may pass."""
    return _UNANSWERED.search(str(error)) is not None


def no_answer(where: str) -> UnreachableError:
    """What is said of a server that does not answer."""
    return UnreachableError(
        f"MLflow at {where} does not answer; start it, or set MLFLOW_TRACKING_URI "
        f"(unset: {DEFAULT_URI}), then run the same command again"
    )


@contextlib.contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    """Sets variables that the user has not set, for as long as the block runs."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps migrations, links, progress bars and advice of MLflow off the user's screen."""
    before = logging.root.manager.disable
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)

"""Settings of every test process, and an MLflow that tests of several kinds use."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# Before torch is loaded: waiting threads sleep, so that tests stay quick on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test server runs no jobs in the background; starting their workers takes longer than the tests.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
# What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making its tables takes seconds, so it is made once."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    code = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{path}"],
        check=True,
        capture_output=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    return path


@pytest.fixture
def here(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty database, where MLflow looks by itself."""
    folder = tmp_path / "my work"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(migrated.read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="session")
def start_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Starts a real MLflow server on loopback with these arguments, and returns its address."""
    with contextlib.ExitStack() as servers:

        def start(*arguments: str) -> str:
            return servers.enter_context(_mlflow(tmp_path_factory.mktemp("server"), arguments))

        yield start


@pytest.fixture
def server(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real MLflow server on loopback, named by MLFLOW_TRACKING_URI."""
    arguments = (
        *("--backend-store-uri", f"sqlite:///{here}/mlflow.db"),
        *("--artifacts-destination", str(here / "served")),
    )
    with _mlflow(here, arguments) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


@contextlib.contextmanager
def _mlflow(folder: Path, arguments: Sequence[str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1", *arguments),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(f"{uri}/health", process)
            yield uri
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Asks until the server answers; a server that ended is an error at once."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if answer.status == 200:
                    return
        except OSError:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError(f"the MLflow server ended with {process.returncode}")

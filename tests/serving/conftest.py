"""A trained router over the scripted pool, and the real server as a process on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.routers import arbitrary_router

from hierrouter.configfile import load_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
HIERROUTER = Path(sys.executable).with_name("hierrouter")
WAIT_S = 120


@dataclass
class Server:
    """A server under way."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)
    """What it has written to standard error."""

    def end(self) -> int:
        """Tells it to end, and waits until it has; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def send(
        self, method: str, path: str, body: bytes | Any = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request by hand; what is no bytes is sent as JSON. Its status, headers and body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            named = {"Content-Type": "application/json", **named}
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, named)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, told, answer.read()

    def logged(self, needle: str, **told: Any) -> dict[str, Any]:
        """The line of its log that holds a text and says this, once it is there."""
        for _ in range(600):
            for line in self.lines:
                if needle in line:
                    found: dict[str, Any] = json.loads(line)
                    if told.items() <= found.items():
                        return found
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        raise AssertionError(f"no line with {needle}: {''.join(self.lines)}")

    def count(self, name: str, **labels: str) -> float:
        """A number of its `/metrics`; 0 where there is none."""
        shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        line = re.escape(name + (f"{{{shown}}}" if shown else ""))
        numbers = self.send("GET", "/metrics")[2].decode()
        found = re.search(rf"^{line} (\S+)$", numbers, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture(scope="session")
def router_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A router over three scripted models."""
    return _saved(tmp_path_factory.mktemp("scripted"), "early_exit")


@pytest.fixture(scope="session")
def paper_router(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that always makes two hops."""
    return _saved(tmp_path_factory.mktemp("paper"), "paper")


@pytest.fixture(scope="session")
def cascade_router(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that asks small, then medium, and returns small's answer to the page's question."""
    return _saved(tmp_path_factory.mktemp("cascade"), "cascade", seed=21)


def _saved(folder: Path, moves: str, seed: int = 4) -> Path:
    pool = load_config(ROOT / "configs" / "scripted.yaml", []).pool
    arbitrary_router(pool, moves, seed).save(folder / "router", [], "A router for tests.")
    return folder / "router"


@pytest.fixture(scope="session")
def start_server(router_folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with these arguments; it ends with the tests at the latest."""
    with contextlib.ExitStack() as servers:

        def start(
            *arguments: str,
            router: Path = router_folder,
            program: tuple[str, ...] = (str(HIERROUTER),),
            **variables: str,
        ) -> Server:
            command = [*program, "serve", "--router", str(router), "--port", "0"]
            process = subprocess.Popen(
                [*command, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **variables},
            )
            servers.callback(process.wait, WAIT_S)
            servers.callback(process.kill)
            return _up(process)

        yield start


def _up(process: subprocess.Popen[str]) -> Server:
    """The server once it says where it listens; from then on its lines are kept."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"serving at (http://\S+?)/openai/v1", line):
            server = Server(process, found[1], lines)
            reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
            reader.start()
            return server
    raise AssertionError(f"the server ended with {process.wait()}: {''.join(lines)}")

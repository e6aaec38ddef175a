"""A stand-in for the API server of Kubeflow Pipelines, built on its own models."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as api
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TRANSLATOR = api.ApiClient()
BASE = "/apis/v2beta1"


def sent(model: Any) -> bytes:
    """A model as the real server writes it."""
    return json.dumps(TRANSLATOR.sanitize_for_serialization(model)).encode()


def received(body: bytes, kind: str) -> Any:
    """A body as a model; what the model does not know is an error."""
    known = set(getattr(api, kind).attribute_map.values())
    assert set(json.loads(body)) <= known
    return TRANSLATOR.deserialize(SimpleNamespace(data=body.decode()), kind)


class Kubeflow(ThreadingHTTPServer):
    """Keeps experiments and runs; `states` says what a run's tasks are at each look."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.experiments = {"e1": "Default", "e2": "studies"}
        self.runs: list[Any] = []
        self.recurring: list[Any] = []
        self.asked: list[str] = []
        self.token: str | None = None
        self.refusing: tuple[int, str] | None = None
        self.stalling = 0
        self.multi_user = False
        self.looks: list[tuple[str, list[Any]]] = [("SUCCEEDED", [])]
        self.on_run: Callable[[Any], None] = lambda run: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def look(self) -> tuple[str, list[Any]]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


class Call(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Kubeflow

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _serve(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        server = self.server
        server.asked.append(f"{method} {path.removeprefix(BASE)}")
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            self._answer(401, b'{"error": "Unauthenticated: the token has expired", "code": 16}')
        elif server.refusing and "healthz" not in path:
            status, what = server.refusing
            self._answer(status, json.dumps({"error": what, "code": 3}).encode())
        elif server.stalling and "/runs/" in path:
            server.stalling -= 1
            self.close_connection = True  # without a word
        elif not path.startswith(BASE):
            self._answer(404, b"<h1>Not Found</h1>")
        else:
            self._answer(200, sent(self._play(method, path.removeprefix(BASE), body)))

    def _play(self, method: str, path: str, body: bytes) -> Any:
        server = self.server
        if path == "/healthz":
            return api.V2beta1GetHealthzResponse(multi_user=server.multi_user)
        if path == "/experiments" and method == "GET":
            wanted = self._name_wanted()
            found = [
                api.V2beta1Experiment(experiment_id=key, display_name=name)
                for key, name in server.experiments.items()
                if wanted in (None, name)
            ]
            return api.V2beta1ListExperimentsResponse(experiments=found, total_size=len(found))
        if path == "/experiments":
            made = received(body, "V2beta1Experiment")
            made.experiment_id = f"e{len(server.experiments) + 1}"
            server.experiments[made.experiment_id] = made.display_name
            return made
        if path == "/runs":
            run = received(body, "V2beta1Run")
            run.run_id = f"run-{len(server.runs) + 1}"
            server.runs.append(run)
            return run
        if path == "/recurringruns":
            made = received(body, "V2beta1RecurringRun")
            made.recurring_run_id = "recurring-1"
            server.recurring.append(made)
            return made
        if match := re.fullmatch(r"/runs/(\S+)", path):
            run = next(each for each in server.runs if each.run_id == match[1])
            state, tasks = server.look()
            if state == "SUCCEEDED":
                server.on_run(run)
            return api.V2beta1Run(
                run_id=run.run_id,
                display_name=run.display_name,
                state=state,
                run_details=api.V2beta1RunDetails(task_details=tasks),
            )
        raise AssertionError(f"{method} {path}")

    def _name_wanted(self) -> str | None:
        """The name that a filter asks for."""
        query = parse_qs(urlsplit(self.path).query)
        if "filter" not in query:
            return None
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        return next(value for key, value in predicate.items() if key.startswith("string"))

    def _answer(self, status: int, body: bytes) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def task(
    name: str, state: str, error: str = "", pods: Sequence[tuple[str, str, str]] = ()
) -> list[Any]:
    """A task of a run as the server tells of it: a node, and below it one for each of its pods.

    Args:
        name: of the task.
        state: of the task.
        error: what is said of the task itself.
        pods: name ("executor", with a number where it was tried again), state and error of each.
    """
    known = {
        # Not when a task began to wait: when the run was made, for all of them.
        "create_time": datetime.now(UTC) - timedelta(days=1),
    }

    def node(identifier: str, shown: str, state: str, error: str, **more: Any) -> Any:
        # Neither `error` nor `pod_name`: the server fills them for no task.
        said = api.GoogleRpcStatus(message=error) if error else None
        history = [api.V2beta1RuntimeStatus(state=state, error=said)]
        return api.V2beta1PipelineTaskDetail(
            task_id=identifier,
            display_name=shown,
            state=state,
            state_history=history,
            **known,
            **more,
        )

    # Ids of another kind than those of the tasks.
    children = [api.PipelineTaskDetailChildTask(pod_name=f"workflow-{name}-{pod}") for pod in pods]
    return [
        node(f"id-{name}", name, state, error, child_tasks=children or None),
        *(node(f"id-{name}-{pod}", pod, its, said) for pod, its, said in pods),
    ]


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    """A cluster's API server."""
    with Kubeflow() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Page(BaseHTTPRequestHandler):
    """Some web server: nothing there, a page for everything, or a login before everything."""

    def do_GET(self) -> None:
        kind = self.server.kind  # type: ignore[attr-defined]
        if kind == "nothing":
            self.send_error(404)
        elif kind == "login" and self.path != "/dex/auth":
            self.send_response(302)
            self.send_header("Location", "/dex/auth")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            page = b"<!doctype html><title>Welcome</title>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(params=["nothing", "page", "login"])
def something_else(request) -> Iterator[tuple[str, str]]:
    """What kind of web server it is, and its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.kind = request.param  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield request.param, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

"""A stand-in for Kubernetes' API server, for InferenceServices, with KServe's statuses."""

from __future__ import annotations

import copy
import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATH = re.compile(
    r"/apis/serving\.kserve\.io/v1beta1/namespaces/([^/]+)/inferenceservices(?:/([^/?]+))?"
)


def condition(kind: str, status: str, **more: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": "2026-11-25T10:00:00Z",
        **({"severity": "Info"} if kind == "Stopped" else {}),
        **more,
    }


def status(ready: str, observed: int, **more: Any) -> dict[str, Any]:
    """What KServe 0.21 says of an InferenceService in Standard mode.

    Args:
        ready: "True", "Unknown" while the Deployment is rolled out, "False".
        observed: the Deployment's generation, as KServe copies it.
        more: further fields.
    """
    said = {
        "True": {},
        "Unknown": {
            "reason": "ReplicaSetUpdated",
            "message": 'ReplicaSet "hierrouter-predictor-5c4" is progressing.',
        },
        "False": {
            "reason": "MinimumReplicasUnavailable",
            "message": "Deployment does not have minimum availability.",
        },
    }[ready]
    url = "http://hierrouter-mine.example.com"
    inner = "http://hierrouter-predictor.mine.svc.cluster.local"
    return {
        "conditions": [
            condition("IngressReady", "True" if ready == "True" else "False"),
            condition("PredictorReady", ready, **said),
            condition("Ready", ready, **said),
            condition("Stopped", "False"),
        ],
        "deploymentMode": "Standard",
        "observedGeneration": observed,
        "modelStatus": {
            "copies": {"failedCopies": 0, "totalCopies": 1},
            "states": {"activeModelState": "", "targetModelState": "Pending"},
            "transitionStatus": "UpToDate" if ready == "True" else "InProgress",
        },
        **({"url": url, "address": {"url": inner}} if ready == "True" else {}),
        **more,
    }


class Kubernetes(ThreadingHTTPServer):
    """Keeps InferenceServices as the API does: versions, generations, conflicts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.services: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.version = 100
        self.statuses: list[dict[str, Any] | None] = [status("True", 1)]
        """What a service's status is at each look after it was written; the last one stays."""
        self.refusing: Callable[[str], tuple[int, str] | None] = lambda _: None
        """Status and message for a method, or nothing."""
        self.before_write: Callable[[], None] = lambda: None
        """What somebody else does just before a write."""
        self.silent = 0
        """So many looks are not answered."""
        self.written = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, service: dict[str, Any], more: dict[str, Any] | None = None) -> None:
        """Stores a service; its generation grows with its spec."""
        metadata = service["metadata"]
        key = metadata["namespace"], metadata["name"]
        before = self.services.get(key)
        self.version += 1
        changed = before is None or before["spec"] != service["spec"]
        generation = 0 if before is None else before["metadata"]["generation"]
        stored = copy.deepcopy(service)
        stored["metadata"] |= {
            "resourceVersion": str(self.version),
            "generation": generation + changed,
            "uid": "5b9a" if before is None else before["metadata"]["uid"],
            "finalizers": ["inferenceservice.finalizers"],
            "managedFields": [{"manager": "OpenAPI-Generator", "operation": "Update"}],
        }
        # The status is written by KServe alone.
        stored.pop("status", None)
        if (kept := more or (before or {}).get("status")) is not None:
            stored["status"] = kept
        self.services[key] = stored

    def look(self, service: dict[str, Any]) -> dict[str, Any]:
        """A service as it is at this look."""
        if self.written:
            now = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            if now is not None:
                service["status"] = now
        return service


class Call(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Kubernetes

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _serve(self, method: str) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        server.calls.append(method)
        if method == "GET" and server.written and server.silent:
            server.silent -= 1
            self._refuse(503, "the server is currently unable to handle the request")
            return
        if refused := server.refusing(method):
            self._refuse(*refused)
            return
        found = PATH.fullmatch(self.path.partition("?")[0])
        if self.headers.get("Authorization") != "Bearer of-the-account" or not found:
            self._refuse(401, "Unauthorized")
            return
        if method != "GET":
            server.before_write()
        key = found[1], found[2] or body["metadata"]["name"]
        there = server.services.get(key)
        if method == "POST":
            if there is not None:
                self._refuse(409, f'inferenceservices.serving.kserve.io "{key[1]}" already exists')
                return
            assert "resourceVersion" not in body["metadata"]
        elif there is None:
            self._refuse(404, f'inferenceservices.serving.kserve.io "{key[1]}" not found')
            return
        if method == "GET":
            self._answer(200, server.look(there))
            return
        if there is not None:
            stale = body["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]
            if stale:
                self._refuse(
                    409,
                    f'Operation cannot be fulfilled on inferenceservices "{key[1]}": the object '
                    "has been modified; please apply your changes to the latest version",
                )
                return
        server.put(body)
        server.written = True
        self._answer(201 if method == "POST" else 200, server.services[key])

    def _refuse(self, code: int, message: str) -> None:
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        self._answer(code, {**said, "message": message})

    def _answer(self, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        with suppress(ConnectionError):
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@pytest.fixture
def kubernetes_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    """A cluster, which is that of kubectl's context, in the namespace `mine`."""
    with Kubernetes() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        named = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": server.url}}],
            "users": [{"name": "it", "user": {"token": "of-the-account"}}],
            "contexts": [
                {"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "mine"}}
            ],
        }
        config = tmp_path / "kubeconfig"
        config.write_text(yaml.safe_dump(named))
        monkeypatch.setenv("KUBECONFIG", str(config))
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def kserve() -> Callable[..., dict[str, Any]]:
    """What KServe says of an InferenceService: see `status`."""
    return status

"""The services that runs go to, and whether their versions are among those this was made for."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hierrouter.cli.doctor import Finding


@dataclass(frozen=True, slots=True)
class Supported:
    """Versions that this was made for (docs/kubeflow.md has them as a table).

    Attributes:
        lowest: the first one.
        newest: the newest that it was tried against, as far as there was one to try.
        why: what is missing below `lowest`.
    """

    lowest: str
    newest: str
    why: str


UNANSWERED = (OSError, ValueError, http.client.HTTPException)
"""What asking an address raises that does not speak HTTP there, or is none."""

VERSIONS = {
    "Kubernetes": Supported("1.30", "1.37", "KServe asks for it"),
    "Kubeflow Pipelines": Supported(
        "2.17", "2.17", "accelerators, memory and nodes as parameters, and MLflow, came with it"
    ),
    "KServe": Supported("0.19", "0.21", "the deployment modes were called otherwise"),
    "MLflow": Supported("3.17", "3.17", "the client of this package speaks to it"),
}

_DEPLOYMENTS = {"Kubeflow Pipelines": "ml-pipeline", "KServe": "kserve-controller-manager"}
"""What a cluster calls the servers whose images tell their version."""


def cluster_findings() -> Iterator[Finding]:
    """Looks at MLflow, Kubeflow Pipelines, and what kubectl reaches."""
    yield _mlflow()
    yield _pipelines()
    yield from _kubernetes()


def judged(what: str, version: str | None, found: str) -> Finding:
    """A finding about a service that answers, by its version.

    Args:
        what: a key of `VERSIONS`.
        version: as the service tells it, such as "v1.31.2-gke.100"; none if it does not.
        found: what else was found.
    """
    numbers = _numbers(version or "")
    if not numbers:
        return what, True, f"{found}; its version is not known"
    supported = VERSIONS[what]
    if numbers < _numbers(supported.lowest):
        return what, False, f"{found}, older than {supported.lowest}: {supported.why}"
    if numbers[:2] > _numbers(supported.newest):
        return what, None, f"{found}, newer than {supported.newest}, the last one tried"
    return what, True, found


def _numbers(version: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def _mlflow() -> Finding:
    from hierrouter.tracking.store import DEFAULT_URI, connected, shown_uri, tracking_uri

    if tracking_uri() == DEFAULT_URI and not Path("mlflow.db").exists():
        return "MLflow", None, f"no runs yet; they will go to {DEFAULT_URI} in this folder"
    try:
        with connected():
            pass
    except HierRouterError as error:
        return "MLflow", False, str(error)
    if not tracking_uri().startswith(("http://", "https://")):
        return "MLflow", True, f"{shown_uri()} answers"
    try:
        with urllib.request.urlopen(f"{tracking_uri().rstrip('/')}/version", timeout=5) as answer:
            version = answer.read(100).decode().strip()
    except UNANSWERED:
        version = ""  # a proxy may let nothing through but the API
    return judged("MLflow", version, f"{shown_uri()} answers {version}".rstrip())


def _pipelines() -> Finding:
    what, variable = "Kubeflow Pipelines", "KF_PIPELINES_ENDPOINT"
    endpoint = os.environ.get(variable)
    if not endpoint:
        return what, None, f"no endpoint; set {variable} to use one"
    url = endpoint.rstrip("/") + "/apis/v2beta1/healthz"
    if not url.startswith(("http://", "https://")):
        url = "http://" + url
    if "@" in url.split("/")[2]:
        without = f"{variable} has a user in it; leave that out: `submit` asks with your token"
        return what, False, without
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            told = answer.read(10_000)
    except urllib.error.HTTPError as error:
        refused = f"{endpoint} refuses ({error.code}); `submit` asks with your token"
        return what, None if error.code in (401, 403) else False, refused
    except UNANSWERED as error:
        return what, False, f"{endpoint} does not answer: {error}; correct {variable}"
    try:
        known = isinstance(json.loads(told), dict)
    except ValueError:
        known = False
    if not known:
        found = "answers, but with a page: a login, or another server; `submit` says more"
        return what, None, f"{endpoint} {found}"
    return what, True, f"{endpoint} answers"


def _kubernetes() -> Iterator[Finding]:
    """What kubectl reaches: the cluster, and the servers in it that it may look at."""
    if shutil.which("kubectl") is None:
        yield "Kubernetes", None, "no kubectl; needed only to set a cluster up"
        return
    answer, reason = _kubectl("version")
    server = answer.get("serverVersion")
    if server is None:
        yield "Kubernetes", None, f"no cluster reached with kubectl ({reason})"
        return
    version = str(server.get("gitVersion"))
    _, good, found = judged("Kubernetes", version, f"kubectl reaches {version}")
    yield "Kubernetes", good or None, found
    deployments, reason = _kubectl("get", "deployments", "--all-namespaces")
    if "items" not in deployments:
        yield "in the cluster", None, f"kubectl may not list deployments ({reason})"
        return
    for what, name in _DEPLOYMENTS.items():
        images = [
            container["image"]
            for each in deployments["items"]
            if each["metadata"]["name"] == name
            for container in each["spec"]["template"]["spec"]["containers"]
        ]
        if not images:
            yield f"{what} in the cluster", None, f"not there (no deployment {name})"
            continue
        tags = [image.rpartition(":")[2] for image in images if _numbers(image.rpartition(":")[2])]
        _, good, found = judged(what, next(iter(tags), None), images[0])
        # An old server elsewhere keeps nobody from working on this machine.
        yield f"{what} in the cluster", good or None, found


def _kubectl(*arguments: str) -> tuple[dict[str, Any], str]:
    """Its answer, and the last line of what it says otherwise."""
    command = ["kubectl", "--request-timeout=5s", *arguments, "--output=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return {}, reason
    return (answer if isinstance(answer, dict) else {}), reason

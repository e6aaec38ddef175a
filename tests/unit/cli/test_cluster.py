"""What `doctor` says about the services that runs go to, and about their versions."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hierrouter.cli.cluster import VERSIONS, cluster_findings, judged

ROOT = Path(__file__).parents[3]


def deployment(name: str, image: str) -> dict[str, Any]:
    containers = [{"image": image}]
    return {
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A program of that name that answers with these objects."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def answers(version: str, *deployments: dict[str, Any]) -> None:
        (folder / "version").write_text(json.dumps({"serverVersion": {"gitVersion": version}}))
        (folder / "deployments").write_text(json.dumps({"items": deployments}))
        program = folder / "kubectl"
        program.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *" version "*) cat "{folder}/version" ;;\n'
            f'*" get deployments "*) cat "{folder}/deployments" ;; *) exit 9 ;; esac\n'
        )
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    return answers


def found(what: str) -> tuple[bool | None, str]:
    ((good, text),) = [(good, text) for name, good, text in cluster_findings() if name == what]
    return good, text


@pytest.mark.parametrize(
    ("version", "good", "said"),
    [
        ("v1.29.4-gke.200", False, "older than 1.30: KServe asks for it"),
        ("v1.30.0", True, "reached"),
        ("v1.37.9+rke2r1", True, "reached"),
        ("v1.40.0", None, "newer than 1.37"),
        ("main", True, "its version is not known"),
        (None, True, "its version is not known"),
    ],
)
def test_a_version_is_held_against_those_this_was_made_for(version, good, said) -> None:
    _, sign, text = judged("Kubernetes", version, "reached")
    assert (sign, said in text) == (good, True)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://localhost:80a", "does not answer: nonnumeric port"),
        ("http://[::1", "does not answer: Invalid IPv6 URL"),
        ("https://me:geheim@kf.example.com", "has a user in it"),
    ],
)
def test_an_endpoint_that_is_no_address_is_told_in_a_line(
    here, monkeypatch, endpoint, said
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", endpoint)
    good, text = found("Kubeflow Pipelines")
    assert (good, said in text) == (False, True), text
    assert "KF_PIPELINES_ENDPOINT" in text
    assert "geheim" not in text


def test_a_server_that_speaks_no_http_is_told_in_a_line(here, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:

        def answer() -> None:
            with foreign.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"\x00\x00 no HTTP\r\n")

        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"127.0.0.1:{foreign.getsockname()[1]}")
        answering = threading.Thread(target=answer)
        answering.start()
        good, text = found("Kubeflow Pipelines")
        answering.join()
    assert (good, "does not answer: " in text) == (False, True), text


def test_a_cluster_tells_its_versions_by_its_images(here, kubectl) -> None:
    kubectl(
        "v1.33.1",
        deployment("ml-pipeline", "ghcr.io/kubeflow/kfp-api-server:2.5.0"),
        deployment("kserve-controller-manager", "registry:5000/kserve/controller:v0.21.0"),
        deployment("other", "other:9"),
    )
    assert found("Kubernetes") == (True, "kubectl reaches v1.33.1")
    good, text = found("Kubeflow Pipelines in the cluster")
    # An old server elsewhere keeps nobody from working on this machine.
    assert good is None
    assert text.startswith("ghcr.io/kubeflow/kfp-api-server:2.5.0, older than 2.17")
    assert found("KServe in the cluster") == (True, "registry:5000/kserve/controller:v0.21.0")


def test_what_is_not_in_the_cluster_is_said(here, kubectl) -> None:
    kubectl("v1.33.1")
    assert found("KServe in the cluster") == (
        None,
        "not there (no deployment kserve-controller-manager)",
    )


def test_a_kubectl_that_reaches_nothing_is_no_fault(here, kubectl, tmp_path) -> None:
    kubectl("v1.33.1")
    (tmp_path / "bin" / "kubectl").write_text("#!/bin/sh\necho 'refused' >&2; exit 1\n")
    assert found("Kubernetes") == (None, "no cluster reached with kubectl (refused)")


def test_a_tracking_server_tells_its_version(server, kubectl) -> None:
    kubectl("v1.33.1")
    good, text = found("MLflow")
    assert good is True
    assert text.startswith(f"{server} answers 3.")


def test_the_table_in_the_documents_is_this_one() -> None:
    rows = {
        cells[0]: cells[1:3]
        for line in (ROOT / "docs" / "kubeflow.md").read_text().splitlines()
        if line.startswith("|")
        and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) > 2
    }
    for what, supported in VERSIONS.items():
        assert rows[what] == [supported.lowest, supported.newest]

"""The manifests as kubectl builds them, against Kubernetes' schemas and against the pipeline."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pipelines.definition import Compiled
from pipelines.package import write_package

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
KUBERNETES = "1.37"
FOREIGN = {
    "Profile": {"owner", "resourceQuotaSpec"},
    "PodDefault": {"desc", "selector", "env", "volumeMounts", "volumes"},
}
"""Kubeflow's own kinds, and the fields of their spec that are used here."""


@cache
def built(overlay: str) -> list[Any]:
    kubectl = Path(sys.executable).parent / "kubectl"
    command = [str(kubectl), "kustomize", str(MANIFESTS / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(kind: str, overlay: str) -> list[Any]:
    return [each for each in built(overlay) if each["kind"] == kind]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_what_kubernetes_takes(overlay) -> None:
    for each in built(overlay):
        if each["kind"] in FOREIGN:
            assert each["spec"].keys() <= FOREIGN[each["kind"]]
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_the_check_refuses_an_unknown_field() -> None:
    (deployment,) = of_kind("Deployment", "development")
    wrong = yaml.safe_load(yaml.safe_dump(deployment))
    wrong["spec"]["template"]["spec"]["containers"][0]["readyness"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_binding_says_whose_account_it_binds(overlay) -> None:
    """Kubernetes refuses a service account without its namespace, and kubectl -n adds none."""
    (binding,) = of_kind("RoleBinding", overlay)
    (subject,) = binding["subjects"]
    (account,) = of_kind("ServiceAccount", overlay)
    assert subject["name"] == account["metadata"]["name"]
    assert subject["namespace"] == account["metadata"]["namespace"]
    assert binding["roleRef"]["name"] in {
        each["metadata"]["name"] for each in of_kind("Role", overlay)
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_volumes_are_those_that_the_pipeline_mounts(overlay, tmp_path) -> None:
    config = ROOT / "configs" / "scripted.yaml"
    write_package(config, [], Compiled(), tmp_path / "pipeline.yaml")
    pipeline = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    claims = {each["metadata"]["name"]: each for each in of_kind("PersistentVolumeClaim", overlay)}
    for parameter in ("recordings_claim", "models_claim"):
        claim = claims[parameters[parameter]["defaultValue"]]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_profile_is_what_kubeflow_takes() -> None:
    (profile,) = yaml.safe_load_all((MANIFESTS / "profile.yaml").read_text())
    assert profile["kind"] == "Profile"
    assert profile["spec"].keys() == FOREIGN["Profile"]
    assert profile["spec"]["owner"].keys() == {"kind", "name"}
    namespace = profile["metadata"]["name"]
    assert all(each["metadata"]["namespace"] == namespace for each in built("profile"))


def test_what_a_pod_default_mounts_is_what_it_brings() -> None:
    (pod_default,) = of_kind("PodDefault", "profile")
    spec = pod_default["spec"]
    assert {each["name"] for each in spec["volumeMounts"]} == {
        each["name"] for each in spec["volumes"]
    }
    (token,) = spec["volumes"][0]["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
    (variable,) = spec["env"]
    (mount,) = spec["volumeMounts"]
    path = f"{mount['mountPath']}/{token['serviceAccountToken']['path']}"
    assert (variable["name"], variable["value"]) == ("KF_PIPELINES_SA_TOKEN_PATH", path)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_a_manifest(overlay) -> None:
    assert not of_kind("Secret", overlay)


def test_pods_have_no_more_rights_than_they_need() -> None:
    (deployment,) = of_kind("Deployment", "development")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {each["mountPath"] for each in container["volumeMounts"]}
    assert writable == {"/data", "/tmp"}
    arguments = " ".join(container["args"])
    assert "/data/mlflow.db" in arguments
    assert "/data/artifacts" in arguments


@pytest.fixture(scope="module")
def mlflow_of_the_manifest(start_mlflow, tmp_path_factory) -> str:
    """A server started with the manifest's arguments, on another port and folder."""
    (deployment,) = of_kind("Deployment", "development")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    folder = tmp_path_factory.mktemp("data")
    arguments = [
        each.replace("/data", str(folder))
        for each in container["args"]
        if not each.startswith(("--host=", "--port="))
    ]
    return start_mlflow(*arguments)


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/api/2.0/mlflow/experiments/search?max_results=1", "mlflow-dev:5000", 200),
        ("/api/2.0/mlflow/experiments/search?max_results=1", "mlflow-dev.kubeflow:5000", 200),
        (
            "/api/2.0/mlflow/experiments/search?max_results=1",
            "mlflow-dev.kubeflow.svc.cluster.local:5000",
            200,
        ),
        ("/api/2.0/mlflow/experiments/search?max_results=1", "localhost:5000", 200),
        ("/api/2.0/mlflow/experiments/search?max_results=1", "evil.example:5000", 403),
        # A probe comes by the pod's address.
        ("/health", "10.1.2.3:5000", 200),
    ],
)
def test_mlflow_answers_to_the_names_that_pods_call_it_by(
    mlflow_of_the_manifest, path, host, status
) -> None:
    request = urllib.request.Request(mlflow_of_the_manifest + path, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = answer.status
    except urllib.error.HTTPError as error:
        found = error.code
    assert found == status

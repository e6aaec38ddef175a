"""The pipeline's last step against MLflow and a stand-in for Kubernetes' API server."""

from __future__ import annotations

import copy
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from components.deploy_router.component import deploy_router
from kfp import dsl
from mlflow import MlflowClient

from hierrouter.config import PoolConfig
from hierrouter.errors import ConfigError, HierRouterError, UnreachableError
from hierrouter.serving import deploy as deploying
from hierrouter.serving.deploy import SETTLED, TRIES, Services
from hierrouter.serving.manifest_settings import ManifestSettings
from hierrouter.serving.manifests import ROUTER, made_objects
from hierrouter.stages.deploy import deploy

if TYPE_CHECKING:
    from collections.abc import Callable

POOL = json.dumps({"models": [{"name": "A.1", "model": "org/a", "base_rate": 0.001}]})
POLL_S = 0.001


@pytest.fixture(scope="module")
def mlflow(start_mlflow, migrated, tmp_path_factory) -> str:
    """A server with three versions of a router, the second of which is champion."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "mlflow.db").write_bytes(migrated.read_bytes())
    uri = start_mlflow("--backend-store-uri", f"sqlite:///{folder}/mlflow.db")
    client = MlflowClient(uri)
    for name in ("hierrouter", "without"):
        client.create_registered_model(name)
        for _ in range(3):
            client.create_model_version(name, source="s3://bucket/router")
    client.set_registered_model_alias("hierrouter", "champion", "2")
    client.set_registered_model_alias("hierrouter", "challenger", "3")
    return uri


@pytest.fixture
def step(mlflow, tmp_path, monkeypatch) -> Callable[..., str]:
    """The stage, with everything filled in but what a test gives."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)  # and back at the end

    def run(version: str = "models:/hierrouter/2", **given: Any) -> str:
        settings = {"apply": True, "mlflow_uri": mlflow, "poll_s": POLL_S, **given}
        return deploy(POOL, version, "registry/hierrouter:1", tmp_path / "manifest", **settings)

    return run


@pytest.fixture
def services(kubernetes_api) -> Services:
    return Services("mine", POLL_S)


def router(version: int = 2, **metadata: Any) -> dict[str, Any]:
    pool = PoolConfig.model_validate(json.loads(POOL))
    settings = ManifestSettings(
        f"models:/hierrouter/{version}", "http://mlflow:5000", "registry/hierrouter:1", "mine"
    )
    (service,) = made_objects(pool, settings)[ROUTER]
    service["metadata"] |= metadata
    return service


def there(kubernetes_api: Any) -> dict[str, Any]:
    return kubernetes_api.services["mine", "hierrouter"]


def test_the_champion_is_made_and_waited_for(
    step, kubernetes_api, mlflow, tmp_path, kserve, capfd
) -> None:
    kubernetes_api.statuses = [None, kserve("Unknown", 1), kserve("False", 1), kserve("True", 1)]
    assert step() == "http://hierrouter-predictor.mine.svc.cluster.local"
    assert kubernetes_api.calls == ["GET", "POST", *["GET"] * 4]
    made = there(kubernetes_api)
    written = yaml.safe_load((tmp_path / "manifest").read_text())
    assert made["spec"] == written["spec"]
    assert written["metadata"]["namespace"] == "mine"
    assert written["spec"]["predictor"]["model"]["image"] == "registry/hierrouter:1"
    arguments = written["spec"]["predictor"]["model"]["args"]
    assert arguments == [
        "--router=models:/hierrouter/2",
        "--endpoint=A.1=http://a-1-predictor.mine.svc.cluster.local/openai/v1",
    ]
    variables = {
        each["name"]: each.get("value") for each in written["spec"]["predictor"]["model"]["env"]
    }
    assert variables["MLFLOW_TRACKING_URI"] == mlflow
    said = capfd.readouterr().err
    assert 'Ready is Unknown (ReplicaSetUpdated: ReplicaSet "hierrouter-predictor-5c4"' in said
    assert "Stopped" not in said


@pytest.mark.parametrize(
    ("version", "champion"),
    [("models:/hierrouter/3", "models:/hierrouter/2"), ("models:/without/1", "no version at all")],
)
def test_any_other_version_is_left_alone(step, kubernetes_api, tmp_path, version, champion) -> None:
    assert step(version) == ""
    assert kubernetes_api.calls == []
    text = (tmp_path / "manifest").read_text()
    assert text == f"# {version} is not deployed: the champion is {champion}\n"
    assert yaml.safe_load(text) is None


def test_a_version_of_nothing_is_an_error(step) -> None:
    with pytest.raises(HierRouterError, match="dreams"):
        step("models:/dreams/1")


def test_it_may_only_be_written(step, kubernetes_api, tmp_path) -> None:
    assert step(apply=False, namespace="theirs") == ""
    assert kubernetes_api.calls == []
    written = yaml.safe_load((tmp_path / "manifest").read_text())
    assert written["metadata"]["namespace"] == "theirs"
    assert written["kind"] == "InferenceService"


def test_the_models_may_be_in_the_same_pod(step, kubernetes_api, tmp_path) -> None:
    step(apply=False, all_in_one=True, keys_secret="mine")
    written = yaml.safe_load((tmp_path / "manifest").read_text())
    model = written["spec"]["predictor"]["model"]
    assert model["args"] == ["--router=models:/hierrouter/2"]
    assert {"name": "mine", "key": "HIERROUTER_API_KEYS"} in [
        each["valueFrom"]["secretKeyRef"] for each in model["env"] if "valueFrom" in each
    ]


def test_the_component_hands_all_of_it_on(mlflow, kubernetes_api, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    manifest = dsl.Artifact(name="manifest", uri=str(tmp_path / "manifest"), metadata={})
    far = {"url": "http://far/v1", "api_key_env": "FAR_KEY"}
    model = {"name": "far", "model": "far", "backend": "openai", "endpoint": far, "base_rate": 0.1}
    address = deploy_router.python_func(
        json.dumps({"models": [model]}),
        "models:/hierrouter/2",
        "registry/hierrouter:1",
        manifest,
        True,
        "elsewhere",
        mlflow,
        "their-keys",
        True,
        1.0,
        mlflow_secret="our-mlflow",
        store_secret="our-store",
        hugging_face_secret="our-hub",
        endpoint_secret="our-endpoints",
        pull_secrets=["our-registry"],
    )
    assert address == "http://hierrouter-predictor.mine.svc.cluster.local"
    predictor = kubernetes_api.services["elsewhere", "hierrouter"]["spec"]["predictor"]
    assert predictor["model"]["args"] == ["--router=models:/hierrouter/2", "--endpoint-key=FAR_KEY"]
    assert predictor["imagePullSecrets"] == [{"name": "our-registry"}]
    variables = [each["valueFrom"] for each in predictor["model"]["env"] if "valueFrom" in each]
    secrets = {each["secretKeyRef"]["name"] for each in variables}
    assert secrets == {"their-keys", "our-mlflow", "our-store", "our-hub", "our-endpoints"}


def test_where_no_namespace_is_known(step, kubernetes_api, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no namespace is known here"):
        step(apply=False)
    with pytest.raises(ConfigError, match="no cluster is known here"):
        step(namespace="mine")


def test_a_pod_deploys_into_its_own_namespace(tmp_path, monkeypatch) -> None:
    (tmp_path / "namespace").write_text("of-the-pod\n")
    monkeypatch.setattr(deploying, "ACCOUNT", tmp_path)
    assert deploying.own_namespace() == "of-the-pod"


def test_a_new_version_takes_the_place_of_the_old(services, kubernetes_api, kserve) -> None:
    noted = {"owner": "us", "serving.kserve.io/deploymentMode": "Standard"}
    old = router(1, annotations=noted, labels={"team": "ours"})
    kubernetes_api.put(old, kserve("True", 3))
    # Ready for the version before until KServe has looked, then rolled out.
    stale, rolling = kserve("True", 3), kserve("Unknown", 4)
    kubernetes_api.statuses = [stale, stale, rolling, kserve("True", 4)]
    seen = services.apply(router(2))
    assert seen == 3
    assert services.wait("hierrouter", seen, 60)
    assert len(kubernetes_api.statuses) == 1, "it was taken for ready too early"
    made = there(kubernetes_api)
    assert "--router=models:/hierrouter/2" in made["spec"]["predictor"]["model"]["args"]
    assert made["metadata"]["annotations"] == noted
    assert made["metadata"]["labels"].items() >= {"team": "ours"}.items()
    assert made["metadata"]["labels"]["app.kubernetes.io/part-of"] == "hierrouter"
    assert made["metadata"]["generation"] == 2


def test_a_change_that_changes_no_pod_is_ready_when_it_stays_so(
    services, kubernetes_api, kserve
) -> None:
    before = router(2)
    before["spec"]["predictor"]["timeout"] = 30
    kubernetes_api.put(before, kserve("True", 3))
    kubernetes_api.statuses = [kserve("True", 3)]
    seen = services.apply(router(2))
    kubernetes_api.calls.clear()
    assert services.wait("hierrouter", seen, 60)
    assert kubernetes_api.calls == ["GET"] * SETTLED


def test_the_same_again_is_ready_at_once(services, kubernetes_api, kserve) -> None:
    kubernetes_api.put(router(2), kserve("True", 3))
    kubernetes_api.statuses = [kserve("True", 3)]
    assert services.wait("hierrouter", services.apply(router(2)), 60)
    assert kubernetes_api.calls == ["GET", "PUT", "GET"]
    assert there(kubernetes_api)["metadata"]["generation"] == 1


def others_write(kubernetes_api: Any, times: int) -> Callable[[], None]:
    """Somebody who writes before us, so many times."""
    left = [times]

    def write() -> None:
        if left[0]:
            left[0] -= 1
            theirs = copy.deepcopy(kubernetes_api.services.get(("mine", "hierrouter")) or router(1))
            theirs["metadata"].setdefault("annotations", {})["theirs"] = str(left[0])
            kubernetes_api.put(theirs)

    return write


@pytest.mark.parametrize("new", [True, False])
def test_who_writes_meanwhile_loses_nothing(services, kubernetes_api, kserve, new) -> None:
    if not new:
        kubernetes_api.put(router(1), kserve("True", 3))
    kubernetes_api.before_write = others_write(kubernetes_api, 2)
    services.apply(router(2))
    assert kubernetes_api.calls.count("GET") == 3
    assert kubernetes_api.calls[-1] == "PUT"
    made = there(kubernetes_api)
    assert made["metadata"]["annotations"]["theirs"] == "0"
    assert "--router=models:/hierrouter/2" in made["spec"]["predictor"]["model"]["args"]


def test_who_never_stops_writing_is_given_way_to(services, kubernetes_api) -> None:
    kubernetes_api.put(router(1))
    kubernetes_api.before_write = others_write(kubernetes_api, 1000)
    with pytest.raises(UnreachableError, match="was changed by somebody else at each of 5 tries"):
        services.apply(router(2))
    assert kubernetes_api.calls == ["GET", "PUT"] * TRIES


def test_what_is_no_router_is_left_as_it_is(services, kubernetes_api) -> None:
    other = router(1)
    other["spec"]["predictor"]["model"]["modelFormat"]["name"] = "sklearn"
    kubernetes_api.put(other)
    with pytest.raises(ConfigError, match="hierrouter in mine is no router"):
        services.apply(router(2))
    assert kubernetes_api.calls == ["GET"]


FORBIDDEN = (
    'inferenceservices.serving.kserve.io is forbidden: User "system:serviceaccount:mine:default" '
    'cannot create resource "inferenceservices" in API group "serving.kserve.io"'
)
DENIED = (
    'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '
    "'MinReplicas' cannot be greater than MaxReplicas"
)


@pytest.mark.parametrize(
    ("method", "status", "message", "kind", "said"),
    [
        ("GET", 403, FORBIDDEN, HierRouterError, "this account may not deploy in mine"),
        ("POST", 403, FORBIDDEN, HierRouterError, "manifests/components/deploy has the rights"),
        ("POST", 403, DENIED, HierRouterError, "does not take the InferenceService (admission"),
        ("POST", 404, "the server could not find the", HierRouterError, "there is no KServe"),
        ("POST", 422, "spec.predictor: Invalid", HierRouterError, "refuses the InferenceService"),
        ("POST", 500, "etcdserver: timed out", UnreachableError, "cannot answer now (500: etcd"),
    ],
)
def test_a_refusal_is_one_line(
    services, kubernetes_api, method, status, message, kind, said
) -> None:
    kubernetes_api.refusing = lambda each: (status, message) if each == method else None
    with pytest.raises(kind) as caught:
        services.apply(router(2))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kubernetes_api.services == {}


def test_a_cluster_that_does_not_answer(kubernetes_api, tmp_path, monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = (tmp_path / "kubeconfig").read_text()
        dead = config.replace(kubernetes_api.url, f"http://127.0.0.1:{taken.getsockname()[1]}")
        (tmp_path / "dead").write_text(dead)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "dead"))
        with pytest.raises(UnreachableError, match="Kubernetes does not answer"):
            Services("mine", POLL_S).apply(router(2))


def test_one_that_stays_unready_is_given_up_with_the_reason(
    services, kubernetes_api, kserve
) -> None:
    failure = {
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": {
            "reason": "ModelLoadFailed",
            "message": "error: models:/hierrouter/2 is not a router in MLflow",
            "exitCode": 1,
        },
    }
    kubernetes_api.statuses = [kserve("False", 1, modelStatus=failure)]
    with pytest.raises(HierRouterError) as caught:
        services.wait("hierrouter", services.apply(router(2)), 0.05)
    line = str(caught.value)
    assert "InferenceService hierrouter in mine is not ready after" in line
    assert "PredictorReady is False (MinimumReplicasUnavailable: Deployment does not have" in line
    assert "models:/hierrouter/2 is not a router in MLflow" in line
    assert "Stopped" not in line
    assert "\n" not in line


def test_one_that_nobody_looks_at_is_given_up_too(services, kubernetes_api) -> None:
    kubernetes_api.statuses = [None]
    with pytest.raises(HierRouterError, match="KServe has not looked at it yet"):
        services.wait("hierrouter", services.apply(router(2)), 0.01)


def test_one_that_is_deleted_meanwhile(services, kubernetes_api) -> None:
    seen = services.apply(router(2))
    kubernetes_api.services.clear()
    with pytest.raises(HierRouterError, match="hierrouter in mine is gone"):
        services.wait("hierrouter", seen, 60)


def test_a_server_that_is_away_for_a_while_is_asked_again(services, kubernetes_api) -> None:
    kubernetes_api.silent = deploying.FAILURES - 1
    assert services.wait("hierrouter", services.apply(router(2)), 60)
    kubernetes_api.silent = deploying.FAILURES
    with pytest.raises(UnreachableError, match="cannot answer now"):
        services.wait("hierrouter", -1, 60)

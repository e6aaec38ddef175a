"""What `hierrouter manifests` writes, against the SDK's types, KServe's rules and Kubernetes'."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import typer
import yaml
from components.deploy_router.component import deploy_router
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.definition import Compiled, build

from hierrouter.cli.main import app
from hierrouter.config import PoolConfig
from hierrouter.configfile import load_config
from hierrouter.errors import ConfigError
from hierrouter.serving.deploy import KIND, PLURAL
from hierrouter.serving.keys import VARIABLE
from hierrouter.serving.kserve_import import no_arguments
from hierrouter.serving.manifest_settings import ManifestSettings
from hierrouter.serving.manifests import made_objects, served_models, write_manifests
from hierrouter.serving.serve import ServeSettings
from hierrouter.serving.slugs import LONGEST, slug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

with no_arguments():
    import kserve.models
    import kubernetes.client

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "manifests" / "serving"
KUBERNETES = "1.37"
SETTINGS = ManifestSettings("models:/hierrouter/1", "http://mlflow:5000", "hierrouter:dev")
COMMAND = (
    *("manifests", "--config", ROOT / "configs" / "small_pool.yaml"),
    *("--router", "models:/hierrouter/1", "--image", "hierrouter:dev"),
    *("--mlflow-uri", "http://mlflow-dev.kubeflow:5000"),
)
MLFLOW_KEYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
FOLDERS = {"base": (), "overlays/all-in-one-cpu": ("--all-in-one",)}
"""The committed folders, and what `COMMAND` has besides to write them."""


@cache
def built(folder: Path) -> list[Any]:
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(kind: str, objects: list[Any]) -> list[Any]:
    return [each for each in objects if each["kind"] == kind]


def router_of(objects: list[Any]) -> Any:
    (router,) = (each for each in of_kind("InferenceService", objects) if is_router(each))
    return router


def is_router(service: Any) -> bool:
    return service["spec"]["predictor"]["model"]["modelFormat"]["name"] == "hierrouter"


def model(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "model": f"org/{name}", "base_rate": 0.001, **more}


def made(*models: dict[str, Any], **more: Any) -> list[Any]:
    """All objects of a pool."""
    pool = PoolConfig.model_validate({"models": list(models)})
    settings = ManifestSettings(**{**SETTINGS.__dict__, **more})
    return [each for file in made_objects(pool, settings).values() for each in file]


@pytest.fixture(params=FOLDERS)
def committed(request) -> list[Any]:
    return built(SERVING / request.param)


def arguments(service: Any) -> list[str]:
    return service["spec"]["predictor"]["model"]["args"]


def endpoints(objects: list[Any]) -> dict[str, str]:
    given = [each for each in arguments(router_of(objects)) if each.startswith("--endpoint=")]
    return dict(each.removeprefix("--endpoint=").split("=", 1) for each in given)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_committed_files_are_what_the_command_writes(hierrouter, tmp_path, folder) -> None:
    code, _ = hierrouter(*COMMAND, "--out", tmp_path / "out", *FOLDERS[folder])
    assert code == 0
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert written == {path.name: path.read_text() for path in (SERVING / folder).iterdir()}


def problems(value: Any, kind: str, at: str = "") -> Iterator[str]:
    """Where a value is not what the SDK's types have: unknown fields, wrong types."""
    plain = {"str": str, "int": int, "bool": bool, "object": object, "float": (int, float)}
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{at}: no list"
            return
        for number, each in enumerate(value):
            yield from problems(each, found[1], f"{at}[{number}]")
    elif found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{at}: no dict"
            return
        for key, each in value.items():
            yield from problems(each, found[1], f"{at}.{key}")
    elif kind in plain:
        wrong_bool = isinstance(value, bool) and kind in ("int", "float")
        if not isinstance(value, plain[kind]) or wrong_bool:
            yield f"{at}: no {kind}"
    else:
        known = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind)
        names = {name: field for field, name in known.attribute_map.items()}
        if not isinstance(value, dict):
            yield f"{at}: no {kind}"
            return
        for key, each in value.items():
            if key not in names:
                yield f"{at}.{key}: unknown to {kind}"
            else:
                yield from problems(each, known.openapi_types[names[key]], f"{at}.{key}")


TYPES = {"InferenceService": "V1beta1InferenceService", "ServingRuntime": "V1alpha1ServingRuntime"}


def test_every_object_is_of_the_sdks_types(committed) -> None:
    assert len(of_kind("ServingRuntime", committed)) == 1
    for each in committed:
        assert list(problems(each, TYPES[each["kind"]])) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("spec", "predictor", "timeoutSeconds"), 60, "predictor.timeoutSeconds: unknown"),
        (("spec", "predictor", "model", "modelFormat", "names"), "x", "names: unknown"),
        (("spec", "predictor", "minReplicas"), "1", "minReplicas: no int"),
        (("spec", "predictor", "model", "args"), "--a", "args: no list"),
        (("spec", "predictor", "automountServiceAccountToken"), "no", "Token: no bool"),
    ],
)
def test_the_walk_over_types_refuses(path, value, said) -> None:
    service = copy.deepcopy(router_of(built(SERVING / "base")))
    inner = service
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (found,) = problems(service, TYPES["InferenceService"])
    assert said in found


# KServe's webhooks and reconcilers, as rules over one InferenceService or ServingRuntime.


def named_as_kserve_wants(service: Any) -> bool:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    host = f"{name}-predictor-{namespace}"
    return bool(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)) and len(host) <= 63


def has_one_predictor(service: Any) -> bool:
    frameworks = {"model", "containers", "huggingface", "sklearn", "pytorch", "triton", "onnx"}
    return len(frameworks & service["spec"]["predictor"].keys()) == 1


def names_no_container(service: Any) -> bool:
    return not service["spec"]["predictor"]["model"].get("name")


def is_in_standard_mode(service: Any) -> bool:
    return service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


def scales_between_bounds(service: Any) -> bool:
    predictor = service["spec"]["predictor"]
    return 0 <= predictor["minReplicas"] <= predictor["maxReplicas"]


def is_no_server_of_many_models(service: Any) -> bool:
    """Else KServe puts its agent beside it (IsMMSPredictor)."""
    given = service["spec"]["predictor"]["model"]
    return given["modelFormat"]["name"] == "huggingface" or bool(
        {"storageUri", "storage"} & given.keys()
    )


def downloads_nothing(service: Any) -> bool:
    given = service["spec"]["predictor"]["model"]
    return "storageUri" not in given and not given.get("storage")


def states_what_kserve_would_fill_in(service: Any) -> bool:
    given = service["spec"]["predictor"]["model"]["resources"]
    return all({"cpu", "memory"} <= given[part].keys() for part in ("requests", "limits"))


def blocks_no_variable(service: Any) -> bool:
    return "PYTHONPATH" not in {
        each["name"] for each in service["spec"]["predictor"]["model"]["env"]
    }


RULES: dict[Callable[[Any], bool], tuple[tuple[str, ...], Any]] = {
    named_as_kserve_wants: (("metadata", "name"), "7b"),
    has_one_predictor: (("spec", "predictor", "containers"), [{"name": "x"}]),
    names_no_container: (("spec", "predictor", "model", "name"), "kserve-container"),
    is_in_standard_mode: (
        ("metadata", "annotations", "serving.kserve.io/deploymentMode"),
        "Serverless",
    ),
    scales_between_bounds: (("spec", "predictor", "minReplicas"), 2),
    is_no_server_of_many_models: (
        ("spec", "predictor", "model"),
        {"modelFormat": {"name": "hierrouter"}},
    ),
    downloads_nothing: (("spec", "predictor", "model", "storage"), {"path": "x"}),
    states_what_kserve_would_fill_in: (
        ("spec", "predictor", "model", "resources", "limits"),
        {"cpu": "4"},
    ),
    blocks_no_variable: (("spec", "predictor", "model", "env"), [{"name": "PYTHONPATH"}]),
}
"""Each with what breaks it."""


@pytest.mark.parametrize("rule", RULES)
def test_kserves_webhooks_take_every_service(committed, rule) -> None:
    for service in of_kind("InferenceService", committed):
        assert rule(service)


@pytest.mark.parametrize(("rule", "wrong"), RULES.items())
def test_a_service_that_breaks_a_rule_is_seen(rule, wrong) -> None:
    service = copy.deepcopy(router_of(built(SERVING / "base")))
    (*path, last), value = wrong
    inner = service
    for key in path:
        inner = inner[key]
    inner[last] = value
    assert not rule(service)


def test_the_runtime_is_the_one_that_the_router_names(committed) -> None:
    (runtime,) = of_kind("ServingRuntime", committed)
    given = router_of(committed)["spec"]["predictor"]["model"]
    assert given["runtime"] == runtime["metadata"]["name"]
    formats = {(each["name"], each["version"]) for each in runtime["spec"]["supportedModelFormats"]}
    assert (given["modelFormat"]["name"], given["modelFormat"]["version"]) in formats
    assert runtime["spec"]["containers"][0]["name"] == "kserve-container"


def test_the_router_is_served_by_its_image_on_a_runtime_of_another() -> None:
    (runtime,) = of_kind("ServingRuntime", made(model("a"), image="registry/hierrouter:1"))
    service = router_of(made(model("a"), image="registry/hierrouter:2"))
    (container,) = pod_of(service, runtime)["spec"]["containers"]
    assert container["image"] == "registry/hierrouter:2"


def pod_of(service: Any, runtime: Any) -> dict[str, Any]:
    """The pod that KServe makes: the runtime's container completed with the service's."""
    spec = dict(service["spec"]["predictor"])
    for own in ("minReplicas", "maxReplicas", "timeout"):
        spec.pop(own)
    given = spec.pop("model")
    for own in ("modelFormat", "runtime", "storage"):
        given = {key: value for key, value in given.items() if key != own}
    (container,) = runtime["spec"]["containers"] if runtime else ({"name": "kserve-container"},)
    joined = {key: container.get(key, []) + given.get(key, []) for key in ("args", "env")}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": service["metadata"]["name"], "labels": service["metadata"]["labels"]},
        "spec": {
            **spec,
            "containers": [{**container, **given, **joined}],
            "volumes": runtime["spec"]["volumes"] if runtime else [],
        },
    }


def pods(objects: list[Any]) -> Iterator[dict[str, Any]]:
    (runtime,) = of_kind("ServingRuntime", objects)
    for each in of_kind("InferenceService", objects):
        yield pod_of(each, runtime if is_router(each) else None)


def test_the_pods_are_what_kubernetes_takes(committed) -> None:
    for pod in pods(committed):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    pod["spec"]["containers"][0]["startupProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_pods_have_no_more_rights_than_they_need(committed) -> None:
    for pod in pods(committed):
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert spec["automountServiceAccountToken"] is False
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}


def test_the_router_writes_only_where_there_is_a_volume(committed) -> None:
    (runtime,) = of_kind("ServingRuntime", committed)
    (container,) = pod_of(router_of(committed), runtime)["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert {each["name"] for each in runtime["spec"]["volumes"]} == set(mounts.values())
    assert "/tmp" in mounts  # the image's HOME
    variables = {each["name"]: each.get("value", "") for each in container["env"]}
    for name in ("HIERROUTER_HOME", "HF_HOME"):
        assert any(variables[name].startswith(f"{path}/") for path in mounts)


def test_the_server_understands_how_it_is_started(committed) -> None:
    (runtime,) = of_kind("ServingRuntime", committed)
    (container,) = pod_of(router_of(committed), runtime)["spec"]["containers"]
    program, name = container["command"]
    assert program == "hierrouter"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    given = command.make_context(name, list(container["args"])).params
    assert given["router"] == "models:/hierrouter/1"
    assert given["port"] == container["ports"][0]["containerPort"] == 8080
    assert given["no_auth"] is False
    assert dict(each.split("=", 1) for each in given["endpoints"] or ()) == endpoints(committed)
    # It is told to end after the pod has left the service, and is killed only after its grace.
    spec = router_of(committed)["spec"]["predictor"]
    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert given["grace"] == ServeSettings.grace_s
    assert spec["terminationGracePeriodSeconds"] > int(pause) + given["grace"]


def test_a_start_that_takes_minutes_is_no_failure(committed) -> None:
    (container,) = of_kind("ServingRuntime", committed)[0]["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1200
    ports = {each["name"] for each in container["ports"]}
    for kind, path in (("startup", "live"), ("readiness", "ready"), ("liveness", "live")):
        asked = container[f"{kind}Probe"]["httpGet"]
        assert asked["path"] == f"/v2/health/{path}"
        assert asked["port"] in ports


def test_every_address_of_a_model_is_one_that_kserve_makes(committed) -> None:
    (router,) = (router_of(committed),)
    namespace = router["metadata"]["namespace"]
    there = {
        f"{each['metadata']['name']}-predictor.{namespace}.svc.cluster.local"
        for each in of_kind("InferenceService", committed)
    }
    for url in endpoints(committed).values():
        assert urlsplit(url).hostname in there
        assert urlsplit(url).path == "/openai/v1"
    assert len(there) == len(set(endpoints(committed).values())) + 1


def test_the_models_of_the_pool_are_all_answered_for() -> None:
    pool = load_config(ROOT / "configs" / "small_pool.yaml").pool
    base, together = built(SERVING / "base"), built(SERVING / "overlays" / "all-in-one-cpu")
    assert list(endpoints(base)) == [spec.name for spec in pool.models]
    # What a server is asked for is what it is called there.
    services = {each["metadata"]["name"]: each for each in of_kind("InferenceService", base)}
    for spec in pool.models:
        service = services[
            str(urlsplit(endpoints(base)[spec.name]).hostname).split("-predictor")[0]
        ]
        assert f"--model_name={spec.model}" in arguments(service)
        assert f"--model_id={spec.model}" in arguments(service)
    assert len(services) == 3  # two models share their weights
    assert endpoints(together) == {}
    assert [each["metadata"]["name"] for each in of_kind("InferenceService", together)] == [
        "hierrouter"
    ]
    assert memory(router_of(together)) > memory(router_of(base))


def memory(service: Any) -> int:
    asked = service["spec"]["predictor"]["model"]["resources"]
    assert asked["requests"]["memory"] == asked["limits"]["memory"]
    return int(asked["limits"]["memory"].removesuffix("Gi"))


def secrets(service: Any) -> dict[str, tuple[str, bool]]:
    return {
        each["name"]: (
            source["secretKeyRef"]["name"],
            source["secretKeyRef"].get("optional", False),
        )
        for each in service["spec"]["predictor"]["model"]["env"]
        if (source := each.get("valueFrom"))
    }


def test_no_secret_is_in_a_manifest_and_keys_come_from_one(committed) -> None:
    assert not of_kind("Secret", committed)
    for service in of_kind("InferenceService", committed):
        for variable, (_, optional) in secrets(service).items():
            assert optional == (variable != VARIABLE)
    assert secrets(router_of(committed))[VARIABLE] == ("hierrouter-api-keys", False)


def test_secrets_are_called_as_in_the_pipeline() -> None:
    parts = dict.fromkeys(("data", "pool", "training", "evaluation"), "{}")
    command = typer.main.get_command(app).commands["manifests"]  # type: ignore[attr-defined]
    settings = {name for name in SETTINGS.__dict__ if name.endswith("_secret")}
    for defaults in (
        build(Compiled(), parts).component_spec.inputs,  # type: ignore[attr-defined]
        deploy_router.component_spec.inputs,
        {each.name: each for each in command.params},
    ):
        named = {
            name.removeprefix("serving_"): each.default
            for name, each in defaults.items()
            if name.endswith("_secret")
        }
        assert named == {name: getattr(SETTINGS, name) for name in settings}


def test_secrets_may_be_called_otherwise(hierrouter, tmp_path) -> None:
    endpoint = {"url": "http://far/v1", "api_key_env": "FAR_KEY"}
    models = [model("far", backend="openai", endpoint=endpoint), model("near")]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"pool": {"models": models}}))
    code, said = hierrouter(
        *COMMAND,
        *("--config", tmp_path / "config.yaml", "--out", tmp_path / "out"),
        *("--keys-secret", "our-clients", "--mlflow-secret", "our-mlflow"),
        *("--store-secret", "our-store", "--hugging-face-secret", "our-hub"),
        *("--endpoint-secret", "our-endpoints"),
        *("--pull-secret", "our-registry", "--pull-secret", "their-registry"),
    )
    assert code == 0, said
    objects = built(tmp_path / "out")
    router = router_of(objects)
    (near,) = (each for each in of_kind("InferenceService", objects) if each is not router)
    assert {name: secret for name, (secret, _) in secrets(router).items()} == {
        VARIABLE: "our-clients",
        "FAR_KEY": "our-endpoints",
        **dict.fromkeys(MLFLOW_KEYS, "our-mlflow"),
        **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "our-store"),
        "AWS_ENDPOINT_URL": "our-store",
        "HF_TOKEN": "our-hub",
    }
    assert secrets(near) == {"HF_TOKEN": ("our-hub", True)}
    wanted = [{"name": "our-registry"}, {"name": "their-registry"}]
    assert router["spec"]["predictor"]["imagePullSecrets"] == wanted
    assert list(problems(router, TYPES["InferenceService"])) == []
    for pod in pods(objects):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_models_are_reached_from_within_the_cluster_only() -> None:
    for service in of_kind("InferenceService", built(SERVING / "base")):
        visibility = service["metadata"]["labels"].get("networking.kserve.io/visibility")
        assert visibility == (None if is_router(service) else "cluster-local")


def test_who_answers_for_which_model() -> None:
    scripted = {"backend": "scripted", "scripted": {}}
    endpoint = {"url": "http://far/v1", "api_key_env": "FAR_KEY"}
    objects = made(
        model("A.1", revision="abc"),
        model("words", **scripted),
        model("far", backend="openai", endpoint=endpoint),
        model("B.1", model="org/A.1", revision="abc", instruction="Think."),
        model("other", model="org/A.1"),
        model("exact", dtype="float32"),
        accelerators=2,
        accelerator="amd.com/gpu",
    )
    found = endpoints(objects)
    assert list(found) == ["A.1", "B.1", "other", "exact"]
    assert found["A.1"] == found["B.1"] != found["other"]
    assert found["A.1"] == "http://a-1-predictor.hierrouter.svc.cluster.local/openai/v1"
    services = {each["metadata"]["name"]: each for each in of_kind("InferenceService", objects)}
    assert "--model_revision=abc" in arguments(services["a-1"])
    assert not any("revision" in each for each in arguments(services["other"]))
    assert "--dtype=float32" in arguments(services["exact"])
    assert "--tensor-parallel-size=2" in arguments(services["a-1"])
    asked = services["a-1"]["spec"]["predictor"]["model"]["resources"]
    assert asked["requests"]["amd.com/gpu"] == asked["limits"]["amd.com/gpu"] == "2"
    assert secrets(services["hierrouter"])["FAR_KEY"] == ("hierrouter-endpoints", False)


def test_models_without_an_accelerator_and_pools_without_models() -> None:
    (_, _, service) = made(model("a"), accelerators=0)
    assert set(service["spec"]["predictor"]["model"]["resources"]["limits"]) == {"cpu", "memory"}
    assert not any("parallel" in each for each in arguments(service))
    objects = made(model("words", backend="scripted", scripted={}))
    assert [each["kind"] for each in objects] == ["ServingRuntime", "InferenceService"]
    assert endpoints(objects) == {}


def test_references_are_never_served() -> None:
    pool = PoolConfig.model_validate({"models": [model("a")], "references": [model("big")]})
    assert [each.name for each in served_models(pool, "n")] == ["a"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Qwen2.5-Coder-0.5B", "qwen2-5-coder-0-5b"),
        ("phi_3", "phi-3"),
        ("7b", "m-7b"),
        ("-x-", "x"),
        ("...", "m"),
    ],
)
def test_names_become_labels(name, label) -> None:
    assert slug(name, ()) == label


def test_names_that_become_the_same_are_told_apart_in_order() -> None:
    first = slug("a.b", ())
    second = slug("a-b", {first})
    assert first == "a-b"
    assert re.fullmatch(r"a-b-[0-9a-f]{6}", second)
    assert slug("a-b", {first, second}) not in (first, second)
    assert slug("hierrouter", {"hierrouter"}) != "hierrouter"


@settings(deadline=None)
@given(
    st.lists(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True), unique=True, max_size=12),
    st.integers(16, LONGEST),
)
def test_whatever_they_are_called_labels_are_distinct_and_short(names, longest) -> None:
    def labels() -> list[str]:
        taken: list[str] = []
        for name in names:
            taken.append(slug(name, taken, longest))
        return taken

    found = labels()
    assert len(set(found)) == len(names)
    assert found == labels()
    for label in found:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label)
        assert len(label) <= longest


def test_a_long_namespace_leaves_less_for_a_name() -> None:
    long = "n" * 30
    for service in of_kind("InferenceService", made(model("m" * 60), namespace=long)):
        assert named_as_kserve_wants(service)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"router": "models:/hierrouter@champion"}, "an alias may be another version"),
        ({"router": "runs/small_pool/router"}, "name a registered version, models:/NAME/VERSION"),
        ({"router": "models:/hierrouter/0"}, "name a registered version"),
        ({"mlflow_uri": "sqlite:///mlflow.db"}, "give the address of a server"),
        ({"mlflow_uri": "http://u:secret@mlflow:5000"}, "without its password"),
        ({"image": ""}, "name an image"),
        ({"namespace": "My_Team"}, "small letters, digits and dashes"),
        ({"namespace": "n" * 40}, "is too long"),
        ({"keys_secret": "Keys!"}, "no name of a secret"),
        ({"store_secret": "Our_Store"}, "--store-secret Our_Store: this is no name of a secret"),
        ({"endpoint_secret": ""}, "--endpoint-secret : this is no name of a secret"),
        ({"pull_secrets": ("a", "B")}, "--pull-secret B: this is no name of a secret"),
        ({"accelerator": "gpu"}, "such as nvidia.com/gpu"),
    ],
)
def test_a_wrong_setting_is_named(setting, said) -> None:
    with pytest.raises(ConfigError) as caught:
        made(model("a"), **setting)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_a_folder_is_no_model_for_a_pod(tmp_path) -> None:
    for where in ("/models/mine", "./mine", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"model a: \S+ is a folder, which pods do not have"):
            made(model("a", model=where))


def test_nothing_is_written_where_something_is_wrong(hierrouter, tmp_path) -> None:
    code, said = hierrouter(*COMMAND, "--router", "models:/x@champion", "--out", tmp_path / "out")
    assert code == 2
    assert said.splitlines() == [
        "error: --router models:/x@champion: an alias may be another version for the next pod, and "
        "pods of one deployment must agree; name models:/NAME/VERSION"
    ]
    assert not (tmp_path / "out").exists()
    code, said = hierrouter(
        *COMMAND, "--mlflow-uri", "http://localhost:5000", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "in a pod this is the pod itself" in said
    assert not (tmp_path / "out").exists()
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "kustomization.yaml").write_text("resources: []\n")
    code, said = hierrouter(*COMMAND, "--out", foreign)
    assert code == 2
    assert "is not empty" in said
    assert [path.name for path in foreign.iterdir()] == ["kustomization.yaml"]


def test_a_folder_of_ours_is_written_anew(tmp_path) -> None:
    pool = PoolConfig.model_validate({"models": [model("a")]})
    write_manifests(pool, SETTINGS, tmp_path)
    assert len(built(tmp_path)) == 3
    built.cache_clear()
    write_manifests(pool, ManifestSettings(**{**SETTINGS.__dict__, "all_in_one": True}), tmp_path)
    assert len(built(tmp_path)) == 2
    assert not (tmp_path / "models.yaml").exists()


def test_what_is_not_as_one_may_think_is_said(capfd, tmp_path) -> None:
    near = {"url": "http://localhost:8000/v1"}
    pool = PoolConfig.model_validate(
        {"models": [model("q", backend="openvino"), model("e", backend="openai", endpoint=near)]}
    )
    write_manifests(pool, SETTINGS, tmp_path)
    said = capfd.readouterr().err
    assert "note: q have int8 weights here" in said
    assert "model e answers at http://localhost:8000/v1, which in a pod is the pod itself" in said


def test_what_the_last_step_may_do_is_what_it_needs(tmp_path) -> None:
    component = ROOT / "manifests" / "components" / "deploy"
    base = os.path.relpath(ROOT / "manifests" / "base", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "kubeflow",
                "resources": [base],
                "components": [os.path.relpath(component, tmp_path)],
            }
        )
    )
    objects = built(tmp_path)
    for each in objects:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    named = {each["metadata"]["name"]: each for each in of_kind("RoleBinding", objects)}
    binding = named["hierrouter-deploy"]
    assert binding["metadata"]["namespace"] == "kubeflow"
    # The account of Kubeflow's own is in no manifest of ours: its namespace must be stated.
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}
    ]
    roles = {each["metadata"]["name"]: each for each in of_kind("Role", objects)}
    rules = roles[binding["roleRef"]["name"]]["rules"]
    allowed = {(verb, *rule.get("resourceNames", [])) for rule in rules for verb in rule["verbs"]}
    assert allowed == {("create",), ("get", "hierrouter"), ("update", "hierrouter")}
    assert all(rule["apiGroups"] == [KIND[0]] for rule in rules)
    assert all(rule["resources"] == [PLURAL] for rule in rules)

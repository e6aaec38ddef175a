"""The compiled pipeline, as the API server and the cluster will read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from pipelines.arguments import read_arguments
from pipelines.definition import IMAGE, Compiled
from pipelines.package import described, write_package

from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "scripted.yaml"
PREFIX = "pipelinechannel--"


def compile_to(path: Path, compiled: Compiled) -> bytes:
    write_package(CONFIG, [], compiled, path)
    return path.read_bytes()


@cache
def documents(compiled: Compiled) -> tuple[Any, Any]:
    """The pipeline and what of it is Kubernetes' own."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = compile_to(Path(folder, "pipeline.yaml"), compiled)
    pipeline, platform = yaml.safe_load_all(text)
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture
def pipeline() -> Any:
    return documents(Compiled())[0]


@pytest.fixture
def platform() -> Any:
    return documents(Compiled())[1]


def containers(pipeline: Any) -> dict[str, Any]:
    return {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
    }


def dags(pipeline: Any) -> Iterator[tuple[str, Any]]:
    yield "root", pipeline["root"]
    for name, component in pipeline["components"].items():
        if "dag" in component:
            yield name, component


def named(value: Any) -> Iterator[str]:
    """Every parameter that a piece of the spec takes from the DAG around it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "componentInputParameter":
                yield inner
            else:
                yield from named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from named(inner)


def test_the_api_server_can_parse_it(pipeline) -> None:
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "hierrouter-train-eval"


@pytest.mark.parametrize(
    "compiled",
    [Compiled(), Compiled(ca_bundle=True, endpoint_keys=("K",)), Compiled(deploy="apply")],
)
def test_every_parameter_that_a_task_takes_is_declared_by_its_dag(compiled) -> None:
    """kfp compiles without a word what the backend then refuses."""
    pipeline, platform = documents(compiled)
    looked_at = 0
    for name, component in dags(pipeline):
        declared = set(component.get("inputDefinitions", {}).get("parameters", {}))
        for task_name, task in component["dag"]["tasks"].items():
            taken = set(named(task.get("inputs", {})))
            label = pipeline["components"][task["componentRef"]["name"]].get("executorLabel")
            taken |= set(named(platform.get(label, {})))
            items = task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
            if items:
                assert items in task["inputs"]["parameters"], (name, task_name)
            assert taken <= declared, (name, task_name, taken - declared)
            looked_at += len(taken)
    assert looked_at > 40


def test_no_text_is_given_where_a_number_is_declared(pipeline) -> None:
    """kfp hands resources on as inputs of its own, which overwrite those of the same name."""
    for _, component in dags(pipeline):
        for name, task in component["dag"]["tasks"].items():
            inputs = pipeline["components"][task["componentRef"]["name"]].get(
                "inputDefinitions", {}
            )
            for parameter, given in task.get("inputs", {}).get("parameters", {}).items():
                constant = given.get("runtimeValue", {}).get("constant")
                declared = inputs.get("parameters", {}).get(parameter)
                if isinstance(constant, str) and declared:
                    assert declared["parameterType"] == "STRING", (name, parameter)


def test_what_a_node_is_chosen_by_is_text(pipeline) -> None:
    """The backend reads counts as texts, and leaves out an accelerator whose count is a number."""
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    for container in containers(pipeline).values():
        for asked in json.dumps(container["resources"]).split("parameters['")[1:]:
            name = asked.partition("'")[0].removeprefix(PREFIX)
            assert parameters[name]["parameterType"] == "STRING"


def test_every_task_asks_for_processors_and_memory(pipeline) -> None:
    """A namespace with a quota refuses a pod that does not."""
    for name, container in containers(pipeline).items():
        resources = container["resources"]
        assert {"resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(
            resources
        ), name


def test_every_placeholder_of_a_container_is_an_input_of_its_task(pipeline) -> None:
    for _, component in dags(pipeline):
        for task in component["dag"]["tasks"].values():
            label = pipeline["components"][task["componentRef"]["name"]].get("executorLabel")
            if not label:
                continue
            text = json.dumps(pipeline["deploymentSpec"]["executors"][label])
            for parameter in task.get("inputs", {}).get("parameters", {}):
                text = text.replace(f"parameters['{parameter}']", "")
            assert "{{$.inputs.parameters[" not in text


def test_nothing_is_installed_and_all_run_one_image(pipeline) -> None:
    found = containers(pipeline)
    assert len(found) == 8
    for container in found.values():
        assert container["image"] == IMAGE
        assert "pip install" not in yaml.safe_dump(container)


@pytest.mark.parametrize(
    ("task", "part"), [("collect-routes", "record"), ("train-router", "train")]
)
def test_gpu_node_pools_are_asked_for(pipeline, platform, task, part) -> None:
    resources = containers(pipeline)[task]["resources"]
    asked = f"{{{{$.inputs.parameters['{PREFIX}{part}_%s']}}}}"
    assert resources["accelerator"] == {
        "resourceType": asked % "accelerator_type",
        "resourceCount": asked % "accelerator_count",
    }
    assert resources["resourceCpuRequest"] == asked % "cpu"
    assert resources["resourceMemoryRequest"] == asked % "memory"
    assert resources["resourceMemoryLimit"] == asked % "memory"
    of_node = platform[f"exec-{task}"]
    assert of_node["nodeSelector"]["nodeSelectorJson"] == {
        "componentInputParameter": f"{PREFIX}{part}_node_selector"
    }
    assert of_node["tolerations"][0]["tolerationJson"] == {
        "componentInputParameter": f"{PREFIX}{part}_tolerations"
    }


def test_secrets_are_optional_and_become_variables(platform) -> None:
    secrets = {
        each["secretNameParameter"]["componentInputParameter"].removeprefix(PREFIX): (
            each["optional"],
            {one["envVar"] for one in each["keyToEnv"]},
        )
        for each in platform["exec-collect-routes"]["secretAsEnv"]
    }
    assert secrets["hugging_face_secret"] == (True, {"HF_TOKEN"})
    assert "AWS_SECRET_ACCESS_KEY" in secrets["store_secret"][1]
    assert "endpoint_secret" not in secrets
    with_keys = documents(Compiled(endpoint_keys=("LLAMA_KEY",)))[1]["exec-collect-routes"]
    assert "LLAMA_KEY" in yaml.safe_dump(with_keys["secretAsEnv"])


def test_recordings_and_models_lie_on_volumes_or_there_are_none(platform) -> None:
    mounts = {
        each["pvcNameParameter"]["componentInputParameter"].removeprefix(PREFIX): each["mountPath"]
        for each in platform["exec-collect-routes"]["pvcMount"]
    }
    assert mounts == {"recordings_claim": "/recordings", "models_claim": "/models"}
    without, of_nodes = documents(Compiled(volumes=False))
    assert not any("pvcMount" in executor for executor in of_nodes.values())
    assert not any("env" in container for container in containers(without).values())


def test_own_authorities_are_trusted_where_the_pipeline_is_compiled_so(platform) -> None:
    assert not any("configMapAsVolume" in executor for executor in platform.values())
    pipeline, of_nodes = documents(Compiled(ca_bundle=True))
    for task, container in containers(pipeline).items():
        (volume,) = of_nodes[f"exec-{task}"]["configMapAsVolume"]
        assert volume["mountPath"] == "/etc/hierrouter-ca"
        name = volume["configMapNameParameter"]["componentInputParameter"]
        assert name.removeprefix(PREFIX) == "ca_bundle"
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables["SSL_CERT_FILE"] == "/etc/hierrouter-ca/ca.crt"
        assert variables["REQUESTS_CA_BUNDLE"] == "/etc/hierrouter-ca/ca.crt"


def test_a_bundle_that_nothing_looks_at_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"ca_bundle=mine: no component looks at it without"):
        described(CONFIG, [], Compiled(), ["ca_bundle=mine"])
    package = described(CONFIG, [], Compiled(ca_bundle=True), ["ca_bundle=mine"])
    assert package.arguments == {"ca_bundle": "mine"}


def test_the_router_is_served_only_where_the_pipeline_is_compiled_so(pipeline) -> None:
    assert "deploy-router" not in containers(pipeline)
    for deploy in ("write", "apply"):
        served, of_nodes = documents(
            Compiled(image="registry/hierrouter:2", deploy=deploy, pull_secrets=("registry",))
        )
        json_format.ParseDict(served, pipeline_spec_pb2.PipelineSpec())
        assert len(containers(served)) == len(containers(pipeline)) + 1
        # The last of the handler's tasks, so that the exit task also tells how it went.
        task = served["components"]["comp-exit-handler-1"]["dag"]["tasks"]["deploy-router"]
        given = task["inputs"]["parameters"]
        assert given["version"]["taskOutputParameter"] == {
            "outputParameterKey": "Output",
            "producerTask": "register-router",
        }
        assert given["image"]["runtimeValue"]["constant"] == "registry/hierrouter:2"
        assert given["apply"]["runtimeValue"]["constant"] is (deploy == "apply")
        assert given["pull_secrets"]["runtimeValue"]["constant"] == ["registry"]
        for name, parameter in {
            "pool": "pool",
            "mlflow_uri": "mlflow_uri",
            "namespace": "serving_namespace",
            "keys_secret": "serving_keys_secret",
            "all_in_one": "serving_all_in_one",
            "wait_minutes": "serving_wait_minutes",
            "mlflow_secret": "mlflow_secret",
            "store_secret": "store_secret",
            "hugging_face_secret": "hugging_face_secret",
            "endpoint_secret": "endpoint_secret",
        }.items():
            assert given[name]["componentInputParameter"] == PREFIX + parameter
        assert not task["cachingOptions"].get("enableCache")
        assert task["retryPolicy"]["maxRetryCount"] == 1
        resources = containers(served)["deploy-router"]["resources"]
        assert {"resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(
            resources
        )
        (secret,) = of_nodes["exec-deploy-router"]["secretAsEnv"]
        assert secret["secretNameParameter"]["componentInputParameter"] == f"{PREFIX}mlflow_secret"


def test_what_is_said_of_serving_needs_the_step() -> None:
    with pytest.raises(ConfigError, match=r"serving_namespace=mine: nothing is served without"):
        described(CONFIG, [], Compiled(), ["serving_namespace=mine"])
    package = described(CONFIG, [], Compiled(deploy="write"), ["serving_namespace=mine"])
    assert package.arguments == {"serving_namespace": "mine"}
    folder = 'pool={"models": [{"name": "a", "model": "/models/a", "base_rate": 1}]}'
    with pytest.raises(ConfigError, match=r"model a: /models/a is a folder, which pods do not"):
        described(CONFIG, [], Compiled(deploy="apply"), [folder])
    assert described(CONFIG, [], Compiled(), [folder])


def test_retries_timeouts_parallelism_and_caching(pipeline, platform) -> None:
    handler = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    loops = {name: task for name, task in handler.items() if "iteratorPolicy" in task}
    assert [task["iteratorPolicy"]["parallelismLimit"] for task in loops.values()] == [8]
    cached = {}
    for _, component in dags(pipeline):
        for name, task in component["dag"]["tasks"].items():
            if name not in handler or "exec" in str(task["componentRef"]):
                cached[name] = task.get("cachingOptions", {}).get("enableCache", False)
            if name in ("collect-routes", "open-run", "report-exit"):
                assert task["retryPolicy"]["maxRetryCount"] == 3
                assert task["retryPolicy"]["backoffFactor"] == 2.0
    assert cached["collect-routes"] is True
    for never in ("open-run", "register-router", "report-exit"):
        assert not cached.get(never)
    other, of_nodes = documents(
        Compiled(
            image="registry/hierrouter@sha256:abc",
            retries=1,
            timeout_s=7200,
            pull_secrets=("registry",),
            caching=False,
        )
    )
    assert {each["image"] for each in containers(other).values()} == {
        "registry/hierrouter@sha256:abc"
    }
    assert of_nodes["exec-train-router"]["activeDeadlineSeconds"] == "7200"
    assert of_nodes["exec-merge-routes"]["imagePullSecret"][0]["secretName"] == "registry"
    assert "enableCache: true" not in yaml.safe_dump(other)


def test_the_same_bytes_twice_by_two_processes(tmp_path) -> None:
    made = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.yaml"
        command = [sys.executable, "pipelines/train_eval.py", "compile", "--config", CONFIG]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([*command, "--out", path], cwd=ROOT, env=environment, check=True)
        made.append(path.read_bytes())
    assert made[0] == made[1]


def test_the_seed_is_the_training_parts_where_none_is_named(pipeline) -> None:
    assert not pipeline["root"]["inputDefinitions"]["parameters"]["seeds"].get("defaultValue")
    (task,) = (
        component["dag"]["tasks"]["open-run"]
        for _, component in dags(pipeline)
        if "open-run" in component["dag"]["tasks"]
    )
    given = task["inputs"]["parameters"]["training"]["componentInputParameter"]
    assert given.removeprefix(PREFIX) == "training"


def test_every_parameter_is_explained(pipeline) -> None:
    for name, parameter in pipeline["root"]["inputDefinitions"]["parameters"].items():
        assert len(parameter.get("description", "")) > 10, name


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    return compile_to(tmp_path_factory.mktemp("compiled") / "p.yaml", Compiled()).decode()


def test_arguments_are_read_by_their_types(text) -> None:
    assert read_arguments(text, ["seeds="]) == {"seeds": ""}
    assert read_arguments(
        text,
        [
            "shards=4",
            "seeds=1,2",
            "pod_per_seed=true",
            "max_dollars_per_shard=1e3",
            "record_memory=1e11",
            "record_node_selector={pool: gpu}",
            "record_tolerations=[{key: nvidia.com/gpu, operator: Exists}]",
        ],
    ) == {
        "shards": 4,
        "seeds": "1,2",
        "pod_per_seed": True,
        "max_dollars_per_shard": 1000.0,
        "record_memory": "1e11",
        "record_node_selector": {"pool": "gpu"},
        "record_tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("shards", "write it as NAME=VALUE"),
        ("shard=4", "the pipeline has no parameter shard (did you mean shards?)"),
        ("shards=four", "shards should be a whole number"),
        ("shards=true", "shards should be a whole number"),
        ("pod_per_seed=1", "pod_per_seed should be true or false"),
        ("record_node_selector=gpu", "record_node_selector should be keys with values"),
        ("record_tolerations={a: b", "record_tolerations should be a list"),
        ("pool={not: [a pool", "--param pool: not usable YAML"),
        ("evaluation=hello", "evaluation"),
        ('training={"fill": true}', "training.fill: a pipeline's tasks share no tree"),
        ("seeds=abc", "give whole numbers, each once"),
        ("shards=0", "give at least 1"),
        ("max_dollars_per_shard=-1", "give dollars"),
        ("record_cpu=lots", "give a quantity as Kubernetes has it"),
        ("train_memory=32 GB", "give a quantity as Kubernetes has it"),
        ("record_accelerator_count=-3", "give a whole number"),
        ("hugging_face_secret=", "give a name"),
        ("endpoint_secret=Team_Keys", "give a name of small letters"),
        ("models_claim=", "give a name"),
        ("record_node_selector={pool: 1}", "all texts"),
        ("record_tolerations=[{keys: gpu}]", "give tolerations with"),
        ("record_tolerations=[{key: gpu, value: true}]", "give tolerations with"),
        ("max_dollars_per_shard=.inf", "max_dollars_per_shard should be a number"),
        ("record_memory=32K", "give a quantity as Kubernetes has it"),
        ("mlflow_uri=http://u:secret@h", "the address without its password"),
        ("serving_wait_minutes=0", "give minutes, more than 0"),
        ("serving_namespace=My_Team", "give a namespace, or nothing"),
        ("serving_all_in_one=1", "serving_all_in_one should be true or false"),
    ],
)
def test_a_wrong_argument_is_named(text, param, said) -> None:
    with pytest.raises(ConfigError) as caught:
        read_arguments(text, [param])
    assert "\n" not in str(caught.value)
    assert said in str(caught.value)

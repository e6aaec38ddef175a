"""Submitting, following and scheduling with kfp's own client, against a stand-in server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pipelines.client import connected
from pipelines.definition import Compiled
from pipelines.flags import require_image
from pipelines.package import Package, described
from pipelines.runs import repeat, start
from pipelines.watch import watch
from tests.pipelines.conftest import task

from hierrouter.errors import ConfigError, HierRouterError, UnreachableError
from pipelines import watch as watching

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "scripted.yaml"


@pytest.fixture(scope="module")
def package() -> Package:
    return described(CONFIG, [], Compiled(), ["shards=2", "record_node_selector={pool: gpu}"])


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path) -> None:
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


UNKNOWN_TASK = (
    "pool={models: [{name: A, model: a/b, base_rate: 1.0, limits: {solve_by_task: {gsm9k: 5}}}]}"
)
"""Right by itself: which tasks there are only the data part tells."""


def submitted(kubeflow, package, experiment="hierrouter", **more: Any) -> str:
    with connected(kubeflow.url, None, None) as cluster:
        return start(cluster, package, experiment, "mine", **more)


def followed(kubeflow, package) -> None:
    with connected(kubeflow.url, None, None) as cluster:
        watch(cluster, start(cluster, package, "hierrouter", "mine"), package, poll_s=0.001)


def test_a_run_is_started_with_its_arguments_and_links_are_said(kubeflow, package, capfd) -> None:
    assert submitted(kubeflow, package) == "run-1"
    (run,) = kubeflow.runs
    assert run.display_name == "mine"
    assert kubeflow.experiments[run.experiment_id] == "hierrouter"
    assert run.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "hierrouter-train-eval"
    assert "kubernetes" in run.pipeline_spec["platform_spec"]["platforms"]
    assert run.runtime_config.parameters == {
        # No link: this address means something on this machine only.
        "run_name": "mine",
        "shards": 2,
        "record_node_selector": {"pool": "gpu"},
    }
    printed = capfd.readouterr()
    assert printed.out == ""
    assert f"in Kubeflow {kubeflow.url}/#/runs/details/run-1" in printed.err


def test_an_experiment_is_used_made_or_refused(kubeflow, package) -> None:
    submitted(kubeflow, package, "studies")
    assert kubeflow.runs[0].experiment_id == "e2"
    with pytest.raises(ConfigError, match=r"Kubeflow experiment \(did you mean studies\?\)"):
        submitted(kubeflow, package, "studys")
    assert len(kubeflow.runs) == 1
    submitted(kubeflow, package, "mine", make=True)
    assert kubeflow.experiments[kubeflow.runs[1].experiment_id] == "mine"


def test_a_schedule(kubeflow, package) -> None:
    with connected(kubeflow.url, None, None) as cluster:
        with pytest.raises(ConfigError, match="takes six fields"):
            repeat(cluster, package, "hierrouter", None, False, "0 3 * * 1")
        assert repeat(cluster, package, "hierrouter", None, False, "0 0 3 * * 1") == "recurring-1"
    (made,) = kubeflow.recurring
    assert made.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert made.no_catchup is True


# Following.


def test_each_change_of_a_task_is_said_once(kubeflow, package, capfd) -> None:
    running = task("collect-routes", "RUNNING", pods=[("executor", "RUNNING", "")])
    kubeflow.looks = [
        ("PENDING", []),
        ("RUNNING", task("sample-queries", "RUNNING") + task("exit-handler-1", "RUNNING")),
        ("RUNNING", task("sample-queries", "RUNNING")),
        ("RUNNING", task("sample-queries", "SUCCEEDED") + running),
        ("SUCCEEDED", task("collect-routes", "SUCCEEDED", pods=[("executor", "SUCCEEDED", "")])),
    ]
    followed(kubeflow, package)
    *states, last = capfd.readouterr().err.splitlines()[3:]
    assert [line[10:].split() for line in states] == [
        ["sample-queries", "RUNNING"],
        ["sample-queries", "SUCCEEDED"],
        ["collect-routes", "RUNNING"],
        ["collect-routes", "SUCCEEDED"],
    ]
    assert last.startswith("the run succeeded; its metrics are in MLflow")


def test_shards_are_told_apart(kubeflow, package, capfd) -> None:
    second = task("collect-routes", "RUNNING")
    second[0].task_id = "another"
    kubeflow.looks = [("RUNNING", task("collect-routes", "RUNNING") + second), ("SUCCEEDED", [])]
    followed(kubeflow, package)
    said = [line[10:].strip() for line in capfd.readouterr().err.splitlines()[3:-1]]
    assert [" ".join(line.split()) for line in said] == [
        "collect-routes RUNNING",
        "collect-routes (2) RUNNING",
    ]


def test_a_run_ends_with_what_its_mlflow_server_holds(kubeflow, capfd, server, tmp_path) -> None:
    client = mlflow.MlflowClient(server)
    run = client.create_run("0", tags={"kubeflow.run_id": "run-1"}).info.run_id
    for name, value in (("router/reward", 0.5), ("router/quality", 0.6), ("training/loss", 1.0)):
        client.log_metric(run, name, value)
    package = described(CONFIG, [], Compiled(), ["mlflow_uri=http://mlflow.in-the-cluster:5000"])
    followed(kubeflow, package)
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.split() == ["router", "quality", "0.6", "reward", "0.5"]


def test_an_mlflow_server_that_is_not_reached_from_here_is_no_failure(
    kubeflow, capfd, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    followed(kubeflow, described(CONFIG, [], Compiled(), ["mlflow_uri=http://127.0.0.1:9"]))
    assert "its metrics are in MLflow, not reached from here" in capfd.readouterr().err
    followed(kubeflow, described(CONFIG, [], Compiled(), []))
    assert 'its metrics are in MLflow (tags.`kubeflow.run_id` = "run-2")' in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_pending_for_long_is_named_once_with_what_it_asks_for(
    kubeflow, package, capfd, monkeypatch
) -> None:
    monkeypatch.setattr(watching, "PENDING_S", 0)
    waiting = task("collect-routes", "RUNNING", pods=[("executor", "PENDING", "")])
    kubeflow.looks = [("RUNNING", waiting), ("RUNNING", waiting), ("SUCCEEDED", [])]
    followed(kubeflow, package)
    printed = capfd.readouterr().err
    assert printed.count("collect-routes has been pending for") == 1
    assert "it asks for 1 x nvidia.com/gpu, 4 processors and 32Gi on {'pool': 'gpu'}" in printed
    assert "record_tolerations" in printed


def test_a_task_that_only_now_waits_is_not_called_late(kubeflow, package, capfd) -> None:
    waiting = task("collect-routes", "RUNNING", pods=[("executor", "PENDING", "")])
    kubeflow.looks = [("RUNNING", waiting), ("RUNNING", waiting), ("SUCCEEDED", [])]
    followed(kubeflow, package)
    assert "pending for" not in capfd.readouterr().err


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_succeed_is_an_error_that_names_the_task(
    kubeflow, package, state
) -> None:
    tasks = [
        *task("root", "FAILED"),
        # Tried again, and then it went well.
        *task(
            "sample-queries",
            "SUCCEEDED",
            pods=[("executor", "SUCCEEDED", ""), ("executor(0)", "FAILED", "evicted")],
        ),
        *task("for-loop-1", "FAILED"),
        *task("collect-routes", "FAILED", pods=[("executor", "FAILED", "error: no model A\n")]),
    ]
    kubeflow.looks = [(state, tasks)]
    with pytest.raises(HierRouterError, match=rf"run run-1 {state.lower()}: collect-routes: error"):
        followed(kubeflow, package)


def test_a_failure_of_which_nothing_is_said(kubeflow, package) -> None:
    tasks = task("root", "FAILED") + task(
        "train-router", "FAILED", pods=[("executor", "FAILED", "")]
    )
    kubeflow.looks = [("FAILED", tasks)]
    with pytest.raises(HierRouterError, match="failed: train-router: look at its log"):
        followed(kubeflow, package)


def test_a_server_that_is_silent_for_a_while_is_asked_again(kubeflow, package) -> None:
    kubeflow.stalling = 5
    followed(kubeflow, package)
    assert kubeflow.stalling == 0


def test_a_server_that_stays_silent_is_given_up_and_the_run_goes_on(kubeflow, package) -> None:
    kubeflow.stalling = 10_000
    with pytest.raises(UnreachableError, match="the run goes on there"):
        followed(kubeflow, package)


# Servers that are not there or refuse.


def test_no_address() -> None:
    with (
        pytest.raises(ConfigError, match="give --host or set KF_PIPELINES_ENDPOINT"),
        connected(None, None, None),
    ):
        pass


def test_a_wrong_address(package) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(UnreachableError, match=rf"Kubeflow Pipelines at {url} does not answer"),
            connected(url, None, None),
        ):
            pass


def test_something_else_at_the_address(something_else, package) -> None:
    kind, url = something_else
    said = "a login it seems; set KF_PIPELINES_TOKEN" if kind == "login" else "not as Kubeflow Pipe"
    with pytest.raises(HierRouterError, match=said), connected(url, None, None):
        pass


def test_a_token_that_has_expired_and_one_that_is_good(kubeflow, package, monkeypatch, tmp_path):
    kubeflow.token = "good"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "old")
    with pytest.raises(HierRouterError, match=r"refused the credentials \(401: .*has expired"):
        submitted(kubeflow, package)
    assert kubeflow.runs == []
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "good")
    submitted(kubeflow, package)
    monkeypatch.delenv("KF_PIPELINES_TOKEN")
    of_service_account = tmp_path / "token"
    of_service_account.write_text("good")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(of_service_account))
    submitted(kubeflow, package)
    assert len(kubeflow.runs) == 2


def test_a_refusal_is_one_line(kubeflow, package) -> None:
    kubeflow.refusing = (400, "InvalidInputError: Failed to create a new run")
    with pytest.raises(HierRouterError, match=r"refused \(400: .*Failed to create a new run"):
        submitted(kubeflow, package)


def test_several_users_need_a_namespace(kubeflow) -> None:
    kubeflow.multi_user = True
    with pytest.raises(ConfigError, match="give --namespace"), connected(kubeflow.url, None, None):
        pass
    with connected(kubeflow.url, "team", None) as cluster:
        assert cluster.namespace == "team"


# What is refused before anything is sent.


@pytest.mark.parametrize(
    ("overrides", "params", "compiled", "said"),
    [
        (["training.iteration=5"], [], Compiled(), "did you mean iterations?"),
        (["training.fill=true"], [], Compiled(), "training.fill: a pipeline's tasks share no tree"),
        ([], ["shards=x"], Compiled(), "should be a whole number"),
        ([], [UNKNOWN_TASK], Compiled(), "--param: pool.models.0.limits.solve_by_task"),
        ([], ["recordings=/data/x"], Compiled(), "the volume is at /recordings"),
        ([], ["recordings="], Compiled(), "the volume is at /recordings"),
        ([], ["recordings=file:///x"], Compiled(), "speaks to object stores by s3://"),
        ([], ["mlflow_uri=sqlite:///x"], Compiled(), "every pod would have a database of its own"),
        ([], ["mlflow_uri=mlflow:5000"], Compiled(), "give the address of a server"),
        ([], [], Compiled(volumes=False), "name an object store"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(overrides, params, compiled, said) -> None:
    with pytest.raises(ConfigError) as caught:
        described(CONFIG, overrides, compiled, params)
    assert said in str(caught.value)


def test_an_object_store_needs_no_volume() -> None:
    params = ["recordings=s3://bucket/recordings"]
    package = described(CONFIG, [], Compiled(volumes=False), params)
    assert package.value("recordings") == "s3://bucket/recordings"
    assert json.loads(package.value("pool"))["hops"] == 2


# The commands themselves.


def called(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "pipelines" / "train_eval.py", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


SUBMIT = ("submit", "--config", str(CONFIG), "--image", "registry/hierrouter@sha256:1")


def test_the_command_fails_when_the_run_fails(kubeflow) -> None:
    kubeflow.looks = [("FAILED", task("train-router", "FAILED", error="out of memory"))]
    ended = called(*SUBMIT, "--host", kubeflow.url, "--wait")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: run run-1 failed: train-router: out of memory"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--experiment", "studys"), 2, "did you mean studies?"),
        (("--param", "shards=many"), 2, "shards should be a whole number"),
    ],
)
def test_the_command_says_one_line_and_submits_nothing(kubeflow, arguments, code, said) -> None:
    ended = called(*SUBMIT, "--host", kubeflow.url, *arguments)
    assert ended.returncode == code
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert kubeflow.runs == []


def test_an_image_of_this_machine_is_not_submitted() -> None:
    with pytest.raises(ConfigError, match="hierrouter:dev is an image of this machine; push it"):
        require_image(Compiled(image="hierrouter:dev"))
    require_image(Compiled(image="registry/hierrouter@sha256:1"))


def test_the_command_with_an_expired_token(kubeflow) -> None:
    kubeflow.token = "good"
    ended = called(*SUBMIT, "--host", kubeflow.url, KF_PIPELINES_TOKEN="old")
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert "refused the credentials" in line
    schedule = ("schedule", *SUBMIT[1:], "--cron", "0 0 3 * * MON", "--host", kubeflow.url)
    assert called(*schedule, KF_PIPELINES_TOKEN="good").returncode == 0
    assert kubeflow.recurring[0].trigger.cron_schedule.cron == "0 0 3 * * MON"

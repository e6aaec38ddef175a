"""The whole pipeline on kfp's local runner, with a real MLflow server."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from hierrouter.routes.tree import RouteTree

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, str(ROOT / "pipelines" / "train_eval.py"))
SMALL = (
    *("--config", str(ROOT / "configs" / "scripted.yaml")),
    *("--set", "data.queries_per_task=20", "--set", "evaluation.bootstrap=100"),
    *("--set", "training.iterations=2", "--set", "training.rollouts=8"),
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (*PROGRAM, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)


def only(pattern: str, folder: Path) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_two_shards_and_two_seeds_become_a_registered_router_with_its_runs(server, here) -> None:
    out = here / "out"
    ended = run("local", *SMALL, "--out", str(out), "--param", "shards=2", "--param", "seeds=1,2")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("hierrouter")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (each for each in runs if "mlflow.parentRunId" not in each.data.tags)
    children = [each for each in runs if each is not parent]
    assert {each.data.tags["mlflow.parentRunId"] for each in children} == {parent.info.run_id}
    assert {each.data.params["training.seed"] for each in children} == {"1", "2"}
    assert {each.info.status for each in runs} == {"FINISHED"}
    assert parent.data.tags["kubeflow.status"] == "SUCCEEDED"
    for each in runs:
        assert 0 <= each.data.metrics["router/quality"] <= 1
        assert each.data.metrics.keys() >= {"oracle/reward", "best_path_per_task/reward"}
    best = max(children, key=lambda each: each.data.metrics["training/validation_reward"])
    rewards = {each.data.metrics["training/validation_reward"] for each in children}
    assert len(rewards) == 2, "two seeds that are alike tell nothing about the choice"
    assert parent.data.params["training.seed"] == best.data.params["training.seed"]
    version = client.get_model_version_by_alias("hierrouter", "champion")
    assert version.run_id == parent.info.run_id
    # Kubeflow's own pages get the table and the report.
    artifacts = out / "artifacts"
    assert "<html" in only("*/evaluate-router/report", artifacts).read_text()
    assert "| best_path_per_task |" in only("*/evaluate-router/table", artifacts).read_text()
    tree = RouteTree(only("*/merge-routes/tree", artifacts))
    assert len(tree.nodes) == 120 * 15
    shards = sorted(path.name.rpartition("-")[0] for path in (out / "recordings").glob("*/*"))
    assert shards == ["shard-0-of-2", "shard-1-of-2"]
    # Again, with another learning rate: nothing is recorded anew, and the runs lie side by side.
    before = {path: path.stat().st_mtime_ns for path in out.glob("recordings/*/*/nodes/*.parquet")}
    more = ("--set", "training.learning_rate=0.01", "--param", "shards=2")
    ended = run("local", *SMALL, *more, "--out", str(out))
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    after = {path: path.stat().st_mtime_ns for path in out.glob("recordings/*/*/nodes/*.parquet")}
    assert after == before
    parents = client.search_runs([experiment.experiment_id], "tags.`kubeflow.status` = 'SUCCEEDED'")
    assert {each.data.params["training.learning_rate"] for each in parents} == {"0.0003", "0.01"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("local", *SMALL, "--out", "out", "--param", "shard=2"), "did you mean shards?"),
        (("local", *SMALL, "--set", "pool.hop=2", "--out", "out"), "did you mean hops?"),
        (("compile", *SMALL, "--out", "pipeline.txt"), "name a .yaml file"),
        (("submit", *SMALL, "--image", "r/h"), "give --host or set KF_PIPELINES_ENDPOINT"),
        (("submit", "--config", "none.yaml"), "none.yaml: there is no such file"),
    ],
)
def test_wrong_input_is_one_line(here, monkeypatch, arguments, said) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    ended = run(*arguments)
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert sorted(path.name for path in here.iterdir()) == ["mlflow.db"]


class Refusing(BaseHTTPRequestHandler):
    """A server that lets nobody in, and keeps who asked."""

    def do_GET(self) -> None:
        self.server.asked.add(self.headers["Authorization"])  # type: ignore[attr-defined]
        self.send_error(403)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_the_password_in_mlflows_address_is_used_and_not_shown(here, monkeypatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        refusing.asked = set()  # type: ignore[attr-defined]
        thread = threading.Thread(target=refusing.serve_forever, args=(0.01,))
        thread.start()
        address = f"127.0.0.1:{refusing.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@{address}")
        try:
            ended = run("local", *SMALL, "--out", "out")
        finally:
            refusing.shutdown()
            thread.join()
    assert ended.returncode == 1
    assert "open-run" in ended.stdout + ended.stderr
    assert refusing.asked == {f"Basic {base64.b64encode(b'me:hunter2').decode()}"}  # type: ignore[attr-defined]
    assert "hunter2" not in ended.stdout + ended.stderr
    for path in (here / "out").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


@pytest.mark.parametrize(
    ("mlflow_uri", "code", "said"),
    [
        ("sqlite:///mlflow.db", 2, "--image: containers cannot share a database file"),
        ("http://127.0.0.1:9", 1, "Docker does not answer"),
    ],
)
def test_an_image_needs_docker_and_an_mlflow_server(
    here, monkeypatch, mlflow_uri, code, said
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{here}/none.sock")
    ended = run("local", *SMALL, "--out", "out", "--image", "hierrouter:none")
    assert ended.returncode == code
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (here / "out").exists()


def test_compiling_writes_a_file_and_says_so(here) -> None:
    ended = run("compile", *SMALL, "--out", "pipeline.yaml")
    assert (ended.returncode, ended.stdout) == (0, "pipeline: pipeline.yaml\n")
    assert (here / "pipeline.yaml").read_text().startswith("# PIPELINE DEFINITION")

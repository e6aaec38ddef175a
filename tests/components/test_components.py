"""Each component's function by itself, as kfp's executor calls it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from components.collect_routes.component import collect_routes
from components.evaluate_router.component import evaluate_router
from components.merge_routes.component import merge_routes
from components.open_run.component import open_run
from components.register_router.component import register_router
from components.report_exit.component import report_exit
from components.sample_queries.component import sample_queries
from components.train_router.component import train_router
from kfp import dsl

from hierrouter.configfile import load_config
from hierrouter.errors import ConfigError, RefusedError
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.quality.score import score_replies
from hierrouter.routes import scores
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.nodes import read_nodes
from hierrouter.stages import collect as collecting

CONFIG = Path(__file__).parents[2] / "configs" / "scripted.yaml"
SMALL = [
    "data.queries_per_task=12",
    "evaluation.bootstrap=100",
    "training.iterations=2",
    "training.rollouts=8",
]


@pytest.fixture(scope="session")
def parts() -> dict[str, str]:
    config = load_config(CONFIG, SMALL)
    return {
        part: json.dumps(getattr(config, part).model_dump(mode="json"))
        for part in ("data", "pool", "training", "evaluation")
    }


def artifact(kind: type[dsl.Artifact], path: Path) -> dsl.Artifact:
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(name=path.name, uri=str(path), metadata={})


class Study:
    """What the components make of one small study, one after the other."""

    def __init__(self, folder: Path, parts: dict[str, str]) -> None:
        self.folder, self.parts, self.direct = folder, parts, False
        self.recordings = str(folder / "recordings")
        self.queries = artifact(dsl.Dataset, folder / "queries")
        self.tree = artifact(dsl.Dataset, folder / "tree")
        self.shards = sample_queries.python_func(parts["data"], 2, self.queries)

    def collect(self, shard: str) -> str:
        return collect_routes.python_func(
            self.parts["pool"], self.queries, shard, self.recordings, self.direct
        )

    def merge(self) -> None:
        merge_routes.python_func([self.collect(shard) for shard in self.shards], self.tree)

    def train(self, seeds: str) -> dsl.Artifact:
        routers = artifact(dsl.Model, self.folder / f"routers-{seeds}")
        train_router.python_func(self.parts["training"], seeds, self.tree, routers)
        return routers


@pytest.fixture
def study(tmp_path: Path, parts) -> Study:
    return Study(tmp_path, parts)


def test_sampling_says_what_it_took_and_in_which_shards_it_is_recorded(study) -> None:
    assert study.shards == ["0/2", "1/2"]
    assert study.queries.metadata["train"] + study.queries.metadata["test"] == 72
    assert study.queries.metadata["task algebra"] == 12
    with pytest.raises(ConfigError, match="shards 0: give at least 1"):
        sample_queries.python_func(study.parts["data"], 0, study.queries)
    with pytest.raises(ConfigError, match="data: task: unknown key"):
        sample_queries.python_func('{"task": ["x"]}', 1, study.queries)


def test_a_shard_that_was_killed_goes_on_and_generates_nothing_twice(study, monkeypatch) -> None:
    complete = ScriptedBackend._complete
    asked: list[str] = []

    def counted(self, prompt, limit):
        asked.append(prompt)
        return complete(self, prompt, limit)

    def mortal(self, prompt, limit):
        if len(asked) == 150:
            os.kill(os.getpid(), signal.SIGKILL)
        return counted(self, prompt, limit)

    monkeypatch.setattr(ScriptedBackend, "_complete", mortal)
    pod = multiprocessing.get_context("fork").Process(target=study.collect, args=("0/2",))
    pod.start()
    pod.join(120)
    assert pod.exitcode == -signal.SIGKILL
    (folder,) = study.folder.glob("recordings/*/shard-0-of-2-*")
    kept = nodes_in(folder)
    assert kept
    monkeypatch.setattr(ScriptedBackend, "_complete", counted)
    assert place_of(study.collect("0/2")) == folder
    made = nodes_in(folder)
    assert kept.items() <= made.items()
    # What was committed is not asked for again, and all else is, once.
    assert len(asked) == len(made) - len(kept)
    study.merge()
    assert study.tree.metadata["nodes"] == 72 * 15


def place_of(handed_on: str) -> Path:
    """The shard's folder, of what `collect_routes` hands on."""
    folder, _, digest = handed_on.rpartition("#")
    assert len(digest) > 8
    return Path(folder)


def test_what_a_shard_hands_on_tells_what_is_in_it(study) -> None:
    """Kubeflow's cache looks at the text alone: a tree that has grown must have another one."""
    study.direct = True
    direct = study.collect("0/2")
    assert study.collect("0/2") == direct
    assert nodes_in(place_of(direct))
    study.direct = False
    assert study.collect("0/2") != direct
    pool = json.loads(study.parts["pool"])
    bound = collect_routes.python_func(
        study.parts["pool"], study.queries, "1/2", str(study.folder / "recordings"), False, 1e-6
    )
    whole = study.collect("1/2")
    assert place_of(bound) == place_of(whole)
    assert bound != whole
    pool["encoder"]["dimensions"] = 256
    study.parts = {**study.parts, "pool": json.dumps(pool)}
    assert place_of(study.collect("1/2")) != place_of(whole)


def test_refused_questions_are_left_out_of_a_shard(study, monkeypatch, capfd) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RefusedError("3 of 9 calls refused, one of them: too long")

    study.collect("0/2")
    monkeypatch.setattr(collecting, "collect_routes", refuse)
    assert place_of(study.collect("0/2")).is_dir()
    assert "too long; training leaves these queries out" in capfd.readouterr().err


def test_a_damaged_neighbour_is_left_out(study, capfd) -> None:
    shard = place_of(study.collect("0/2"))
    study.collect("1/2")
    next((shard / "nodes").glob("*.parquet")).write_bytes(b"PAR1 of another world")
    assert place_of(study.collect("0/1")).is_dir()
    printed = capfd.readouterr().err
    assert f"{shard} is left out: " in printed
    assert printed.count("is left out") == 1


def test_what_is_taken_over_is_not_scored_again(study, monkeypatch) -> None:
    study.merge()
    scored: list[int] = []

    def count(items, *_: object, **__: object) -> list[object]:
        scored.append(len(items))
        return score_replies(items)

    monkeypatch.setattr(scores, "score_replies", count)
    study.merge()
    study.tree = artifact(dsl.Dataset, study.folder / "tree-of-three")
    merge_routes.python_func([study.collect(f"{index}/3") for index in range(3)], study.tree)
    assert scored == []


@pytest.mark.parametrize("recordings", ["", "memory://recordings-of-this-test"])
def test_another_number_of_shards_generates_nothing_anew(study, monkeypatch, recordings) -> None:
    study.recordings = recordings or study.recordings
    study.merge()

    def refuse(*_: object) -> None:
        raise AssertionError("a reply that is there was generated again")

    monkeypatch.setattr(ScriptedBackend, "generate", refuse)
    before = study.tree.metadata["digest"]
    study.tree = artifact(dsl.Dataset, study.folder / "tree-of-three")
    merge_routes.python_func([study.collect(f"{index}/3") for index in range(3)], study.tree)
    assert study.tree.metadata["nodes"] == 72 * 15
    assert study.tree.metadata["digest"] == before


def nodes_in(tree: Path) -> dict[str, str]:
    return {
        node.key: node.reply
        for path in (tree / "nodes").glob("*.parquet")
        for node in read_nodes(path)
    }


def test_a_shard_that_another_run_is_recording_is_waited_for(study, monkeypatch, capfd) -> None:
    handed_on = study.collect("0/2")
    folder = place_of(handed_on)
    monkeypatch.setattr(collecting, "BUSY_S", 0.001)
    asked = threading.Event()
    monkeypatch.setattr(collecting, "say", lambda _: asked.set())
    with ThreadPoolExecutor(1) as other, sole_writer(folder):
        again = other.submit(study.collect, "0/2")
        assert asked.wait(60)
        assert not again.done()
    assert again.result(60) == handed_on


def test_recordings_are_found_by_queries_and_pool_and_not_by_rates(study) -> None:
    first = place_of(study.collect("0/2"))
    pool = json.loads(study.parts["pool"])
    pool["models"][0]["base_rate"] = 0.01
    study.parts = {**study.parts, "pool": json.dumps(pool)}
    # Other rates are another tree with the same replies.
    second = place_of(study.collect("0/2"))
    assert second != first
    assert second.parent == first.parent
    assert nodes_in(second) == nodes_in(first)
    pool["models"][0]["limits"]["solve"] = 7
    study.parts = {**study.parts, "pool": json.dumps(pool)}
    assert place_of(study.collect("0/2")).parent != first.parent


def test_from_a_tree_to_a_registered_router(study, here, monkeypatch) -> None:
    uri = f"sqlite:///{here}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # and back at the end
    study.merge()
    routers = [study.train("1"), study.train("2,3")]
    assert set(routers[1].metadata) == {"seed 2 validation reward", "seed 3 validation reward"}
    run_id = study.folder / "run_id"
    settings = (study.parts["evaluation"], "mine", "job-1", "http://kubeflow")
    pods = open_run.python_func(*settings, "1,2,3", True, str(run_id), uri)
    assert pods == ["1", "2", "3"]
    assert open_run.python_func(*settings, "1,2,3", False, str(run_id), uri) == ["1,2,3"]
    router = artifact(dsl.Model, study.folder / "router")
    evaluated = artifact(dsl.Artifact, study.folder / "evaluated")
    metrics = artifact(dsl.Metrics, study.folder / "metrics")
    evaluate_router.python_func(
        study.parts["evaluation"],
        study.tree,
        routers,
        router,
        evaluated,
        metrics,
        artifact(dsl.Markdown, study.folder / "table"),
        artifact(dsl.HTML, study.folder / "report"),
    )
    assert 0 <= metrics.metadata["router/quality"] <= 1
    registered = artifact(dsl.Model, study.folder / "registered")
    version = register_router.python_func(
        *(study.parts["evaluation"], run_id.read_text(), study.tree, routers, router),
        *(evaluated, registered, uri),
    )
    assert version == "models:/hierrouter/1"
    status = dsl.PipelineTaskFinalStatus(
        state="SUCCEEDED",
        pipeline_job_resource_name="job-1",
        pipeline_task_name="exit-handler-1",
        error_code=None,
        error_message=None,
    )
    report_exit.python_func("job-1", status, uri)
    client = mlflow.MlflowClient(uri)
    run = client.get_run(run_id.read_text())
    assert run.info.status == "FINISHED"
    assert run.data.tags["kubeflow.link"] == "http://kubeflow/#/runs/details/job-1"
    assert run.data.metrics["router/quality"] == metrics.metadata["router/quality"]
    assert len(client.search_runs([run.info.experiment_id])) == 4


@pytest.mark.parametrize(("seeds", "pods"), [("", ["7"]), ("1,2", ["1,2"])])
def test_the_config_names_the_seed_where_no_other_is_named(parts, here, seeds, pods) -> None:
    uri = f"sqlite:///{here}/mlflow.db"
    settings = (parts["evaluation"], "mine", "job-1", "", seeds, False, str(here / "run_id"), uri)
    assert open_run.python_func(*settings, training='{"seed": 7}') == pods


@pytest.mark.parametrize("seeds", ["", "1,1", "a", "1;2", "-1"])
def test_seeds_that_are_none(study, seeds) -> None:
    with pytest.raises(ConfigError, match="give whole numbers, each once"):
        study.train(seeds)

"""The MLflow run of a pipeline run, with and without Kubeflow's own MLflow plugin."""

from __future__ import annotations

import mlflow
import pytest
from tests.unit.tracking.conftest import CONFIG

from hierrouter.errors import HierRouterError
from hierrouter.files import read_json
from hierrouter.tracking import children, register
from hierrouter.tracking.children import children_in, judged_child
from hierrouter.tracking.pipeline_runs import (
    close_pipeline_run,
    log_seeds,
    metrics_of,
    open_pipeline_run,
)
from hierrouter.tracking.register import register_router


@pytest.fixture
def client(here) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{here}/mlflow.db")


@pytest.fixture
def plugin(client, monkeypatch) -> tuple[str, str]:
    """The plugin's run for the pipeline, and below it the one for this task."""
    experiment = client.create_experiment("of-the-plugin")
    parent = client.create_run(experiment).info.run_id
    task = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", task)
    return parent, task


def test_a_task_that_is_tried_again_finds_its_run(client) -> None:
    first = open_pipeline_run("mine", "a run", "job-1", "http://kubeflow/")
    assert open_pipeline_run("mine", "a run", "job-1") == first
    assert open_pipeline_run("mine", "a run", "job-2") != first
    run = client.get_run(first)
    assert run.info.run_name == "a run"
    assert run.data.tags["kubeflow.run_id"] == "job-1"
    assert run.data.tags["kubeflow.link"] == "http://kubeflow/#/runs/details/job-1"


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ("SUCCEEDED", "FINISHED"),
        ("COMPLETE", "FINISHED"),
        ("CACHED", "FINISHED"),
        ("FAILED", "FAILED"),
        ("RUNNING", "FAILED"),
        ("CANCELLED", "KILLED"),
        ("CANCELED", "KILLED"),
    ],
)
def test_the_exit_task_ends_the_run_that_the_first_one_opened(client, status, ended) -> None:
    run = open_pipeline_run("mine", "a run", "job-1")
    assert client.get_run(run).info.status == "RUNNING"
    assert close_pipeline_run("job-1", status, "why") == run
    found = client.get_run(run)
    assert found.info.status == ended
    assert found.data.tags["kubeflow.reason"] == "why"


@pytest.mark.parametrize(
    ("status", "ended"), [("FAILED", "FAILED"), ("SUCCEEDED", "FAILED"), ("CANCELED", "KILLED")]
)
def test_no_child_stays_open_when_a_pipeline_has_ended(client, plugin, status, ended) -> None:
    parent, task = plugin
    run = open_pipeline_run("mine", "a run", "job-1")
    tags = {"mlflow.parentRunId": run, "hierrouter.training_seed": "7"}
    experiment = client.get_run(run).info.experiment_id
    open_child, finished = (client.create_run(experiment, tags=tags).info.run_id for _ in "ab")
    client.set_terminated(finished)
    close_pipeline_run("job-1", status)
    states = [client.get_run(each).info.status for each in (open_child, finished, parent, task)]
    assert states == [ended, "FINISHED", "RUNNING", "RUNNING"]


@pytest.mark.parametrize(("status", "ended"), [("RUNNING", "FINISHED"), ("FAILED", "FAILED")])
def test_an_exit_task_that_is_told_too_early_goes_by_what_was_registered(
    client, stage, status, ended
) -> None:
    run = open_pipeline_run("mine", "a run", "job-1")
    register_router(CONFIG, stage.router, stage.evaluation, stage.tree, run)
    close_pipeline_run("job-1", status)
    assert client.get_run(run).info.status == ended


def test_a_pipeline_that_failed_before_it_had_a_run(client) -> None:
    assert close_pipeline_run("job-1", "FAILED") is None


def test_with_the_plugin_its_runs_are_used_and_neither_made_nor_ended(client, plugin) -> None:
    parent, task = plugin
    assert open_pipeline_run("mine", "a run", "job-1") == parent
    assert client.get_experiment_by_name("mine") is None
    assert close_pipeline_run("job-1", "SUCCEEDED") == parent
    for run in (parent, task):
        assert client.get_run(run).info.status == "RUNNING"
    assert client.get_run(parent).data.tags["kubeflow.status"] == "SUCCEEDED"


@pytest.mark.parametrize("with_plugin", [False, True])
def test_an_open_run_gets_everything_and_stays_open(client, stage, with_plugin, request) -> None:
    if with_plugin:
        request.getfixturevalue("plugin")
    run = open_pipeline_run("mine", "a run", "job-1")
    registered = register_router(CONFIG, stage.router, stage.evaluation, stage.tree, run)
    assert (registered.run_id, registered.version) == (run, 1)
    found = client.get_run(run)
    assert found.info.status == "RUNNING"
    assert found.data.params["training.moves"]
    assert metrics_of("job-1")["router/reward"] == found.data.metrics["router/reward"]
    # The same router in a second pipeline run: its own run, the same version.
    other = open_pipeline_run("mine", "another", "job-2") if not with_plugin else run
    again = register_router(CONFIG, stage.router, stage.evaluation, stage.tree, other)
    assert (again.version, again.reused) == (1, True)
    assert metrics_of("job-1") == metrics_of("job-2" if not with_plugin else "job-1")


def test_a_second_try_leaves_no_more_than_the_first_would_have(client, stage, monkeypatch) -> None:
    run = open_pipeline_run("mine", "a run", "job-1")
    experiment = client.get_run(run).info.experiment_id

    def refused(*_: object) -> None:
        raise HierRouterError("no")

    with monkeypatch.context() as patch:
        patch.setattr(register, "write_children", refused)
        with pytest.raises(HierRouterError, match="no"):
            register_router(CONFIG, stage.router, stage.evaluation, stage.tree, run)
    done = register_router(CONFIG, stage.router, stage.evaluation, stage.tree, run)
    assert (done.run_id, done.version) == (run, 1)
    assert client.get_run(run).info.status == "RUNNING"
    (model,) = client.search_logged_models([experiment])
    assert client.get_model_version("hierrouter", "1").source == model.model_uri
    assert len(client.get_metric_history(run, "router/reward")) == 1
    assert [point.step for point in client.get_metric_history(run, "training/reward")] == [1, 2, 3]


def test_seeds_are_children_once(client, stage, other_stage, tmp_path) -> None:
    run = open_pipeline_run("mine", "a run", "job-1")
    evaluations = tmp_path / "evaluations"
    evaluations.mkdir()
    (evaluations / stage.router.name).symlink_to(stage.evaluation)
    experiment = client.get_run(run).info.experiment_id
    tags = {"mlflow.parentRunId": run, "hierrouter.training_seed": "7"}
    begun = client.create_run(experiment, tags=tags).info.run_id
    (child,) = log_seeds(CONFIG, run, [stage.router], evaluations)
    # What a try that was cut short had begun is gone.
    assert client.get_run(begun).info.lifecycle_stage == "deleted"
    assert log_seeds(CONFIG, run, [stage.router], evaluations) == [child]
    found = client.get_run(child)
    assert found.data.tags["mlflow.parentRunId"] == run
    assert found.info.status == "FINISHED"
    assert "router/reward" in found.data.metrics


def test_a_child_that_could_not_be_written_has_failed(client, stage, tmp_path, monkeypatch) -> None:
    run = open_pipeline_run("mine", "a run", "job-1")
    (tmp_path / stage.router.name).symlink_to(stage.evaluation)

    def refused(*_: object) -> None:
        raise mlflow.MlflowException("no")

    with monkeypatch.context() as patch:
        patch.setattr(children, "log_values", refused)
        with pytest.raises(HierRouterError, match="no"):
            log_seeds(CONFIG, run, [stage.router], tmp_path)
    experiment = client.get_run(run).info.experiment_id
    (child,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run}'")
    assert child.info.status == "FAILED"


def test_a_child_is_of_one_seed_though_its_evaluation_has_several(pool) -> None:
    stage = pool.stage("good", seeds=2)
    metrics = read_json(stage.evaluation / "metrics.json")
    own, other = children_in(CONFIG, stage.router, stage.evaluation, metrics)
    child = judged_child(CONFIG, stage.router, stage.evaluation)
    assert child.metrics == own.metrics
    assert child.metrics["router/quality"] != other.metrics["router/quality"]


def test_seeds_of_an_evaluation_are_children_of_the_plugins_run(client, pool, plugin) -> None:
    parent, task = plugin
    run = open_pipeline_run("mine", "a run", "job-1")
    stage = pool.stage("good", seeds=2)
    register_router(CONFIG, stage.router, stage.evaluation, stage.tree, run)
    experiment = client.get_run(parent).info.experiment_id
    below = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    children = [each for each in below if each.info.run_id != task]
    assert [each.info.status for each in children] == ["FINISHED", "FINISHED"]
    assert [client.get_run(each).info.status for each in (parent, task)] == ["RUNNING", "RUNNING"]


def test_an_experiment_that_was_deleted(client) -> None:
    client.delete_experiment(client.create_experiment("mine"))
    with pytest.raises(HierRouterError, match="experiment mine was deleted"):
        open_pipeline_run("mine", "a run", "job-1")

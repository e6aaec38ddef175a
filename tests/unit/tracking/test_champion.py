"""When a challenger becomes champion: the rule as a table, and what stands in the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.versus.replay import of_pool
from hierrouter.learning.router import Router, query_hash
from hierrouter.routes.load import load_outcomes
from hierrouter.tracking import register
from hierrouter.tracking.champion import judge
from hierrouter.tracking.register import register_router

from .conftest import CONFIG

if TYPE_CHECKING:
    from .conftest import Pool, Stage


def verdict(challenger: Stage, champion: Stage, attempt: int = 1, tree: bool = True):
    return judge(
        challenger.router,
        challenger.evaluation,
        challenger.tree if tree else None,
        champion.router,
        "version 7",
        attempt,
    )


@pytest.mark.parametrize(
    ("challenger", "champion", "replaces", "told"),
    [
        ("good", "poor", True, "replaces version 7 as champion: its reward is +"),
        ("good", "fair", True, "replaces version 7"),
        ("poor", "good", False, "version 7 stays champion: the challenger is not shown"),
        ("fair", "fair", False, "gets exactly its reward on every query"),
        ("twin", "fair", False, "the challenger is not shown to be better; its reward is "),
        ("fair", "twin", False, "the challenger is not shown to be better; its reward is "),
    ],
)
def test_only_the_better_one_replaces(pool: Pool, challenger, champion, replaces, told) -> None:
    decision = verdict(pool.stage(challenger), pool.stage(champion))
    assert decision.replaces is replaces
    assert decision.attempt
    assert told in decision.reason
    assert "\n" not in decision.reason


def test_the_numbers_are_those_of_the_queries(pool: Pool) -> None:
    challenger, champion = pool.stage("good"), pool.stage("poor")
    decision = verdict(challenger, champion)
    outcomes = load_outcomes(challenger.tree, "accuracy", "paper", "direct")
    test = outcomes.select(~outcomes.train)
    columns = [test.models.index(name) for name in ("good", "poor")]
    good, poor = (test.solve_quality[:, 0, column] for column in columns)
    shown = float(re.search(r"reward is ([+\d.]+) points", decision.reason)[1])
    assert shown == pytest.approx(100 * (good - poor).mean(), abs=0.06)  # costs are the same
    bound = float(re.search(r"95% bound ([+\d.]+);", decision.reason)[1])
    normal = (good - poor).mean() - 1.645 * (good - poor).std() / np.sqrt(len(test))
    assert bound == pytest.approx(100 * normal, abs=2.5)
    assert f"{len(test)} test queries, mean over alpha 0, 0.1; attempt 1" in decision.reason


def test_every_attempt_makes_the_bound_stricter(pool: Pool) -> None:
    challenger, champion = pool.stage("good"), pool.stage("fair")
    bounds = []
    for attempt in (1, 2, 20):
        reason = verdict(challenger, champion, attempt).reason
        level, bound = re.search(r"one-sided ([\d.]+)% bound ([+−\d.]+)", reason).groups()
        assert float(level) == pytest.approx(100 * (1 - 0.05 / attempt), abs=0.01)
        bounds.append(float(bound.replace("−", "-")))
    assert bounds[0] > bounds[1] > bounds[2]


def test_what_cannot_be_compared_leaves_the_champion_where_it_is(pool: Pool) -> None:
    challenger = pool.stage("good")
    info = Router.load(challenger.router).info
    outcomes = load_outcomes(challenger.tree, "accuracy", "paper", "direct")
    tests = [query_hash(name) for name in np.array(outcomes.query_ids)[~outcomes.train][:3]]
    elsewhere = {**info.encoder["identity"], "digest": "0" * 64}
    for champion, told in (
        (pool.stage("poor", data_seed=7), "has the data seed 42, the champion 7"),
        (pool.stage("poor", metric="f1"), "has the metric accuracy, the champion f1"),
        (
            pool.stage("poor", config={**info.config, "data": {"train_share": 0.7}}),
            "data.train_share is 0.5 for one and 0.7 for the other",
        ),
        (
            pool.stage("poor", training_query_hashes=(*info.training_query_hashes, *tests)),
            "the champion was trained on 3 of the challenger's",
        ),
        (
            pool.stage("poor", encoder={**info.encoder, "identity": elsewhere}),
            "the router was trained with the encoder",
        ),
        (
            pool.stage("poor", weights={**info.weights, "poor": "0" * 64}),
            "other weights of poor",
        ),
    ):
        decision = verdict(challenger, champion)
        assert decision.reason.startswith("version 7 stays champion, the two were not compared: ")
        assert told in decision.reason
        assert (decision.replaces, decision.attempt) == (False, False)
    assert "no tree was named" in verdict(challenger, pool.stage("poor"), tree=False).reason
    (challenger.evaluation / "per_query.parquet").write_bytes(b"cut off")
    assert "cannot be read" in verdict(challenger, pool.stage("poor")).reason


def test_another_pool_is_compared_where_the_tree_has_its_replies(pool: Pool) -> None:
    smaller = pool.tree(("fair", "poor"))
    champion = pool.stage("poor", smaller)
    assert verdict(pool.stage("good"), champion).replaces
    assert not verdict(pool.stage("poor"), pool.stage("fair", smaller)).replaces
    decision = verdict(champion, pool.stage("good"))
    assert (decision.replaces, decision.attempt) == (False, False)
    assert "the tree has no replies of good, twin" in decision.reason


def test_too_few_test_queries_say_nothing(stage: Stage, other_stage: Stage) -> None:
    assert "10 test queries are too few to tell" in verdict(stage, other_stage).reason


def test_a_smaller_pool_is_the_same_calls_by_other_numbers(stage: Stage, pool: Pool) -> None:
    outcomes = load_outcomes(pool.tree(), "accuracy", "paper", "direct")
    part = of_pool(outcomes, ("poor", "fair"), 1)
    names = outcomes.models
    for position, name in enumerate(part.models):
        column = outcomes.solve_quality[:, :, names.index(name)]
        np.testing.assert_array_equal(part.solve_quality[:, :, position], column)
    with pytest.raises(HierRouterError, match="routes of 1 calls"):
        of_pool(outcomes, ("poor",), 2)


def client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def registered(stage: Stage, tree: bool = True):
    return register_router(CONFIG, stage.router, stage.evaluation, stage.tree if tree else None)


def test_the_registry_says_who_is_champion_and_why(here: Path, pool: Pool, capsys) -> None:
    first = registered(pool.stage("fair"))
    assert first.reason.startswith("version 1: becomes champion, for there was none; its reward")
    worse = registered(pool.stage("poor"))
    alike = registered(pool.stage("twin"))
    assert worse.aliases == alike.aliases == ("challenger",)
    tags = client().get_registered_model("hierrouter").tags
    assert tags["hierrouter.attempts"] == "2"
    assert "attempt 2 against version 1" in alike.reason
    untold = registered(pool.stage("good"), tree=False)
    assert "no tree was named" in untold.reason
    better = registered(pool.stage("good"))
    assert better.aliases == ("challenger", "champion")
    assert "one-sided 98.33% bound" in better.reason  # of the third; the one before was not played
    assert better.reason in " ".join(capsys.readouterr().err.split())
    version = client().get_model_version("hierrouter", "5")
    assert version.tags["hierrouter.reason"] == version.description == better.reason
    assert version.tags["hierrouter.judged_against"] == "1"
    # The next one meets another champion: its count begins anew.
    next_one = registered(pool.stage("fair", training_seed=9))
    assert "attempt 1 against version 5" in next_one.reason
    # Whoever was judged is not judged again, and a person's choice stands.
    client().set_registered_model_alias("hierrouter", "champion", "2")
    again = register_router(CONFIG, *_of(pool, better))
    assert again.reused
    assert again.reason == better.reason
    assert client().get_registered_model("hierrouter").aliases["champion"] in (2, "2")


def _of(pool: Pool, done) -> tuple[Path, Path, Path]:
    """The folders that a version was registered from."""
    digest = client().get_run(done.run_id).data.tags["hierrouter.weights_sha256"]
    for router in sorted(pool.folder.glob("stage-*/router"), reverse=True):
        if Router.load(router).info.weights_sha256 == digest:
            return router, router.with_name("evaluation"), pool.tree()
    raise AssertionError(digest)


@pytest.mark.parametrize("moment", ["set_registered_model_alias", "update_model_version"])
def test_a_promotion_that_was_cut_short_is_made_good(
    here: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    registered(pool.stage("poor"))
    better = pool.stage("good")

    class Cut(BaseException):
        pass

    def cut(self, name, alias, *_, **__):
        if moment == "update_model_version" or alias == "champion":
            raise Cut
        return kept(self, name, alias, *_)

    kept = getattr(mlflow.MlflowClient, moment)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, moment, cut)
        with pytest.raises(Cut):
            registered(better)
    again = registered(better)
    assert (again.version, again.aliases) == (2, ("challenger", "champion"))
    assert "attempt 1 against version 1" in again.reason
    assert client().get_registered_model("hierrouter").tags["hierrouter.attempts"] == "1"
    assert client().get_model_version("hierrouter", "2").description == again.reason


def test_every_seed_is_a_child_with_the_same_names(here: Path, pool: Pool) -> None:
    stage = pool.stage("good", seeds=3)
    done = registered(stage)
    parent = client().get_run(done.run_id)
    runs = [
        run for run in client().search_runs([done.experiment_id]) if run.info.run_id != done.run_id
    ]
    children = sorted(runs, key=lambda run: run.info.run_name)
    seeds = [f"seed {seed} of {parent.info.run_name}" for seed in (42, 43, 44)]
    assert [run.info.run_name for run in children] == seeds
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == done.run_id
        assert run.info.status == "FINISHED"
        assert set(run.data.metrics) == set(parent.data.metrics)
        seed = run.data.tags["hierrouter.training_seed"]
        assert run.data.params == {**parent.data.params, "training.seed": seed}
    for name, value in parent.data.metrics.items():
        if name.startswith("router/") and name != "router/aiq":
            each = [run.data.metrics[name] for run in children]
            assert np.mean(each) == pytest.approx(value)
    # The others are no routers that always choose the best.
    assert children[0].data.metrics["router/quality"] > children[1].data.metrics["router/quality"]
    assert registered(stage).reused
    assert len(client().search_runs([done.experiment_id])) == 4


def test_children_go_with_a_run_that_was_cut_short(
    here: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = pool.stage("good", seeds=2)
    kept = register.write_children

    def interrupted(*arguments: object) -> None:
        kept(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(register, "write_children", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registered(stage)
    experiment = client().get_experiment_by_name("hierrouter").experiment_id
    assert client().search_runs([experiment]) == []
    assert registered(stage).version == 1


def test_a_seed_whose_router_is_gone_is_said_before_mlflow_is_asked(pool: Pool) -> None:
    stage = pool.stage("good", seeds=2)
    (stage.evaluation / "routers" / "split" / "router" / "43" / "router.json").unlink()
    with pytest.raises(HierRouterError, match="43 is gone, the router of a training seed"):
        registered(stage)

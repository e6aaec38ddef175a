"""When a challenger becomes champion: the rule as a table, and what stands in the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest

from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.evaluation.versus.replay import of_pool
from hierrouter.learning.router import Router, query_hash
from hierrouter.routes.load import load_outcomes
from hierrouter.tracking import contest, register
from hierrouter.tracking.champion import judge
from hierrouter.tracking.register import register_router

from .conftest import CONFIG

if TYPE_CHECKING:
    from .conftest import Pool, Stage


def verdict(
    challenger: Stage, champion: Stage, attempt: int = 1, tree: bool = True, at: Path | None = None
):
    return judge(
        challenger.router,
        challenger.evaluation,
        (at or challenger.tree) if tree else None,
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
    bound = float(re.search(r"97.5% bound ([+\d.]+);", decision.reason)[1])
    normal = (good - poor).mean() - 1.96 * (good - poor).std() / np.sqrt(len(test))
    # The worst that a query could give weighs like one more.
    assert 100 * normal - 2 < bound < 100 * normal
    grid = "mean over alpha 0, 0.05, 0.1, 0.2, 0.5, 1; attempt 1"
    assert f"{len(test)} test queries, {grid}" in decision.reason


@pytest.mark.parametrize(("price", "scale"), [(0.0015, 1.0), (0.0005, 1.0), (0.001, 0.9)])
def test_other_prices_and_scores_replace_nobody(pool: Pool, price: float, scale: float) -> None:
    """The tree has changed since the challenger was evaluated: that is no merit of a router."""
    now = pool.tree(prices=dict.fromkeys(("good", "fair", "twin", "poor"), price), scale=scale)
    same = verdict(pool.stage("fair"), pool.stage("fair"), at=now)
    assert not same.replaces
    assert "gets exactly its reward on every query" in same.reason
    worse = verdict(pool.stage("twin"), pool.stage("fair"), at=now)
    assert (worse.replaces, worse.attempt) == (False, True)
    better = verdict(pool.stage("good"), pool.stage("fair"), at=now)
    assert better.replaces
    for decision in (same, worse, better):
        assert "the tree is no longer what the challenger was evaluated on" in decision.reason
    assert "no longer" not in verdict(pool.stage("good"), pool.stage("fair")).reason


def test_the_challenger_does_not_choose_the_grid(pool: Pool) -> None:
    """Dear and good or cheap and fair: which is better depends on alpha."""
    tree = pool.tree(prices={"good": 0.01})
    both = {name: pool.stage(name, tree) for name in ("good", "fair")}
    for alphas in ((0, 0.1), (0.5, 1)):
        good, fair = (pool.stage(name, tree, alphas=alphas) for name in ("good", "fair"))
        assert verdict(good, both["fair"]).replaces
        decision = verdict(fair, both["good"])
        assert not decision.replaces
        assert "mean over alpha 0, 0.05, 0.1, 0.2, 0.5, 1;" in decision.reason


def test_a_small_saving_is_not_taken_for_a_gain_while_losses_may_be_unseen(pool: Pool) -> None:
    """The same answers on every test query, a little cheaper: what three in 300 would cost."""
    near = pool.tree(("fair", "double"), prices={"fair": 0.001, "double": 0.00099})
    cheaper, same = pool.stage("double", near), pool.stage("fair", near)
    decision = verdict(cheaper, same)
    assert (decision.replaces, decision.attempt) == (False, True)
    assert "its reward is +0.3 points" in decision.reason
    far = pool.tree(("fair", "double"), prices={"fair": 0.001, "double": 0.0005})
    assert verdict(pool.stage("double", far), pool.stage("fair", far)).replaces


def test_every_attempt_makes_the_bound_stricter(pool: Pool) -> None:
    challenger, champion = pool.stage("good"), pool.stage("fair")
    bounds = []
    for attempt in (1, 2, 500):
        reason = verdict(challenger, champion, attempt).reason
        level, bound = re.search(r"one-sided ([\d.]+)% bound ([+−\d.]+)", reason).groups()
        exact = 100 * (1 - 0.05 / (attempt * (attempt + 1)))
        assert float(level) == pytest.approx(exact, abs=0.006)
        assert float(level) < 100
        bounds.append(float(bound.replace("−", "-")))
    assert bounds[0] > bounds[1] > bounds[2]


def test_all_attempts_together_are_wrong_in_one_of_twenty_cases(pool: Pool) -> None:
    challenger, champion = pool.stage("twin"), pool.stage("fair")
    chances = []
    for attempt in range(1, 21):
        reason = verdict(challenger, champion, attempt).reason
        chances.append(1 - float(re.search(r"one-sided ([\d.]+)% bound", reason)[1]) / 100)
    # What is left over is for all attempts after these.
    assert sum(chances) == pytest.approx(0.05 * 20 / 21, abs=5e-4)


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
            pool.stage("poor", config={**info.config, "data": {"seed": 42}}),
            "data.train_share is 0.5 for one and unknown for the other",
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
    seen = pool.stage("good", training_query_hashes=(*info.training_query_hashes, *tests))
    assert "the challenger was trained on 3 of" in verdict(seen, pool.stage("poor")).reason
    other = judge(
        pool.stage("fair").router, challenger.evaluation, challenger.tree, challenger.router
    )
    assert "evaluation is that of another router" in other.reason
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
    assert "one-sided 99.58% bound" in better.reason  # of the third; the one before was not played
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


def test_a_version_from_before_the_rule_says_that_it_was_never_compared(
    here: Path, pool: Pool
) -> None:
    old, newer = pool.stage("poor"), pool.stage("fair")
    for stage in (old, newer):
        registered(stage)
    for number in ("1", "2"):
        for key in ("reason", "verdict", "settled", "judged_against", "attempt"):
            if f"hierrouter.{key}" in client().get_model_version("hierrouter", number).tags:
                client().delete_model_version_tag("hierrouter", number, f"hierrouter.{key}")
    client().set_registered_model_alias("hierrouter", "champion", "1")
    again = registered(old)
    assert again.reason.startswith("version 1: is champion by somebody's choice, or from before")
    tags = client().get_model_version("hierrouter", "1").tags
    assert tags["hierrouter.reason"] == again.reason
    client().set_registered_model_alias("hierrouter", "champion", "2")
    again = registered(old)
    assert again.reason.startswith("version 1: was never compared with a champion")
    assert "version 2 stays champion" in again.reason
    assert again.aliases == ()


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


@pytest.mark.parametrize(
    ("champion", "meanwhile", "told", "attempts"),
    [
        ("poor", "good", "version 3 stays champion", {"3": "1"}),
        ("good", "twin", "attempt 2 against version 1", {"1": "2"}),
    ],
)
def test_who_was_registered_while_another_was_judged_counts(
    here: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, champion, meanwhile, told, attempts
) -> None:
    registered(pool.stage(champion))
    kept = contest.judge

    def judged(*arguments):
        monkeypatch.setattr(contest, "judge", kept)
        registered(pool.stage(meanwhile))
        return kept(*arguments)

    monkeypatch.setattr(contest, "judge", judged)
    done = registered(pool.stage("fair"))
    assert (done.version, done.aliases) == (2, ())
    assert told in done.reason
    tags = client().get_registered_model("hierrouter").tags
    assert {tags["hierrouter.attempts_against"]: tags["hierrouter.attempts"]} == attempts


def test_two_that_took_themselves_for_the_first_are_two_attempts(here: Path, pool: Pool) -> None:
    registered(pool.stage("good"))
    registered(pool.stage("poor"))
    registered(pool.stage("fair"))
    # As if the third had counted before the second was done.
    client().set_model_version_tag("hierrouter", "3", "hierrouter.attempt", "1")
    client().set_registered_model_tag("hierrouter", "hierrouter.attempts", "1")
    assert "attempt 3 against version 1" in registered(pool.stage("twin")).reason


@pytest.mark.parametrize(
    "failure",
    [
        OSError("503 Server Error: Service Unavailable for url: http://mlflow/x"),
        mlflow.MlflowException("The following failures occurred:\nx: Read timed out."),
    ],
    ids=["a refusal for now", "a time-out"],
)
def test_a_failure_that_passes_settles_nothing(
    here: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    registered(pool.stage("poor"))
    better = pool.stage("good")

    def failing(**_: object) -> str:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.artifacts.download_artifacts", failing)
        with pytest.raises(UnreachableError, match="does not answer"):
            registered(better)
    assert registered(better).aliases == ("challenger", "champion")


def test_what_could_not_be_compared_is_judged_when_it_is_registered_again(
    here: Path, pool: Pool
) -> None:
    registered(pool.stage("poor"))
    better = pool.stage("good")
    stored = list((here / "mlruns").rglob("router.json"))
    for path in stored:
        path.rename(path.with_suffix(".away"))
    lost = registered(better)
    assert "version 1 stays champion, the two were not compared: " in lost.reason
    assert lost.reason.endswith(". If it is lost, set the alias champion by hand")
    assert client().get_model_version("hierrouter", "2").description == lost.reason
    registered(pool.stage("fair"), tree=False)  # it is not the newest any more
    for path in stored:
        path.with_suffix(".away").rename(path)
    again = registered(better)
    assert (again.version, again.reused, again.aliases) == (2, True, ("champion",))
    assert "attempt 1 against version 1" in again.reason


def test_every_seed_is_a_child_with_the_same_names(here: Path, pool: Pool) -> None:
    # Of other prices, or the cheap end of a seed's curve would lie where all of it lies.
    stage = pool.stage("good", pool.tree(prices={"good": 0.002, "poor": 0.0005}), seeds=3)
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
        if name.startswith("router/"):
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

"""The numbers of metrics.json, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from hierrouter.config import EvaluationConfig
from hierrouter.errors import HierRouterError
from hierrouter.evaluation.cautions import cautions_crossed, cautions_of_proof, visible_points
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.policies.play import play
from hierrouter.evaluation.records import SCHEMA, write_records
from hierrouter.evaluation.verdict import compare, verdict
from hierrouter.learning.router import query_hash

CONFIG = EvaluationConfig(bootstrap=200)


def test_metrics_follow_the_contract(make_outcomes, make_router):
    outcomes = make_outcomes(n=30)
    found = measure(outcomes, make_router(outcomes, cost_unit_usd=2.0), CONFIG)
    metrics = json.loads(json.dumps(found.metrics, allow_nan=False))
    assert (metrics["n_test"], metrics["n_train"]) == (10, 20)
    assert metrics["n_test_by_task"] == {"a": 5, "b": 5}
    assert [at["alpha"] for at in metrics["by_alpha"]] == CONFIG.alphas
    router = metrics["policies"]["router"]
    table = outcomes.select(~outcomes.train).routes("early_exit")
    quality, cost = table.quality[:, 0].mean(), table.cost[:, 0].mean()
    assert router["quality"]["mean"] == pytest.approx(quality)
    assert router["cost"]["mean"] == pytest.approx(cost)
    assert router["relative_cost"]["mean"] == pytest.approx(cost / 2)
    assert router["reward"]["mean"] == pytest.approx(quality - 0.1 * cost / 2)
    assert router["routes"] == {"A": 1.0}
    assert router["tasks"]["a"]["quality"]["mean"] == pytest.approx(table.quality[::2, 0].mean())
    assert len(metrics["curves"]["router"]) == len(CONFIG.alphas)
    assert "router" not in metrics["differences"]
    assert set(metrics["differences"]) == set(metrics["policies"]) - {"router"}


def test_every_interval_holds_its_ends_in_order_and_tasks_add_up(make_outcomes, make_router):
    outcomes = make_outcomes(n=90, tasks=("a", "a", "b"))
    metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
    for entry in metrics["policies"].values():
        for key in ("quality", "cost", "relative_cost", "reward"):
            assert entry[key]["low"] <= entry[key]["mean"] <= entry[key]["high"]
            weighted = sum(
                entry["tasks"][task][key]["mean"] * count
                for task, count in metrics["n_test_by_task"].items()
            )
            assert weighted / metrics["n_test"] == pytest.approx(entry[key]["mean"])


def test_reward_intervals_are_those_of_the_rewards_themselves(make_outcomes, make_router):
    """Reward is put together from resampled quality and cost: the same as resampling it."""
    outcomes = make_outcomes(n=60)
    found = measure(outcomes, make_router(outcomes, cost_unit_usd=0.5), CONFIG)
    free = replace(
        outcomes,
        solve_quality=outcomes.solve_quality - 0.5 * outcomes.solve_cost / 0.5,
        solve_cost=np.zeros_like(outcomes.solve_cost),
    )
    alike = measure(free, make_router(free, cost_unit_usd=0.5), CONFIG)
    at_half = next(at for at in found.metrics["by_alpha"] if at["alpha"] == 0.5)
    assert at_half["policies"]["single:B"]["reward"] == pytest.approx(
        alike.metrics["policies"]["single:B"]["reward"]
    )


def test_differences_are_paired(make_direct, make_router):
    # The router's model is right wherever B is, and costs .25 more: however the queries are
    # drawn, the difference is the same, though each mean varies.
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, 40).astype(float)
    outcomes = make_direct(np.stack([right, right], axis=1).tolist(), [[0.75, 0.5]] * 40, train=10)
    metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
    difference = metrics["differences"]["single:B"]
    for end in ("mean", "low", "high"):
        assert difference["quality"][end] == 0
        assert difference["cost"][end] == pytest.approx(0.25)
        assert difference["reward"][end] == pytest.approx(-0.025)
    mine = metrics["policies"]["router"]["reward"]
    assert mine["high"] - mine["low"] > 0.1


def test_records_hold_every_query_policy_and_alpha(make_outcomes, make_router, tmp_path):
    outcomes = make_outcomes(n=30)
    found = measure(outcomes, make_router(outcomes, cost_unit_usd=2.0), CONFIG)
    write_records(tmp_path / "per_query.parquet", found.test, found.played, 2.0)
    table = pq.read_table(tmp_path / "per_query.parquet")
    assert table.schema.names == SCHEMA.names
    frame = table.to_pandas()
    policies = found.metrics["policies"]
    assert len(frame) == 10 * len(policies) * len(CONFIG.alphas)
    assert not frame.duplicated(["query_id", "policy", "alpha"]).any()
    assert frame[frame.policy == "random"].route.isna().all()
    assert set(frame[frame.policy == "path:A:B"].route) == {"A:B"}
    means = frame[frame.alpha == 0.1].groupby("policy", observed=True)
    for name, values in means[["quality", "cost", "relative_cost", "reward"]].mean().iterrows():
        for key, value in values.items():
            assert policies[name][key]["mean"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("facts", "culprit"),
    [
        ({"models": ("A", "X")}, "A, X"),
        ({"models": ("B", "A")}, "B, A"),
        ({"hops": 3}, "3 hops"),
        ({"metric": "token_f1"}, "token_f1"),
        ({"training_query_hashes": (query_hash("q/11"),)}, "q/11"),
    ],
)
def test_a_router_that_does_not_fit_is_refused_in_one_line(
    make_outcomes, make_router, facts, culprit
):
    outcomes = make_outcomes()
    with pytest.raises(HierRouterError, match=culprit) as refusal:
        measure(outcomes, make_router(outcomes, **facts), CONFIG)
    assert "\n" not in str(refusal.value)


def test_training_queries_of_the_router_may_be_in_the_training_split(make_outcomes, make_router):
    outcomes = make_outcomes()
    measure(outcomes, make_router(outcomes, training_query_hashes=(query_hash("q/0"),)), CONFIG)


@pytest.mark.parametrize(("train", "missing"), [(True, "test"), (False, "training")])
def test_an_empty_split_is_refused(make_outcomes, make_router, train, missing):
    outcomes = replace(make_outcomes(), train=np.full(12, train))
    with pytest.raises(HierRouterError, match=f"no {missing} quer"):
        measure(outcomes, make_router(outcomes), CONFIG)


def test_an_outcome_that_is_no_number_is_refused(make_outcomes, make_router):
    outcomes = make_outcomes()
    outcomes.solve_quality[5, 1, 0] = np.nan
    with pytest.raises(HierRouterError, match="q/5"):
        measure(outcomes, make_router(outcomes), CONFIG)


def test_warnings_name_what_weakens_the_results(make_outcomes, make_router):
    outcomes = make_outcomes(n=30)
    inert = measure(outcomes, make_router(outcomes, alpha_range=(0.0, 0.2)), CONFIG).metrics
    few, outside, changes, alone = inert["warnings"]
    assert "a 5, b 5" in few
    assert "0.5, 1" in outside
    assert "alpha changes nothing" in changes
    assert alone == "One training seed: the intervals say nothing about training again."
    turning = make_router(outcomes, choose=lambda alpha: int(alpha > 0.3))
    assert len(measure(outcomes, turning, CONFIG).metrics["warnings"]) == 2


@pytest.mark.parametrize(("turns", "said"), [((False, False), 1), ((False, True), 0)])
def test_alpha_changes_nothing_only_where_it_does_so_with_no_seed(make_outcomes, turns, said):
    outcomes = replace(make_outcomes(n=400), folds=np.arange(400) % 4 // 2)
    table = outcomes.routes("early_exit")
    played = {
        alpha: {
            "router": tuple(
                play("router", table, np.full(400, int(turn and alpha > 0.3))) for turn in turns
            )
        }
        for alpha in (0.1, 0.5)
    }
    warnings = cautions_crossed(outcomes, (0.0, 1.0), played, 0.95)
    assert [text.split(":")[0] for text in warnings] == ["alpha changes nothing"] * said


def test_no_warning_where_none_is_due(make_outcomes, make_router):
    outcomes = make_outcomes(n=600)
    turning = make_router(outcomes, choose=lambda alpha: int(alpha > 0.3))
    (alone,) = measure(outcomes, turning, CONFIG).metrics["warnings"]
    assert alone.startswith("One training seed")


def test_what_was_said_before_training_is_kept(make_outcomes, make_router):
    outcomes = make_outcomes(n=600, hops=1)
    outcomes = replace(outcomes, folds=np.arange(600) // 2 % 5)
    outcomes.solve_quality[:] = [0.0, 1.0]  # B knows everything
    warnings = measure(outcomes, make_router(outcomes, moves="direct"), CONFIG).metrics["warnings"]
    assert [text for text in warnings if "No headroom: at alpha 0.1, over 400 queries" in text]
    assert [text for text in warnings if text.startswith("alpha is inert: from 0 to 1")]


def test_a_difference_on_a_handful_of_queries_is_no_proof(make_direct, make_router):
    # The router's model is as good but for one query, which it gets right, and saves a little.
    quality = [[0, 1]] * 20 + [[1, 0]] + [[1, 1]] * 99
    outcomes = make_direct(quality, [[0.4, 0.5]] * 120, train=20)
    metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
    about = metrics["family"]["best_single"]
    assert about["reward"]["low"] > 0
    assert about["p_holm"] < 0.05
    assert about["differing"] == 1
    assert about["at_least"] < 0 < about["at_most"]
    assert (about["better"], about["worse"], about["unproven"]) == (False, False, True)
    said = "router and best_single give different quality on only 1 of 100 queries: no proof"
    assert [text for text in metrics["warnings"] if text.startswith(said)]
    assert "; quality differs on only 1 of the queries)" in verdict(metrics)
    # Where the saving is worth more than a lost query could take, it stands.
    outcomes = make_direct(quality, [[0.4, 2.5]] * 120, train=20)
    metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
    assert metrics["family"]["best_single"]["better"]


@pytest.mark.parametrize(
    ("differing", "mean", "reason", "clause"),
    [
        (0, 0.02, "give different quality on none of 100 queries", "differs on none of the"),
        (5, 0.02, "give different quality on only 5 of 100", "differs on only 5 of the"),
        (6, 0.02, "query that is lost outright, with the", "; one more query lost outright could"),
        (60, -0.02, "query that is won outright, with the", "; one more query won outright could"),
    ],
)
def test_only_a_handful_of_queries_is_called_so(differing, mean, reason, clause):
    reward = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
    about = {"reward": reward, "differing": differing, "unproven": True, "p_holm": 0.04}
    about |= {"better": False, "worse": False}
    (caution,) = cautions_of_proof({"knn": about}, 100)
    assert reason in caution
    assert clause in compare(about, "knn", 0.95, 100)


def test_a_task_without_training_queries_is_named(make_outcomes, make_router):
    outcomes = make_outcomes()
    outcomes = replace(outcomes, tasks=np.where(outcomes.train, "a", "new"))
    warnings = measure(outcomes, make_router(outcomes), CONFIG).metrics["warnings"]
    assert any("No training query of new" in text for text in warnings)


def test_a_task_without_test_queries_is_named(make_outcomes, make_router):
    outcomes = make_outcomes()
    outcomes = replace(outcomes, tasks=np.where(outcomes.train, ["a", "lost"] * 6, "a"))
    warnings = measure(outcomes, make_router(outcomes), CONFIG).metrics["warnings"]
    assert any("No test query of lost:" in text for text in warnings)
    assert not any("No training query" in text for text in warnings)


def test_a_task_of_one_test_query_gets_no_narrow_interval(make_outcomes, make_router):
    outcomes = make_outcomes(n=90)
    outcomes.tasks[-1] = "z"
    metrics = measure(outcomes, make_router(outcomes, cost_unit_usd=2.0), CONFIG).metrics
    paid = outcomes.select(~outcomes.train).routes("early_exit").cost.max()
    for entry in metrics["policies"].values():
        alone = entry["tasks"]["z"]
        assert (alone["quality"]["low"], alone["quality"]["high"]) == (0, 1)
        assert (alone["cost"]["low"], alone["cost"]["high"]) == (0, pytest.approx(paid))
        assert alone["reward"]["low"] == pytest.approx(-0.1 * paid / 2)
        assert alone["reward"]["high"] == 1


def test_visible_points_is_the_normal_half_width():
    assert visible_points(540, 0.95) == pytest.approx(100 * 1.96 * (0.3 / 540) ** 0.5, rel=1e-3)


def test_free_models_are_measured_too(make_direct, make_router):
    outcomes = make_direct([[0, 1], [1, 0], [1, 1]], [[0.0, 0.0]] * 3, train=1)
    metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
    assert metrics["policies"]["oracle"]["reward"]["mean"] == 1
    json.dumps(metrics, allow_nan=False)

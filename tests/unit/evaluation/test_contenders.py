"""Routers trained for an evaluation: on the right queries, with the right seeds, and only once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hierrouter.config import EvaluationConfig, TrainingConfig
from hierrouter.configfile import load_config
from hierrouter.data.sample import sample_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.evaluation.evaluate import evaluate_router
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.policies.arena import Arena
from hierrouter.evaluation.policies.contenders import Workshop, is_made_of
from hierrouter.evaluation.policies.play import play_all
from hierrouter.evaluation.resplit import cross_fitted
from hierrouter.evaluation.statistics.crossed import CROSS_FITTED, Crossed
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.files import read_json
from hierrouter.learning.paper import PAPER_RECIPE
from hierrouter.learning.router import Router, query_hash
from hierrouter.learning.train import train_router
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes, tree_info

ROOT = Path(__file__).parents[3]
EVALUATION = EvaluationConfig(
    alphas=[0, 0.1],
    bootstrap=100,
    seeds=2,
    recipes=["one_hop"],
    cross_fit=True,
    leave_one_task_out=True,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("study")
    config = load_config(
        ROOT / "configs" / "scripted.yaml",
        [
            *("data.queries_per_task=14", "data.tasks=[arithmetic, history]"),
            *("training.iterations=2", "training.rollouts=8", "training.steps=4"),
        ],
    )
    queries = sample_queries(config.data, folder / "queries")
    tree = collect_routes(config.pool, queries, folder / "tree")
    return tree, train_router(config.training, tree, folder / "router")


def workshop_on(trained, out, seeds=2, recipes=("one_hop",)):
    tree, router = trained
    judged = Router.load(router)
    outcomes = load_outcomes(tree, judged.info.metric, judged.info.view, judged.info.moves)
    return Workshop(judged, tree_info(tree), seeds, recipes, out), judged, outcomes


def test_the_papers_recipe_is_that_of_its_config() -> None:
    assert load_config(ROOT / "configs" / "paper.yaml").training == PAPER_RECIPE


def test_contenders_differ_in_seed_and_recipe_alone(trained, tmp_path) -> None:
    recipes = ("one_hop", "router_ppo_paper")
    workshop, judged, outcomes = workshop_on(trained, tmp_path, recipes=recipes)
    router, one_hop, paper = workshop.on_split(outcomes)
    assert [each.name for each in (router, one_hop, paper)] == [
        "router",
        "one_hop",
        "router_ppo_paper",
    ]
    assert router.routers[0] is judged
    seeds = [each.info.training_seed for each in router.routers]
    assert seeds == [judged.info.training_seed, judged.info.training_seed + 1]
    recipes = [each.info.config["training"] for each in router.routers]
    assert {key for key in recipes[0] if recipes[0][key] != recipes[1][key]} == {
        "seed",
        "cost_unit_usd",
    }
    units = {each.info.cost_unit_usd for each in (*router.routers, *one_hop.routers)}
    assert units == {judged.info.cost_unit_usd}
    assert (one_hop.moves, one_hop.hops) == ("direct", 1)
    assert paper.moves == "paper"
    trained_on = {each.info.training_query_hashes for each in (*router.routers, *paper.routers)}
    assert trained_on == {judged.info.training_query_hashes}


@pytest.mark.parametrize("moves", ["direct", "escalate"])
def test_the_papers_recipe_has_routes_of_one_call_where_there_is_no_analysis(
    moves, trained, tmp_path
) -> None:
    tree, _ = trained
    recipe = TrainingConfig(moves=moves, iterations=1, rollouts=8, steps=4)
    routed = tree, train_router(recipe, tree, tmp_path / "router")
    workshop, _, outcomes = workshop_on(routed, tmp_path / "out", 1, ("router_ppo_paper",))
    assert workshop.without(outcomes.hops) == ()
    paper = workshop.on_split(outcomes)[-1]
    assert (paper.name, paper.moves, paper.hops) == ("router_ppo_paper", "paper", 1)
    (router,) = paper.routers
    assert router.info.config["training"]["policy"] == "mlp"


def test_what_is_trained_already_is_kept_unless_it_is_of_other_queries(trained, tmp_path) -> None:
    workshop, _, outcomes = workshop_on(trained, tmp_path, recipes=())
    part = outcomes.folds != 0
    first = workshop.on_part(outcomes, part, "part")[0].routers[1]
    file = tmp_path / "part" / "router" / str(first.info.training_seed) / "router.json"
    before = file.stat().st_mtime_ns
    again = workshop.on_part(outcomes, part, "part")[0].routers[1]
    assert again.info.training_query_hashes == first.info.training_query_hashes
    np.testing.assert_array_equal(again.follow(outcomes, 0.1), first.follow(outcomes, 0.1))
    assert file.stat().st_mtime_ns == before
    other = workshop.on_part(outcomes, outcomes.folds != 1, "part")[0].routers[1]
    assert other.info.training_query_hashes != first.info.training_query_hashes
    assert file.stat().st_mtime_ns != before


@pytest.mark.parametrize(
    "changed",
    [
        {"encoder": {"model": "another", "digest": "0"}},
        {"pool": "rates"},
        {"query_digest": "0"},
        {"tree_digest": "0"},
        {"scorer_version": 0},
        {"library_version": "0"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_was_trained_from_other_inputs_is_trained_again(trained, tmp_path, changed) -> None:
    workshop, judged, outcomes = workshop_on(trained, tmp_path, recipes=())
    first = workshop.on_split(outcomes)[0].routers[1]
    folder = tmp_path / "split" / "router" / str(first.info.training_seed)
    now = tree_info(trained[0])
    if changed == {"pool": "rates"}:
        now["pool"] = json.loads(json.dumps(now["pool"]))
        now["pool"]["models"][0]["base_rate"] = 7.0
    elif "library_version" in changed:  # of what is kept, since ours is what it is
        old = first.info.model_copy(update=changed)
        Router(old, first.policy).save(folder, [], "# A router\n")
    else:
        now |= changed
    again = Workshop(judged, now, 2, (), tmp_path)
    stamp = (folder / "router.json").stat().st_mtime_ns
    again.on_split(outcomes)
    assert (folder / "router.json").stat().st_mtime_ns != stamp
    kept = Router.load(folder).info
    assert is_made_of(kept, TrainingConfig.model_validate(kept.config["training"]), now)


def test_a_router_of_an_unknown_recipe_is_refused_in_one_line(trained, tmp_path) -> None:
    judged = Router.load(trained[1])
    odd = {**judged.info.config, "training": {"learning_style": "visual"}}
    info = judged.info.model_copy(update={"config": odd})
    with pytest.raises(DamagedFileError, match=r"learning_style.*train the router anew") as refusal:
        Workshop(Router(info, judged.policy), tree_info(trained[0]), 2, (), tmp_path)
    assert "\n" not in str(refusal.value)


def test_no_query_is_judged_by_what_it_was_trained_on(trained, tmp_path, monkeypatch) -> None:
    workshop, judged, outcomes = workshop_on(trained, tmp_path)
    seen = []
    follow = Router.follow

    def watched(self, given, alpha):
        hashes = {query_hash(name) for name in given.query_ids}
        seen.append(hashes & set(self.info.training_query_hashes))
        return follow(self, given, alpha)

    monkeypatch.setattr(Router, "follow", watched)
    measure(outcomes, judged, EVALUATION, workshop=workshop)
    assert len(seen) > 20
    assert not any(seen)


def test_cross_fitted_results_are_those_of_each_fold_in_the_order_of_the_queries(
    trained, tmp_path
) -> None:
    workshop, judged, outcomes = workshop_on(trained, tmp_path)
    info = judged.info
    arena = Arena(outcomes, outcomes, info.moves, info.cost_unit_usd, ())
    both, marks = cross_fitted(outcomes, arena, workshop, [0.1])
    plays = both[0.1]
    assert np.sort(np.concatenate([each.rows for each in marks])).tolist() == [*range(28)]
    assert set(plays) >= {"router", "one_hop", "knn", "best_single", "oracle"}
    assert {len(plays[name]) for name in ("router", "one_hop")} == {2}
    fold = outcomes.folds == 2
    inside = replace(
        arena,
        train=outcomes.select(~fold),
        test=outcomes.select(fold),
        contenders=workshop.on_part(outcomes, ~fold, "fold2"),
    )
    expected = play_all(inside, 0.1)
    for name, each in plays.items():
        assert [one.name for one in each] == [name] * len(each)
        for seed, result in enumerate(each):
            assert len(result.quality) == len(outcomes)
            np.testing.assert_array_equal(result.quality[fold], expected[name][seed].quality)
            np.testing.assert_array_equal(result.cost[fold], expected[name][seed].cost)


def test_one_fold_alone_cannot_be_cross_fitted(trained, tmp_path) -> None:
    workshop, judged, outcomes = workshop_on(trained, tmp_path)
    alone = replace(outcomes, folds=np.zeros_like(outcomes.folds))
    with pytest.raises(HierRouterError, match=r"one fold.*cross_fit=false"):
        measure(alone, judged, EVALUATION, workshop=workshop)


def numbers(value: Any) -> list[float]:
    """All numbers in nested parts of metrics, in order."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers(part)]
    return [float(value)]


def test_a_whole_evaluation_tells_all_of_it(trained, tmp_path) -> None:
    tree, router = trained
    out = evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")
    metrics = read_json(out / "metrics.json")
    assert metrics["seeds"] == 2
    assert "one_hop" in metrics["policies"]
    fitted = metrics["cross_fitted"]
    assert fitted["n"] == metrics["n_train"] + metrics["n_test"]
    narrow, wide = (part["policies"]["best_single"]["quality"] for part in (fitted, metrics))
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]
    # Folds hang together, which resampled queries do not know.
    _, judged, outcomes = workshop_on(trained, tmp_path)
    single = f"single:{judged.info.models[0]}"
    values = np.tile(outcomes.solve_quality[:, 0, :1], (2, 1, 1))
    drawn = Bootstrap(outcomes.tasks, EVALUATION.bootstrap, EVALUATION.seed)
    low, high = Crossed(drawn, 2, CROSS_FITTED).overall(values).ends(EVALUATION.confidence)
    told = fitted["policies"][single]["quality"]
    assert (told["low"], told["high"]) == (pytest.approx(max(low[0], 0)), pytest.approx(high[0]))
    assert set(metrics["left_out_tasks"]) == {"arithmetic", "history"}
    for entry in metrics["left_out_tasks"].values():
        assert {"router", "router_with_task", "best_single", "knn"} <= set(entry)
    new = metrics["new_tasks"]
    assert new["n"] == metrics["n_test"]
    assert set(new["tasks"]) == {"arithmetic", "history"}
    counts = [metrics["n_test_by_task"][task] for task in new["tasks"]]
    for name in ("router_with_task", "best_single"):
        by_task = []
        for task, entry in metrics["left_out_tasks"].items():
            by_task.append(entry["router"]["reward"]["mean"] - entry[name]["reward"]["mean"])
            assert new["tasks"][task][name]["mean"] == pytest.approx(by_task[-1])
        assert new["all"][name]["mean"] == pytest.approx(np.average(by_task, weights=counts))
        assert new["all"][name]["low"] <= new["all"][name]["mean"] <= new["all"][name]["high"]
    told = [each for each in fitted["warnings"] if each.startswith("Fewer than")]
    assert f"over all {fitted['n']} queries" in told[0]
    assert not [each for each in fitted["warnings"] if "test quer" in each]
    foretelling = {"router", "one_hop", "knn", "ridge"}
    assert set(metrics["calibration"]) == set(fitted["calibration"]) == foretelling
    assert set(fitted["headroom"]) >= {"best_path_per_task", "oracle"}
    # Twice the same: nothing is trained again, and nothing differs.
    stamps = {file: file.stat().st_mtime_ns for file in (out / "routers").rglob("router.json")}
    assert len(stamps) == 1 + 2 + 5 * 4 + 2 * 4
    again = read_json(evaluate_router(EVALUATION, tree, router, out) / "metrics.json")
    # Predictions are of single precision, and their last digits not the same wherever arrays lie.
    foretold = [
        [*numbers(part.pop("calibration")), *numbers(part["cross_fitted"].pop("calibration"))]
        for part in (again, metrics)
    ]
    np.testing.assert_allclose(*foretold, atol=1e-5)
    assert again == metrics
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())


def test_a_task_of_one_query_that_is_left_out_gets_no_narrow_interval(trained, tmp_path) -> None:
    workshop, judged, outcomes = workshop_on(trained, tmp_path, seeds=1, recipes=())
    tests = np.flatnonzero(~outcomes.train)
    tasks = outcomes.tasks.astype("<U20")
    tasks[tests[0]] = "single"
    known = replace(outcomes, tasks=tasks)
    config = EVALUATION.model_copy(update={"cross_fit": False, "seeds": 1, "recipes": []})
    metrics = measure(known, judged, config, workshop=workshop).metrics
    alone = metrics["left_out_tasks"]["single"]["best_single"]["quality"]
    assert (alone["low"], alone["high"]) == (0, 1)
    assert {"reward", "routes"} <= set(metrics["left_out_tasks"]["single"]["router"])

"""`hierrouter compare`: numbers, what is refused, and gates, from folders and from MLflow."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest

from hierrouter.cli.compare import passes
from hierrouter.cli.main import main
from hierrouter.errors import DamagedFileError
from hierrouter.evaluation.versus.pairs import differences, read_tested
from hierrouter.files import read_json, write_json
from hierrouter.learning.router import Router, query_hash
from hierrouter.routes.load import load_outcomes
from hierrouter.tracking.record import read_record
from hierrouter.tracking.register import register_router

from .conftest import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from .conftest import Pool, Stage


@pytest.fixture
def compare(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: its exit code and what it said."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hierrouter", "compare", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main()
        said = capsys.readouterr()
        return int(ending.value.code or 0), said.out, " ".join(said.err.split())

    return run


def test_the_differences_are_those_of_the_outcomes(pool: Pool, compare) -> None:
    fair, good = pool.stage("fair"), pool.stage("good")
    code, out, _ = compare(fair.evaluation, good.evaluation, "--json")
    assert code == 0
    told = json.loads(out)
    outcomes = load_outcomes(fair.tree, "accuracy", "paper", "direct")
    test = outcomes.select(~outcomes.train)
    quality = [
        test.solve_quality[:, 0, test.models.index(name)].mean() for name in ("fair", "good")
    ]
    (found,) = told["compared"]
    assert (found["n"], found["seeds"], found["alphas"]) == (len(test), 1, [0, 0.1])
    assert [entry["alpha"] for entry in found["by_alpha"]] == [0, 0.1]
    for entry in (found["over_grid"], *found["by_alpha"]):
        assert [entry["quality"][side] for side in ("base", "other")] == pytest.approx(quality)
        assert entry["reward"]["mean"] == pytest.approx(quality[1] - quality[0])
        assert entry["cost"]["mean"] == pytest.approx(0)
        assert 0 < entry["reward"]["low"] < entry["reward"]["at_least"] < entry["reward"]["mean"]
    # The other way round everything has the other sign.
    turned = json.loads(compare(good.evaluation, fair.evaluation, "--json")[1])["compared"][0]
    mine, theirs = (each["over_grid"]["reward"] for each in (found, turned))
    assert mine["mean"] == pytest.approx(-theirs["mean"])
    assert mine["low"] == pytest.approx(-theirs["high"])


def test_the_table_is_read_by_a_person(pool: Pool, compare) -> None:
    fair, good = pool.stage("fair"), pool.stage("good")
    code, out, _ = compare(fair.evaluation, good.evaluation, fair.evaluation)
    assert code == 0
    text = " ".join(out.split())
    assert "points better than" in text
    assert "gets exactly the reward of" in text
    assert "in points (hundredths), cost in units of $0.001 a query" in text


def test_rewards_are_in_the_units_of_the_first(pool: Pool) -> None:
    fair = read_tested("a", pool.stage("fair").evaluation)
    other = pool.stage("good")
    metrics = read_json(other.evaluation / "metrics.json")
    write_json(other.evaluation / "metrics.json", {**metrics, "cost_unit_usd": 1e9})
    entry = differences(fair, read_tested("b", other.evaluation))["over_grid"]
    assert entry["relative_cost"]["other"] == pytest.approx(1.0)


def test_seeds_are_compared_as_far_as_both_have_them(pool: Pool) -> None:
    two, three = (
        read_tested(str(seeds), pool.stage("good", seeds=seeds).evaluation) for seeds in (2, 3)
    )
    assert (two.seeds, three.seeds) == (2, 3)
    assert differences(two, three)["seeds"] == 2
    assert differences(two, three)["over_grid"]["reward"]["mean"] == pytest.approx(0)
    assert differences(two, three, own=True)["seeds"] == 1
    one = read_tested("1", pool.stage("good").evaluation)
    assert differences(one, three)["seeds"] == 1


def test_what_cannot_be_compared_is_refused_in_one_line(pool: Pool, compare, tmp_path) -> None:
    base = pool.stage("fair")
    info = Router.load(base.router).info
    outcomes = load_outcomes(base.tree, "accuracy", "paper", "direct")
    tests = [query_hash(name) for name in np.array(outcomes.query_ids)[~outcomes.train][:3]]
    other_share = {**info.config, "data": {**info.config["data"], "train_share": 0.9}}
    elsewhere = pool.stage("good")
    write_json(
        elsewhere.evaluation / "metrics.json",
        {**read_json(elsewhere.evaluation / "metrics.json"), "metric": "f1"},
    )
    rescored = pool.stage("good")
    metrics = read_json(rescored.evaluation / "metrics.json")
    metrics["tree"]["scorer_version"] = 99
    write_json(rescored.evaluation / "metrics.json", metrics)
    for other, told in (
        (pool.stage("good", data_seed=7), "has the data seed 42, "),
        (elsewhere, "has the metric accuracy, "),
        (rescored, "scored by other versions of the metric"),
        (pool.stage("good", config=other_share), "data.train_share is 0.5 for one and 0.9"),
        (
            pool.stage("good", training_query_hashes=(*info.training_query_hashes, *tests)),
            "was trained on 3 of the ",
        ),
    ):
        code, out, err = compare(base.evaluation, other.evaluation)
        assert (code, out) == (1, "")
        assert told in err
        assert "cannot be compared" in err
    code, _, err = compare(base.evaluation, tmp_path / "none")
    assert code == 1
    assert "is no evaluation" in err
    assert compare(base.evaluation)[0] == 2


def test_trees_of_other_prices_or_scores_are_refused(pool: Pool, compare) -> None:
    base = pool.stage("fair")
    dearer = pool.tree(prices={"fair": 0.0015})
    rescored = pool.tree(scale=0.9)
    for tree, told in (
        (dearer, "fair costs other dollars for 302 of 302 queries in the tree of one than in the"),
        (rescored, "fair has other scores for "),
    ):
        code, out, err = compare(base.evaluation, pool.stage("fair", tree).evaluation)
        assert (code, out) == (1, "")
        assert told in err
    # A pool that has grown is no other price; what a model that only one has costs is no matter.
    smaller = pool.stage("fair", pool.tree(("fair", "poor")))
    assert compare(base.evaluation, smaller.evaluation)[::2] == (0, "")
    # No model in common: nothing shows whether the prices are the same, and that is said.
    apart = pool.stage("good", pool.tree(("good", "twin")))
    code, _, err = compare(smaller.evaluation, apart.evaluation)
    assert code == 0
    assert "have no model in common; whether prices and scores are the same cannot be told" in err


def test_a_gate_knows_of_losses_that_it_has_not_seen(pool: Pool, compare) -> None:
    """Always the same answer, a little cheaper: shown to be better only if 3 in N lost are less."""
    tree = pool.tree(("fair", "double"), prices={"fair": 0.001, "double": 0.00099})
    fair, double = (pool.stage(name, tree).evaluation for name in ("fair", "double"))
    code, out, _ = compare(fair, double, "--margin", "0", "--json")
    (found,) = json.loads(out)["compared"]
    reward = found["over_grid"]["reward"]
    assert reward["low"] > 0
    assert -0.015 < reward["at_least"] < 0
    assert code == 3
    assert compare(fair, double, "--margin", "0.02")[0] == 0
    assert compare(double, fair, "--fail-if-worse")[0] == 0  # nor is it shown to be worse
    # At no alpha is it shown to be better than it is; cost is what it is seen to be.
    for entry in (found["over_grid"], *found["by_alpha"]):
        for measure in ("quality", "relative_cost", "reward"):
            value = entry[measure]
            assert value["at_least"] <= value["mean"] + 1e-12
            assert value["at_most"] >= value["mean"] - 1e-12
        assert entry["quality"]["at_least"] == pytest.approx(-0.01, abs=0.002)
        assert entry["relative_cost"]["at_most"] == pytest.approx(0, abs=0.01)


def test_no_config_moves_the_bound_of_a_gate(pool: Pool) -> None:
    fair, good = pool.stage("fair").evaluation, pool.stage("good").evaluation
    usual = differences(read_tested("a", fair), read_tested("b", good))["over_grid"]["reward"]
    metrics = read_json(fair / "metrics.json")
    write_json(fair / "metrics.json", {**metrics, "confidence": 0.5})
    other = differences(read_tested("a", fair), read_tested("b", good))["over_grid"]["reward"]
    assert other["low"] > usual["low"]
    assert [other[end] for end in ("at_least", "at_most")] == [
        usual[end] for end in ("at_least", "at_most")
    ]


@pytest.mark.parametrize(
    ("reward", "fail_if_worse", "margin", "passed"),
    [
        ((-0.05, -0.02), True, None, False),  # shown to be worse
        ((-0.05, 0.02), True, None, True),  # in doubt
        ((0.0, 0.0), True, None, True),
        ((-0.05, 0.02), False, 0.06, True),  # at most .05 worse
        ((-0.05, 0.02), False, 0.04, False),
        ((-0.05, -0.04), True, 0.06, False),
        ((0.01, 0.02), False, 0.0, True),  # shown to be better
        ((-0.01, 0.02), False, 0.0, False),
        ((0.0, 0.0), False, 0.0, False),
        ((0.0, 0.0), False, 0.01, True),
        ((-0.9, -0.8), False, None, True),  # no gate
    ],
)
def test_gates(reward, fail_if_worse, margin, passed) -> None:
    bounds = dict(zip(("at_least", "at_most"), reward, strict=True))
    assert passes(bounds, fail_if_worse, margin) is passed


def test_a_gate_has_an_exit_code_of_its_own(pool: Pool, compare) -> None:
    fair, good = pool.stage("fair").evaluation, pool.stage("good").evaluation
    assert compare(good, fair)[0] == 0
    code, out, err = compare(good, fair, "--fail-if-worse")
    assert code == 3
    assert "points worse than" in " ".join(out.split())
    assert err == ""
    assert compare(fair, good, "--fail-if-worse")[0] == 0
    assert compare(fair, good, "--margin", "0")[0] == 0
    assert compare(fair, fair, "--margin", "0")[0] == 3
    assert compare(fair, fair, "--margin", "0.01")[0] == 0
    code, out, _ = compare(fair, good, fair, "--margin", "0", "--json")
    assert code == 3
    assert [each["passed"] for each in json.loads(out)["compared"]] == [True, False]


def test_few_common_queries_tell_nothing(stage: Stage, compare) -> None:
    code, out, _ = compare(stage.evaluation, stage.evaluation)
    assert code == 0
    assert "10 common test queries are too few to call" in " ".join(out.split())
    assert "Over the alpha grid" not in out
    for gate in (("--margin", "1"), ("--fail-if-worse",)):
        code, out, err = compare(stage.evaluation, stage.evaluation, *gate)
        assert (code, out) == (1, "")
        assert "no gate on 10 common test queries" in err


def test_no_gate_opens_on_checks_that_could_not_be_made(pool: Pool, compare, tmp_path) -> None:
    fair, good = pool.stage("fair").evaluation, pool.stage("good").evaluation
    alone = tmp_path / "alone"
    shutil.copytree(good, alone)  # no router beside it
    code, out, err = compare(fair, alone)
    assert code == 0
    assert f"cannot be told whether {alone} was trained on test queries of {fair}" in err
    assert "were split by one rule" in err
    (found,) = json.loads(compare(fair, alone, "--json")[1])["compared"]
    assert len(found["unchecked"]) == 2
    for gate in (("--margin", "0"), ("--fail-if-worse",)):
        code, out, err = compare(fair, alone, *gate)
        assert (code, out) == (1, "")
        assert "no gate without these checks: it cannot be told whether" in err
        assert compare(fair, good, *gate)[0] == 0


def test_a_router_that_cannot_be_read_is_not_said_to_be_missing(pool: Pool, compare) -> None:
    fair, old, other = (pool.stage(name) for name in ("fair", "good", "good"))
    described = read_json(old.router / "router.json")
    write_json(old.router / "router.json", {**described, "format_version": 1})
    shutil.rmtree(other.router)
    shutil.copytree(fair.router, other.router)
    for stage, told in (
        (old, "its router has router format 1, this version"),
        (other, "the router beside its evaluation is another than was evaluated"),
    ):
        code, _, err = compare(fair.evaluation, stage.evaluation)
        assert code == 0
        assert f"was trained on test queries of {fair.evaluation}: {told}" in err


@pytest.mark.parametrize("changed", [{"format_version": 2}, {"confidence": None}])
def test_an_evaluation_of_another_format_is_one_line(
    pool: Pool, compare, tmp_path, changed: dict[str, Any]
) -> None:
    fair = pool.stage("fair")
    metrics = {**read_json(fair.evaluation / "metrics.json"), **changed}
    write_json(
        fair.evaluation / "metrics.json", {key: metrics[key] for key in metrics if metrics[key]}
    )
    code, out, err = compare(fair.evaluation, pool.stage("good").evaluation)
    assert (code, out) == (1, "")
    assert "evaluate the router anew" in err
    with pytest.raises(DamagedFileError, match="evaluate the router anew"):
        read_record(CONFIG, fair.router, fair.evaluation, None)


def test_runs_and_versions_of_mlflow(here: Path, pool: Pool, compare, tmp_path) -> None:
    fair, good = pool.stage("fair"), pool.stage("good", seeds=2)
    register_router(CONFIG, fair.router, fair.evaluation, fair.tree)
    done = register_router(CONFIG, good.router, good.evaluation, good.tree)
    client = mlflow.MlflowClient(f"sqlite:///{here}/mlflow.db")
    here_too = tmp_path / "run"
    here_too.symlink_to(good.evaluation.parent)  # as `hierrouter run` lays it out
    said = {
        json.dumps(
            json.loads(compare(fair.evaluation, run, "--json")[1])["compared"][0]["by_alpha"]
        )
        for run in (done.run_id, f"runs:/{done.run_id}", done.uri, good.evaluation, here_too)
    }
    assert len(said) == 1
    code, _, err = compare("models:/hierrouter/1", "models:/hierrouter@champion", "--margin", "0")
    assert (code, err) == (0, "")
    (child, _) = client.search_runs(
        [done.experiment_id], f"tags.`mlflow.parentRunId` = '{done.run_id}'"
    )
    code, _, err = compare(fair.evaluation, child.info.run_id)
    assert code == 1
    assert f"it is a child, name its parent {done.run_id}" in err
    code, _, err = compare(fair.evaluation, "0" * 32)
    assert code == 1
    assert "error: " in err

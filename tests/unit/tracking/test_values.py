"""The few numbers and names that MLflow gets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hierrouter.data.queries import read_queries
from hierrouter.evaluation.verdict import shortened
from hierrouter.learning.router import Router
from hierrouter.tracking.values import (
    choices,
    evaluation_table,
    headline_metrics,
    learning_points,
    parameters,
    query_sets,
)

if TYPE_CHECKING:
    from .conftest import Stage


def entry(quality: float, reward: float) -> dict[str, Any]:
    return {
        "quality": {"mean": quality, "low": 0.0, "high": 1.0},
        "cost": {"mean": 0.002, "low": 0.0, "high": 1.0},
        "relative_cost": {"mean": 0.5, "low": 0.0, "high": 1.0},
        "reward": {"mean": reward, "low": 0.1, "high": 0.9},
    }


METRICS = {
    "metric": "accuracy",
    "alpha": 0.1,
    "n_test": 12,
    "confidence": 0.95,
    "policies": {
        "router": {**entry(0.5, 0.45), "tasks": {"math": entry(0.25, 0.2)}},
        "single:A": {**entry(0.4, 0.7), "tasks": {"math": entry(0, 0)}},
        **{f"path:A:{name}": entry(0.4, 0.35 + place / 100) for place, name in enumerate("ABCDEF")},
        "knn": entry(0.6, 0.5),
        "one_hop": entry(0.6, 0.5),
        "oracle": entry(1, 0.95),
    },
    "tradeoff": {"aiq": {"router": {"mean": 0.75, "low": 0.5, "high": 1.0}}},
    "cross_fitted": {"policies": {"router": entry(0.5, 0.42), "knn": entry(0.6, 0.5)}},
}


def test_only_what_is_compared_by_eye() -> None:
    assert headline_metrics(METRICS) == {
        "router/quality": 0.5,
        "router/cost": 0.002,
        "router/reward": 0.45,
        "router/relative_cost": 0.5,
        "router/aiq": 0.75,
        "cross_fitted/router/reward": 0.42,
        "router/math/quality": 0.25,
        "router/math/cost": 0.002,
        "router/math/reward": 0.2,
        "single:A/quality": 0.4,
        "single:A/cost": 0.002,
        "single:A/reward": 0.7,
        "knn/quality": 0.6,
        "knn/cost": 0.002,
        "knn/reward": 0.5,
        "oracle/quality": 1.0,
        "oracle/cost": 0.002,
        "oracle/reward": 0.95,
    }


def test_the_table_has_the_rows_that_the_terminal_shows() -> None:
    lines = evaluation_table(METRICS)
    rows = [line for line in lines.splitlines() if line.startswith("| ")][1:]
    assert [row.split()[1] for row in rows] == shortened(METRICS)[0]
    assert rows[0] == "| router | 0.500 | 0.500 | 0.450 [0.100, 0.900] |"
    assert "12 test queries, alpha 0.1" in lines


def test_learning_points_by_step_without_gaps() -> None:
    curve = [
        {"iteration": 5, "transitions": 100, "metrics": {"loss": None, "reward": 0.5}},
        {"iteration": 10, "transitions": 200, "metrics": {"loss": 2, "reward": None}},
    ]
    assert sorted(learning_points(curve)) == [
        ("training/loss", 2.0, 10),
        ("training/reward", 0.5, 5),
        ("training/transitions", 100.0, 5),
        ("training/transitions", 200.0, 10),
    ]


def test_parameters_name_models_by_name(stage: Stage) -> None:
    info = Router.load(stage.router).info
    found = parameters(info, {"alphas": [0, 0.1]})
    assert found["pool.models.large.base_rate"] == "0.001"
    assert found["training.iterations"] == "3"
    assert found["training.projection"] == "null"
    assert found["evaluation.alphas"] == "[0, 0.1]"
    assert found["data.seed"] == "42"
    assert all(len(value) <= 6000 for value in found.values())


def test_choices_are_those_of_the_first_hop(stage: Stage) -> None:
    info = Router.load(stage.router).info
    assert choices(info) == {
        "small/analyze": 0,
        "small/solve": 1,
        "large/analyze": 2,
        "large/solve": 3,
    }
    paper = info.model_copy(update={"moves": "paper"})
    assert choices(paper) == {"small/analyze": 0, "large/analyze": 2}


def test_query_sets_hold_no_texts_but_depend_on_them(stage: Stage) -> None:
    queries = read_queries(stage.tree / "queries.parquet")
    before = query_sets(queries)
    assert {split: len(frame) for split, (frame, _) in before.items()} == {"train": 30, "test": 10}
    assert list(before["test"][0].columns) == ["query_id", "task"]
    assert queries[3].split == "test"
    for changed in ({"prompt": "another"}, {"reference": ("2",)}):
        queries[3] = replace(queries[3], **changed)
        after = query_sets(queries)
        assert after["train"][1] == before["train"][1]
        assert after["test"][1] != before["test"][1]
        before = after

"""Judging routers on trees that hold direct answers and what was visited, against whole trees."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from hierrouter.configfile import load_config
from hierrouter.data.queries import read_queries, write_queries
from hierrouter.data.sample import sample_queries
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.evaluation.evaluate import METRICS, RECORDS, REPORT, evaluate_router, is_evaluated
from hierrouter.evaluation.policies.play import NEED_ALL_ROUTES
from hierrouter.evaluation.table import print_table
from hierrouter.files import read_json
from hierrouter.learning.train import is_trained, train_router
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.routes.calls import Part
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.tree import RouteTree

MARKERS = Path(__file__).parents[3] / "configs" / "scripted_markers.yaml"
LEFT_OUT = ("random", "best_path", "best_path_per_task", "knn", "ridge", "path:", "oracle")


class Experiment:
    """A router trained by filling, which always makes two calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_config(
            MARKERS,
            [
                *("data.queries_per_task=20", "data.tasks=[arithmetic, history]"),
                *("training.fill=true", "training.moves=paper", "training.iterations=2"),
                *("training.rollouts=8", "training.steps=4", "evaluation.bootstrap=100"),
                "evaluation.recipes=[]",
            ],
        )
        self.queries = sample_queries(self.config.data, folder / "queries")
        self.tree = self.collect("tree", Part(direct=True))
        self.router = train_router(self.config.training, self.tree, folder / "router")

    def collect(self, name: str, part: Part) -> Path:
        return collect_routes(self.config.pool, self.queries, self.folder / name, part)

    def evaluate(self, tree: Path, name: str = "evaluation", **more: Any) -> dict[str, Any]:
        out = self.folder / name
        evaluate_router(self.config.evaluation, tree, self.router, out, **more)
        metrics: dict[str, Any] = read_json(out / METRICS)
        return metrics


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path)


def test_what_can_be_played_is_what_a_whole_tree_gives(experiment) -> None:
    filled = experiment.evaluate(experiment.tree)
    whole = experiment.evaluate(experiment.collect("whole", Part()), "other")
    assert whole["left_out"] == []
    assert filled["left_out"] == list(NEED_ALL_ROUTES)
    missing = [name for name in whole["policies"] if name.startswith(LEFT_OUT)]
    assert list(filled["policies"]) == [name for name in whole["policies"] if name not in missing]
    for mine, other in zip(filled["by_alpha"], whole["by_alpha"], strict=True):
        for name in filled["policies"]:
            for key in ("quality", "relative_cost", "cost", "reward"):
                values = mine["policies"][name][key], other["policies"][name][key]
                assert values[0]["mean"] == pytest.approx(values[1]["mean"])
            assert mine["policies"][name]["routes"] == other["policies"][name]["routes"]
    assert all(":" in route for route in filled["policies"]["router"]["routes"])
    assert filled["hops"] == whole["hops"] == 2


def test_seeds_that_learn_from_a_whole_tree_are_told_from_a_router_that_filled_it(
    experiment,
) -> None:
    whole = experiment.collect("whole", Part())
    alone = experiment.evaluate(whole)["warnings"]
    two = experiment.config.evaluation.model_copy(update={"seeds": 2})
    experiment.config = experiment.config.model_copy(update={"evaluation": two})
    both = experiment.evaluate(whole, "both")["warnings"]
    said = ["trained by filling the tree" in " ".join(each) for each in (alone, both)]
    assert said == [False, True]


def test_it_is_said_what_was_left_out_and_why(experiment) -> None:
    metrics = experiment.evaluate(experiment.tree)
    note = metrics["warnings"][0]
    nodes = len(RouteTree(experiment.tree).nodes)
    assert note.startswith(f"Left out: {', '.join(NEED_ALL_ROUTES)}.")
    assert f"{nodes:,} of 600 nodes" in note  # 40 queries of 15
    out = StringIO()
    print_table(metrics, Console(file=out, width=200))
    report = (experiment.folder / "evaluation" / REPORT).read_text("utf-8")
    for text in (out.getvalue(), report):
        said = " ".join(text.split())
        assert note in said
        assert "best_single_per_task" in said
        assert "best_path_per_task" not in said.replace(note, "")
        assert "oracle" not in said.replace(note, "").split("</style>")[-1]
    rows = pq.read_table(experiment.folder / "evaluation" / RECORDS).to_pylist()
    assert {row["policy"] for row in rows} == set(metrics["policies"])
    assert len(rows) == metrics["n_test"] * len(metrics["policies"]) * len(metrics["by_alpha"])


def test_only_the_routers_routes_are_generated_and_those_once(experiment, monkeypatch) -> None:
    batches: list[int] = []
    generate = ScriptedBackend.generate

    def noting(self, prompts, limits, on_reply=None):
        batches.append(len(prompts))
        return generate(self, prompts, limits, on_reply)

    monkeypatch.setattr(ScriptedBackend, "generate", noting)
    before = set(RouteTree(experiment.tree).nodes)
    metrics = experiment.evaluate(experiment.tree)
    new = set(RouteTree(experiment.tree).nodes) - before
    tests = {q.query_id for q in RouteTree(experiment.tree).queries if q.split == "test"}
    assert {place.query_id for place in new} == tests
    # Two steps, at each of them every model at most once, for all queries and alphas together.
    assert 0 < len(batches) <= 2 * 3
    assert sum(batches) <= len(new) <= len(tests) * len(metrics["by_alpha"]) * 2
    settings = experiment.config.evaluation
    at = (experiment.tree, experiment.router, experiment.folder / "evaluation")
    assert is_evaluated(settings, *at)
    assert is_trained(experiment.config.training, experiment.tree, experiment.router)
    # Three models after three: shares are among all nine routes, not those that were taken.
    shares = np.array(list(metrics["policies"]["router"]["routes"].values()))
    at = next(each for each in metrics["conduct"] if each["alpha"] == metrics["alpha"])
    entropy = -(shares * np.log(shares)).sum() / np.log(9)
    assert at["usage"]["entropy"] == pytest.approx(entropy)
    assert "router" in metrics["calibration"]
    batches.clear()
    assert experiment.evaluate(experiment.tree, "again")["policies"] == metrics["policies"]
    assert batches == []


def test_a_budget_stops_it_before_anything_is_written(experiment) -> None:
    with pytest.raises(HierRouterError, match="--max-dollars"):
        experiment.evaluate(experiment.tree, max_dollars=0.0)
    assert list((experiment.folder / "evaluation").iterdir()) == []


def test_a_tree_with_another_split_is_refused_before_any_call(experiment) -> None:
    table = experiment.queries
    other = {"train": "test", "test": "train"}
    write_queries(table, [replace(q, split=other[q.split]) for q in read_queries(table)])
    tree = experiment.collect("flipped", Part(direct=True))
    nodes = len(RouteTree(tree).nodes)
    with pytest.raises(HierRouterError, match="used to train this router"):
        experiment.evaluate(tree)
    assert len(RouteTree(tree).nodes) == nodes


def test_a_budget_is_refused_where_nothing_is_called(experiment) -> None:
    recorded = experiment.config.training.model_copy(update={"fill": False})
    whole = experiment.collect("whole", Part())
    experiment.router = train_router(recorded, whole, experiment.folder / "recorded")
    with pytest.raises(ConfigError, match=r"--max-dollars: .* without calls; leave it out"):
        experiment.evaluate(whole, max_dollars=1.0)

"""Trees with outcomes of some models only, or that grew: one recipe for all that is compared."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hierrouter.config import Config, EncoderConfig, EvaluationConfig, PoolConfig, TrainingConfig
from hierrouter.evaluation.evaluate import evaluate_router
from hierrouter.files import read_json
from hierrouter.learning.router import Router
from hierrouter.learning.train import train_router
from hierrouter.routes.imported.importing import import_outcomes

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = Config(pool=PoolConfig(encoder=EncoderConfig(model="hashing", dimensions=16)))
RECIPE = TrainingConfig(moves="direct", iterations=1, rollouts=8, steps=4, hidden=[8, 8])
EVALUATION = EvaluationConfig(
    alphas=[0, 0.1],
    bootstrap=200,
    seeds=2,
    recipes=[],
    cross_fit=True,
    leave_one_task_out=True,
)


def written(path: Path, count: int, partial: bool) -> Path:
    """Three models; of every third query the last one's outcome is not known."""
    draw = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query_id", "task", "prompt", "model", "score", "cost"])
        for number in range(count):
            task = ("code", "law")[number % 2]
            text = f"{task} {draw.integers(1 << 60)} {draw.integers(1 << 60)}"
            for model in "abc":
                score = int(draw.random() < 0.5)
                if not (partial and model == "c" and number % 3 == 0):
                    table.writerow([f"{task}/{number}", task, text, model, score, 0.1])
    return path


def hashes(folder: Path) -> set[str]:
    return set(Router.load(folder).info.training_query_hashes)


def test_all_seeds_learn_from_the_same_queries_of_a_partial_tree(tmp_path) -> None:
    file = written(tmp_path / "log.csv", 120, partial=True)
    tree = import_outcomes(file, tmp_path / "tree", CONFIG, partial=True)
    router = train_router(RECIPE, tree, tmp_path / "router")
    out = evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")
    metrics = read_json(out / "metrics.json")
    own = hashes(router)
    assert metrics["n_train"] < len(own)  # some are partial: learned from, and not judged by
    (sibling,) = (out / "routers" / "split" / "router").iterdir()
    assert hashes(sibling) == own
    folds = [hashes(one) for one in (out / "routers").glob("fold*/router/*")]
    assert len(folds) == 10
    assert all(each - own and own - each for each in folds)
    # Each partial query, like each other, is left out of one fold's routers alone.
    for query in own:
        assert sum(query in each for each in folds) == 8
    without = [hashes(one) for one in (out / "routers").glob("without_*/router/*")]
    assert set.union(*without) == own
    left = len(own) - metrics["n_train"]
    for part in (metrics, metrics["cross_fitted"]):
        (told,) = (each for each in part["warnings"] if "of some models" in each)
        assert told.startswith(f"{left} of {len(own)} training queries")
        assert not [each for each in part["warnings"] if each.startswith("The router was trained")]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_tree_that_grew_is_told_of(seeds, tmp_path) -> None:
    settings = EVALUATION.model_copy(
        update={"seeds": seeds, "cross_fit": False, "leave_one_task_out": False}
    )
    tree = tmp_path / "tree"
    import_outcomes(written(tmp_path / "log.csv", 60, partial=False), tree, CONFIG)
    router = train_router(RECIPE, tree, tmp_path / "router")
    import_outcomes(written(tmp_path / "log.csv", 90, partial=False), tree, CONFIG)
    out = evaluate_router(settings, tree, router, tmp_path / "evaluation")
    metrics = read_json(out / "metrics.json")
    (told,) = (each for each in metrics["warnings"] if "train the router anew" in each)
    assert f"trained on {len(hashes(router))} queries" in told
    assert f"{metrics['n_train']} training queries that the tree holds now" in told


def test_recipes_of_two_calls_are_named_where_there_is_one(tmp_path) -> None:
    tree = import_outcomes(written(tmp_path / "log.csv", 60, False), tmp_path / "tree", CONFIG)
    router = train_router(RECIPE, tree, tmp_path / "router")
    quick = EvaluationConfig(alphas=[0.1], bootstrap=100)
    metrics = read_json(evaluate_router(quick, tree, router, tmp_path / "e") / "metrics.json")
    assert metrics["left_out"] == ["one_hop"]
    (told,) = (each for each in metrics["warnings"] if each.startswith("Left out"))
    assert told.endswith("all there is here, so it is the router's own recipe.")
    assert "router_ppo_paper" in metrics["policies"]
    # And that a hundred resamples cannot tell four comparisons apart.
    (coarse,) = (each for each in metrics["warnings"] if each.startswith("Nothing can be called"))
    assert "100 resamples no p of 4 comparisons" in coarse

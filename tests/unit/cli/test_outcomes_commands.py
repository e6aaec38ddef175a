"""From a file of outcomes to a registered router, by the commands a user types."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hierrouter.configfile import load_config
from hierrouter.files import read_json
from hierrouter.learning.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "outcomes.yaml"
QUICK = ("--set", "training.iterations=25", "--set", "evaluation.bootstrap=100")
HASHING = ("--set", "pool.encoder={model: hashing, dimensions: 64}")
TASKS = ("code", "law")


@pytest.fixture(autouse=True)
def own_mlflow(here: Path) -> None:
    """Whatever is registered goes to a database of the test's own."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Each task has one model that is right in nine of ten cases, and says its name in prompts."""
    draw = np.random.default_rng(0)
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "task", "prompt", "model", "score", "cost"])
        for number in range(240):
            task = TASKS[number % 2]
            prompt = f"{task} {task} question {number} {draw.integers(1 << 40)}"
            for position, model in enumerate(("vendor/coder", "vendor/lawyer", "vendor/cheap")):
                right = draw.random() < (0.9 if position == number % 2 else 0.2)
                cost = (0.004, 0.004, 0.001)[position]
                writer.writerow([f"{task}/{number}", task, prompt, model, float(right), cost])
    return path


@pytest.fixture
def tree(hierrouter: Callable, log: Path, tmp_path: Path) -> Path:
    out = tmp_path / "tree"
    given = ("--config", CONFIG, *HASHING)
    assert hierrouter("import-outcomes", log, "--out", out, *given).code == 0
    return out


def test_a_router_from_outcomes_finds_who_is_good_at_what(
    hierrouter, tree: Path, tmp_path: Path
) -> None:
    router, evaluation = tmp_path / "router", tmp_path / "evaluation"
    config = ("--config", CONFIG, *QUICK)
    assert hierrouter("train", *config, "--tree", tree, "--out", router).code == 0
    info = Router.load(router).info
    assert info.models == ("vendor-cheap", "vendor-coder", "vendor-lawyer")
    assert info.hops == 1
    folders = ("--tree", tree, "--router", router, "--out", evaluation)
    assert hierrouter("evaluate", *config, *folders).code == 0
    metrics = read_json(evaluation / "metrics.json")
    reward = {name: each["reward"]["mean"] for name, each in metrics["policies"].items()}
    assert reward["router"] > reward["best_single"] + 0.2
    said = hierrouter("register", "--router", router, "--evaluation", evaluation, "--tree", tree)
    assert said.code == 0, said.err
    assert "registered as models:/outcomes/1" in " ".join(said.err.split())
    asked = hierrouter("ask", "a law question", "--router", router)
    assert asked.code == 2
    assert "nothing to call for vendor-" in asked.line
    assert "imported outcomes" in asked.line


def test_run_takes_the_tree_and_its_pool(hierrouter, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = ("run", "--config", CONFIG, *QUICK, "--tree", tree, "--out", out)
    said = hierrouter(*run)
    assert said.code == 0, said.err
    assert (out / "evaluation" / "report.html").exists()
    described = read_json(out / "run.json")
    assert described["pool"]["models"][0]["name"] == "vendor-cheap"
    again = hierrouter(*run)
    assert f"router: the one in {out / 'router'} is kept" in " ".join(again.err.split())


def test_vectors_at_hand_go_all_the_way(hierrouter, log: Path, tmp_path: Path) -> None:
    tree, router = tmp_path / "tree", tmp_path / "router"
    # Which of two models is right stands in the first number.
    vectors = np.random.default_rng(1).normal(size=(240, 8)) * 0.3
    vectors[:, 0] = np.where(np.arange(240) % 2, 1.0, -1.0)
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float32))
    given = ("--config", CONFIG, "--embeddings", tmp_path / "vectors.npy")
    assert hierrouter("import-outcomes", log, "--out", tree, *given).code == 0
    config = ("--config", CONFIG, *QUICK, "--tree", tree)
    assert hierrouter("train", *config, "--out", router).code == 0
    evaluation = tmp_path / "evaluation"
    done = hierrouter("evaluate", *config, "--router", router, "--out", evaluation)
    assert done.code == 0
    policies = read_json(evaluation / "metrics.json")["policies"]
    assert policies["router"]["quality"]["mean"] > policies["best_single"]["quality"]["mean"] + 0.2
    folders = ("--router", router, "--evaluation", evaluation, "--tree", tree)
    said = hierrouter("register", *folders)
    assert said.code == 0, said.err


def test_a_partial_log_trains_and_is_judged(hierrouter, log: Path, tmp_path: Path) -> None:
    lines = log.read_text().splitlines()
    kept = [line for number, line in enumerate(lines) if number % 7 != 3]
    log.write_text("\n".join(kept) + "\n")
    tree, router = tmp_path / "tree", tmp_path / "router"
    given = ("--config", CONFIG, *HASHING)
    refused = hierrouter("import-outcomes", log, "--out", tree, *given)
    assert refused.code == 2
    assert "outcomes are missing" in refused.line
    assert hierrouter("import-outcomes", log, "--out", tree, *given, "--partial").code == 0
    config = ("--config", CONFIG, *QUICK, "--tree", tree)
    said = hierrouter("train", *config, "--out", router)
    assert said.code == 0
    assert "outcomes of some models only" in " ".join(said.err.split())
    evaluation = tmp_path / "evaluation"
    folders = ("--router", router, "--out", evaluation)
    assert hierrouter("evaluate", *config, *folders).code == 0
    policies = read_json(evaluation / "metrics.json")["policies"]
    assert policies["router"]["reward"]["mean"] > policies["best_single"]["reward"]["mean"] + 0.1


def test_a_tree_of_outcomes_is_looked_after(hierrouter, tree: Path) -> None:
    said = hierrouter("tree", "info", tree)
    assert said.code == 0
    assert "vendor/lawyer" in said.out
    assert "imported outcomes of 240 queries" in " ".join(said.out.split())
    assert "no fault found" in hierrouter("tree", "verify", tree).err
    rescored = hierrouter("tree", "rescore", tree)
    assert rescored.code == 1
    assert "imported outcomes, without replies" in rescored.line


@pytest.mark.parametrize(
    "command",
    [
        ("collect", "--queries", "q", "--out", "o"),
        ("plan",),
        ("run", "--out", "o"),
    ],
)
def test_whatever_needs_models_wants_them_named(hierrouter, command, tmp_path: Path) -> None:
    said = hierrouter(*command, "--config", CONFIG)
    assert said.code == 2, said
    assert f"{CONFIG}: pool.models: this key is missing and has no default" in said.line


def test_options_are_checked_before_the_file_is_read(hierrouter, log: Path, tmp_path: Path) -> None:
    said = hierrouter("import-outcomes", log, "--out", tmp_path / "t", "--set", "data.seed=1")
    assert "name one with --config" in said.line
    wrong = hierrouter(
        *("import-outcomes", log, "--out", tmp_path / "t", "--config", CONFIG),
        *("--set", "data.folds=one"),
    )
    assert wrong.code == 2
    assert "data.folds" in wrong.line


def test_the_shipped_config_leaves_the_models_to_the_file() -> None:
    assert load_config(CONFIG, any_pool=True).pool.models == []

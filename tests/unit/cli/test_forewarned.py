"""Training says beforehand where nothing is to be gained: by command, in a run, as a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierrouter.configfile import load_config
from hierrouter.data.sample import sample_queries
from hierrouter.routes.collect import collect_routes
from hierrouter.stages.train import train_seeds

SCRIPTED = Path(__file__).parents[3] / "configs" / "scripted.yaml"
MODEL = "{{name: {0}, model: {0}, backend: scripted, base_rate: 0.001, scripted: {1}}}"
POOL = ", ".join(
    MODEL.format(name, f"{{solve_otherwise: {chance}}}")
    for name, chance in (("good", 0.9), ("bad", 0.1))
)
SETTINGS = (
    *(f"pool.models=[{POOL}]", "data.queries_per_task=40", "data.tasks=[arithmetic, history]"),
    *("training.iterations=2", "training.rollouts=8", "training.steps=4"),
    *("training.moves=direct", "evaluation.bootstrap=100"),
)
"""Two models, of which one is better whatever the task."""
WARNING = "No headroom"


GIVEN = ("--config", SCRIPTED, *(part for each in SETTINGS for part in ("--set", each)))


@pytest.fixture(scope="module")
def config():
    return load_config(SCRIPTED, list(SETTINGS))


@pytest.fixture(scope="module")
def tree(config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_good_model")
    queries = sample_queries(config.data, folder / "queries")
    return collect_routes(config.pool, queries, folder / "tree")


def test_train_says_it_before_it_trains(hierrouter, tree, tmp_path) -> None:
    said = hierrouter("train", *GIVEN, "--tree", tree, "--out", tmp_path)
    assert said.code == 0
    lines = said.err.splitlines()
    (warned,) = (number for number, line in enumerate(lines) if line.startswith(WARNING))
    (trained,) = (number for number, line in enumerate(lines) if line.startswith("training: "))
    assert warned < trained


def test_run_says_it_once(hierrouter, tree, here, tmp_path) -> None:
    run = ("run", *GIVEN, "--tree", tree, "--out", tmp_path / "run")
    first = hierrouter(*run)
    assert (first.code, first.err.count(WARNING)) == (0, 1)
    # What is kept was warned of when it was trained.
    assert WARNING not in hierrouter(*run).err


def test_the_stage_says_it_once_for_all_seeds(config, tree, tmp_path, capsys) -> None:
    train_seeds(config.training.model_dump_json(), "1,2", tree, tmp_path)
    assert capsys.readouterr().err.count(WARNING) == 1
    train_seeds(config.training.model_dump_json(), "1,2", tree, tmp_path)
    assert WARNING not in capsys.readouterr().err


def test_nothing_is_said_while_filling(hierrouter, tree, tmp_path) -> None:
    fill = ("--set", "training.fill=true", "--set", "training.moves=early_exit")
    said = hierrouter("train", *GIVEN, *fill, "--tree", tree, "--out", tmp_path)
    assert said.code == 0
    assert WARNING not in said.err

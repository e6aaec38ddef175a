"""Own tasks from the file to the report: the documented example, and beside scripted questions."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from hierrouter.cli.live import answer_fresh
from hierrouter.cli.main import main
from hierrouter.data.queries import read_queries
from hierrouter.data.scripted import scripted_questions

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SCRIPTED = ROOT / "configs" / "scripted.yaml"
QUICK = ["training.iterations=5", "evaluation.bootstrap=200"]


@pytest.fixture
def hierrouter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command that must end with this code, and gives what it said."""

    def command(*arguments: str | Path, code: int = 0) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["hierrouter", *map(str, arguments)])
        ended = 0
        try:
            main()
        except SystemExit as ending:
            ended = int(ending.code or 0)
        printed, said = capsys.readouterr()
        assert ended == code, said
        return printed + said

    return command


def all_stages(hierrouter: Callable[..., str], config: Path, out: Path, *overrides: str) -> None:
    """Samples, collects, trains and evaluates, each by its own command."""
    changes = [part for one in (*QUICK, *overrides) for part in ("--set", one)]
    tree, router = out / "tree", out / "router"
    stages = {
        "sample": ("--out", out / "queries"),
        "collect": ("--queries", out / "queries", "--out", tree),
        "train": ("--tree", tree, "--out", router),
        "evaluate": ("--tree", tree, "--router", router, "--out", out / "evaluation"),
    }
    for stage, arguments in stages.items():
        hierrouter(stage, "--config", config, *arguments, *changes)


def documented(command: str) -> list[str]:
    """The arguments of a command that docs/own_tasks.md gives."""
    page = (ROOT / "docs" / "own_tasks.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\.venv/bin/hierrouter ({command} .*)$", page, re.MULTILINE)
    return shlex.split(line)


def test_the_documented_example_is_sampled(
    hierrouter: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    said = hierrouter(*documented("sample"), "--out", tmp_path)
    assert "tickets: 12 questions from docs/examples/tickets.jsonl" in said
    queries = read_queries(tmp_path / "queries.parquet")
    assert {query.query_id for query in queries if query.task == "prices"} == {
        f"prices/p{number:02}" for number in range(1, 13)
    }
    assert all(query.prompt.count("\n") == 5 for query in queries if query.task == "tickets")
    assert {query.split for query in queries} == {"train", "test"}


def test_the_documented_example_runs_through_with_models_that_know_nothing(
    hierrouter: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    scripted = [
        f"pool.models.{index}.{change}"
        for index in (0, 1)
        for change in ("backend=scripted", "scripted={words: 3}")
    ]
    config = Path(documented("run")[2])
    all_stages(hierrouter, config, tmp_path, *scripted)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert set(metrics["policies"]["router"]["tasks"]) == {"tickets", "prices"}
    assert metrics["policies"]["oracle"]["quality"]["mean"] == 0


@pytest.fixture
def mixed(hierrouter: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded run of scripted questions, one half of them from a file of one's own."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": question.prompt, "reference": int(question.reference[0]), "id": number}
        for number, question in enumerate(scripted_questions("history", 60, 1))
    ]
    Path("faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    all_stages(
        *(hierrouter, SCRIPTED, out, "data.tasks=[arithmetic, faq]", "data.queries_per_task=60"),
        *("data.own.faq.file=faq.jsonl", "data.own.faq.metric=number"),
        "pool.models.0.limits.solve_by_task={faq: 30}",
    )
    return out


def test_own_and_other_tasks_are_judged_side_by_side(mixed: Path) -> None:
    metrics = json.loads((mixed / "evaluation" / "metrics.json").read_text())
    by_task = {
        name: {task: values["quality"]["mean"] for task, values in policy["tasks"].items()}
        for name, policy in metrics["policies"].items()
    }
    # `large` solves .9 of the topic in the file, `small` .9 of the other task, each .3 of the rest;
    # with some 18 test queries a task, .9 and .3 are more than four deviations apart.
    assert by_task["single:large"]["faq"] > 0.6 > by_task["single:large"]["arithmetic"]
    assert by_task["single:small"]["arithmetic"] > 0.6 > by_task["single:small"]["faq"]
    ids = pq.read_table(mixed / "evaluation" / "per_query.parquet")["query_id"].to_pylist()
    assert {query_id.split("/")[0] for query_id in ids} == {"arithmetic", "faq"}


def test_a_tree_that_was_passed_on_without_questions_names_the_file_that_it_needs(
    hierrouter: Callable[..., str], mixed: Path
) -> None:
    questions, lines = mixed / "tree" / "queries.parquet", Path("faq.jsonl").read_text()
    before = questions.read_bytes()
    questions.unlink()
    Path("faq.jsonl").unlink()
    said = hierrouter("tree", "info", mixed / "tree", code=1)
    assert "neither can its source: data.own.faq.file: faq.jsonl: there is no such file" in said
    Path("faq.jsonl").write_text(lines.replace("Topic: history", "Topic: biology", 1))
    assert "other questions now (changed: faq.jsonl)" in hierrouter(
        "tree", "info", mixed / "tree", code=1
    )
    Path("faq.jsonl").write_text(lines)
    hierrouter("tree", "info", mixed / "tree")
    assert questions.read_bytes() == before


def test_a_task_without_fresh_questions_is_no_failure(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = json.loads((mixed / "tree" / "tree.json").read_text())
    described["data"]["config"]["tasks"] = ["faq"]
    (mixed / "tree" / "tree.json").write_text(json.dumps(described))
    capsys.readouterr()
    answer_fresh(mixed / "tree", mixed / "router", 0.1, 4)
    assert "no fresh queries" in capsys.readouterr().err

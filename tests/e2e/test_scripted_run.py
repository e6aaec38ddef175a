"""`hierrouter run` on the scripted world: every contract's file, and what a second run reuses."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hierrouter.cli.main import main
from hierrouter.data import queries as query_tables
from hierrouter.evaluation import records
from hierrouter.quality.score import METRICS
from hierrouter.routes import nodes as node_tables

SCRIPTED = Path(__file__).parents[2] / "configs" / "scripted.yaml"
SMALL = {
    "data.queries_per_task": "40",
    "training.iterations": "20",
    "evaluation.bootstrap": "200",
}


@dataclass
class Ran:
    """A run's folder, what it said, and a way to run it again."""

    out: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    printed: str = ""
    said: str = ""

    def command(self, *arguments: str | Path) -> int:
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["hierrouter", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = int(ending.code or 0)
        self.printed, self.said = self.capsys.readouterr()
        return code

    def again(self, *, config: Path = SCRIPTED, **changes: str) -> None:
        values = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
        overrides = [part for item in values.items() for part in ("--set", "=".join(item))]
        code = self.command("run", "--config", config, "--out", self.out, *overrides)
        assert code == 0, self.said

    def states(self, *patterns: str) -> dict[str, tuple[int, int]]:
        found = (path for pattern in patterns for path in self.out.glob(pattern))
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def ran(
    tmp_path: Path,
    migrated: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ran:
    """The scripted experiment, small, run once."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    made = Ran(tmp_path / "run", monkeypatch, capsys)
    made.again()
    return made


def columns(path: Path) -> list[str]:
    return pq.read_schema(path).names


def check_contracts(ran: Ran) -> None:
    """The files and columns of every data contract."""
    out = ran.out
    assert columns(out / "queries" / "queries.parquet") == query_tables.SCHEMA.names
    assert columns(out / "queries" / "queries.parquet") == [
        *("query_id", "task", "split", "fold", "prompt", "reference", "reference_text", "tests"),
        "metadata",
    ]
    described = json.loads((out / "tree" / "tree.json").read_text())
    assert described["format_version"] == 1
    assert (
        described["query_digest"]
        == json.loads((out / "queries/queries.json").read_text())["digest"]
    )
    files = list((out / "tree" / "nodes").glob("*.parquet"))
    assert all(columns(path) == node_tables.SCHEMA.names for path in files)
    assert set(node_tables.SCHEMA.names) >= {
        *("query_id", "models", "role", "reply", "tokens_in", "tokens_out", "finish_reason"),
        *("latency_s", "logprob_mean", "logprob_min", "dtype", "backend", "device"),
    }
    assert sum(pq.read_metadata(path).num_rows for path in files) == 240 * 15
    scores = out / "tree" / "scores.parquet"
    assert columns(scores) == [
        *("query_id", "models", "role", "reply_digest", "answer", "cost"),
        *METRICS,
    ]
    assert pq.read_metadata(scores).num_rows == 240 * 15
    for path in (out / "tree" / "embeddings").glob("*/*.parquet"):
        assert columns(path) == ["text_digest", "scale", "vector"]
    router = json.loads((out / "router" / "router.json").read_text())
    assert router["query_digest"] == described["query_digest"]
    assert (out / "router" / "router.safetensors").exists()
    assert "best_path_per_task" in (out / "router" / "README.md").read_text()
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text())
    assert {"router", "random", "best_single", "best_path_per_task", "oracle"} <= set(
        metrics["policies"]
    )
    for policy in metrics["policies"].values():
        assert {"quality", "cost", "relative_cost", "reward", "tasks", "routes"} <= set(policy)
        assert policy["quality"].keys() >= {"mean", "low", "high"}
    assert metrics["alpha"] == 0.1
    assert columns(out / "evaluation" / "per_query.parquet") == records.SCHEMA.names
    assert "<html" in (out / "evaluation" / "report.html").read_text()
    assert json.loads((out / "run.json").read_text())["data"]["queries_per_task"] == 40
    assert not list(out.rglob(".tmp-*.*"))


def registered(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        (count,) = connection.execute("select count(*) from model_versions").fetchone()
    return int(count)


def test_a_run_from_nothing_to_a_registered_router_and_what_later_runs_reuse(ran: Ran) -> None:
    """One story, since each chapter starts from what the one before left."""
    check_contracts(ran)
    assert registered(ran.out.parent / "mlflow.db") == 1
    for name in ("router", "best_single", "best_path_per_task", "oracle"):
        assert name in ran.printed
    everything = ("tree/nodes/*", "router/*", "evaluation/*", "queries/*", "tree/embeddings/*/*")

    # The same again: nothing is made, and that is said.
    before = ran.states(*everything)
    ran.again()
    assert ran.states(*everything) == before
    for said in (
        "queries: those in",
        "all 3600 nodes",
        "router: the one in",
        "evaluation: the one",
    ):
        assert said in ran.said
    assert registered(ran.out.parent / "mlflow.db") == 1

    # Another training seed: another router and evaluation from the same tree.
    nodes, router = ran.states("tree/nodes/*"), ran.states("router/*", "evaluation/*")
    ran.again(training__seed="7")
    assert ran.states("tree/nodes/*", "queries/*").items() >= nodes.items()
    assert not set(ran.states("router/*", "evaluation/*").values()) & set(router.values())
    assert "all 3600 nodes" in ran.said

    # Only other alphas: the router is kept, the evaluation is made anew.
    router, evaluation = ran.states("router/router.*"), ran.states("evaluation/*")
    ran.again(training__seed="7", evaluation__alphas="[0, 0.1]")
    assert ran.states("router/router.*") == router
    assert not set(ran.states("evaluation/*").values()) & set(evaluation.values())

    # A further model: its nodes only.
    wider = ran.out.parent / "wider.yaml"
    tiny = "    - {name: tiny, model: tiny, backend: scripted, base_rate: 0.0001, scripted: {}}\n"
    wider.write_text(SCRIPTED.read_text().replace("\nevaluation:", f"{tiny}\nevaluation:"))
    ran.again(config=wider)
    after = ran.states("tree/nodes/*")
    assert after.items() > nodes.items()
    new = [
        node for path in after.keys() - nodes.keys() for node in node_tables.read_nodes(Path(path))
    ]
    assert len(new) == 240 * (24 - 15)
    assert all("tiny" in node.models for node in new)
    assert json.loads((ran.out / "router" / "router.json").read_text())["models"][-1] == "tiny"

    # It answers, and the tree is looked at.
    question = "Topic: history. Marker: jade. What is 17 plus 25?"
    assert ran.command("ask", question, "--router", ran.out / "router") == 0
    assert "Answer: " in ran.printed
    assert "path " in ran.said
    assert ran.command("ask", question, "--router", "models:/hierrouter@champion") == 0
    assert "path " in ran.said
    described = ran.out / "router" / "router.json"
    weights = json.loads(described.read_text())["weights"]
    other = described.read_text()
    for digest in weights.values():
        other = other.replace(digest, "0" * 64)
    described.write_text(other)
    assert ran.command("ask", question, "--router", ran.out / "router") == 1
    assert "has other weights here" in ran.said
    assert ran.command("tree", "info", ran.out / "tree") == 0
    assert "240 queries, 5760 nodes, L = 2" in ran.printed


def test_what_was_lost_is_made_again_and_no_reply(ran: Ran) -> None:
    nodes = ran.states("tree/nodes/*")
    for lost in (
        "evaluation/metrics.json",
        "queries/queries.parquet",
        "tree/scores.parquet",
        "router/router.safetensors",
    ):
        content = (ran.out / lost).read_bytes()
        (ran.out / lost).write_bytes(content[: len(content) // 2])
        ran.again()
        assert ran.states("tree/nodes/*") == nodes
        check_contracts(ran)

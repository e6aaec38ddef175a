"""Real replies of small models, labelled by hand: what each says, and whether that is right.

`answer` is what a careful reader takes to be the reply's answer, none where it never decides. For
`unit_tests` replies only `right` is labelled. Of a MATH reply that repeats its problem, only what
comes after that is kept.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hierrouter.quality.maths import math_equal
from hierrouter.quality.score import Expected, score_reply

FILE = Path(__file__).parents[2] / "fixtures" / "replies.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


# At least so many replies of each kind, and so many of them right.
LEAST = {"letter": (60, 15), "number": (35, 2), "math": (25, 7), "unit_tests": (30, 9)}


def test_every_kind_has_enough_replies_right_and_wrong() -> None:
    replies = Counter(row["kind"] for row in ROWS)
    right = Counter(row["kind"] for row in ROWS if row["right"])
    assert replies.keys() == LEAST.keys()
    for kind, (least, least_right) in LEAST.items():
        assert replies[kind] >= least
        assert right[kind] >= least_right
        assert replies[kind] - right[kind] >= 5


def test_no_reply_is_there_twice() -> None:
    assert len({(row["reply"], *row["accepted"]) for row in ROWS}) == len(ROWS)


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

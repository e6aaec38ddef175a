"""Scoring replies of every kind, and surviving every text."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hierrouter.quality.letters import extract_letter
from hierrouter.quality.maths import extract_math
from hierrouter.quality.numbers import extract_number
from hierrouter.quality.programs import extract_program
from hierrouter.quality.score import METRICS, Expected, Scored, score_replies, score_reply
from hierrouter.quality.statements import extract_text

LETTER = Expected("letter", ("B",), "B")
NUMBER = Expected("number", ("18",), "so 9 * 2 = 18")
MATH = Expected("math", ("\\frac{1}{2}",), "half")
CODE = Expected("unit_tests", (), "def f(x): return x + 1", ("assert f(1) == 2",))
TEXT = Expected("text", ("Paris", "City of Light"), "Paris")


@pytest.mark.parametrize(
    ("reply", "expected", "answer", "accuracy"),
    [
        ("Answer: B", LETTER, "B", 1.0),
        ("Answer: C", LETTER, "C", 0.0),
        ("I cannot say.", LETTER, None, 0.0),
        ("Answer: $18.00", NUMBER, "18", 1.0),
        ("Answer: 19", NUMBER, "19", 0.0),
        ("Answer: 0.5", MATH, "0.5", 1.0),
        ("\\boxed{2}", MATH, "2", 0.0),
        ("```\ndef f(x):\n    return x + 1\n```", CODE, "def f(x):\n    return x + 1", 1.0),
        ("```\ndef f(x):\n    return x\n```", CODE, "def f(x):\n    return x", 0.0),
        ("Answer: the city of light.", TEXT, "the city of light.", 0.0),
        ("Answer: City of LIGHT.", TEXT, "City of LIGHT.", 1.0),
        ("paris", TEXT, "paris", 1.0),
        ("Answer: X", TEXT, "Answer: X", 0.0),
        ("", TEXT, None, 0.0),
    ],
)
def test_kinds(reply: str, expected: Expected, answer: str | None, accuracy: float) -> None:
    scored = score_reply(reply, expected)
    assert (scored.answer, scored.accuracy) == (answer, accuracy)


def test_all_metrics_are_given() -> None:
    scored = score_reply("Answer: B B B", Expected("letter", ("B",), "B"))
    assert scored == Scored("B", 1.0, pytest.approx(2 / 3), pytest.approx(2 / 5))
    assert all(0 <= getattr(scored, metric) <= 1 for metric in METRICS)


def test_unit_tests_without_tests_are_never_passed() -> None:
    assert score_reply("```\nx = 1\n```", Expected("unit_tests", (), "x")).accuracy == 0


def test_many_keep_their_order_and_report_each() -> None:
    items = [
        ("```\ndef f(x):\n    return x + 1\n```", CODE),
        ("Answer: B", LETTER),
        ("```\ndef f(x):\n    return x\n```", CODE),
        ("Answer: \\frac{2}{4}", MATH),
        ("Answer: 18", NUMBER),
    ]
    done: list[int] = []
    scored = score_replies(items, done.append)
    assert [each.accuracy for each in scored] == [1, 1, 0, 1, 1]
    assert sum(done) == len(items)
    assert scored == [score_reply(reply, expected) for reply, expected in items]
    assert score_replies([]) == []


HOSTILE = [
    part * (600_000 // len(part))
    for part in (
        "a",
        "Answer: ",
        "the answer is ",
        "\\boxed{",
        "{",
        "$",
        "1,",
        "1",
        "```\n",
        "A. ",
        "A.\n",
        "\n",
        " ",
        "*",
        "#",
        "\\",
        "\\(",
        "\\[",
        "\0",
        "\ud800",
        "A is ",
        "1 1/1",
        "1e9",
        "correct answer: ((",
        "def f(\n",
        ">>> x\n",
        "A or ",
        "choose ",
        "best option very ",
    )
]


def extract_all(reply: str) -> None:
    """Every extraction, on one reply."""
    extract_letter(reply, 5)
    extract_number(reply)
    extract_math(reply)
    extract_program(reply, ["assert f(1)"])
    extract_text(reply)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reply", HOSTILE, ids=lambda reply: repr(reply[:16]))
def test_hostile_replies_end(reply: str) -> None:
    extract_all(reply)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(
                [
                    "Answer: ",
                    "\\boxed{",
                    "}",
                    "A",
                    "B. ",
                    "```python\n",
                    "\n",
                    "$",
                    "1",
                    "/",
                    "0",
                    "e9",
                    ",",
                    "-",
                    "def f(x):\n",
                    "    return x",
                    ">>> ",
                    "\\frac{",
                    "is ",
                    "correct ",
                    "\ud800",
                ]
            ),
        )
    ).map("".join)
)
@example("```python\nx=" + "-" * 30_000 + "1")
def test_any_text_can_be_searched(reply: str) -> None:
    extract_all(reply)
    scored = score_reply(reply, LETTER)
    assert scored.accuracy in (0.0, 1.0)

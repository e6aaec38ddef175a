"""Whether replies agree, whatever they were asked."""

from __future__ import annotations

import pytest

from hierrouter.quality.stated import stated_answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The answer is (B).", "**B**"),
        ("So the total is 12 apples.\n\nAnswer: 12", "3 * 4 = 12"),
        ("Answer: 1,200", "That makes 1200.0 dollars. Answer: $1200"),
        (r"Thus \boxed{\frac{1}{2}}", "Answer: 1/2"),
        ("Answer: Mount Everest", "We look at heights.\nAnswer: mount  everest."),
        ("def f(x):\n    return x + 1", "def f(x):\n    return x + 1\n"),
    ],
)
def test_the_same_answer_in_other_words(one: str, other: str) -> None:
    assert stated_answer(one) == stated_answer(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The answer is (B).", "The answer is (C)."),
        ("Answer: 12", "Answer: 13"),
        (r"\boxed{x^2 + 3}", r"\boxed{x^2 + 4}"),
        ("Answer: Everest", "Answer: Elbrus"),
        ("def f(x):\n    return x + 1", "def f(x):\n    return x - 1"),
        ("Answer: 0", "Answer: 1/0"),
    ],
)
def test_another_answer(one: str, other: str) -> None:
    assert stated_answer(one) != stated_answer(other)


@pytest.mark.parametrize("reply", ["", "  \n", "..."])
def test_nothing_is_said(reply: str) -> None:
    assert stated_answer(reply) is None

"""Numbers in replies: many ways to write one, and which of several is the answer."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierrouter.quality.numbers import extract_number, numbers_equal, parse_number, plain


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Answer: 1,234.00", "1234"),
        ("Answer: $18", "18"),
        ("Answer: -$5", "-5"),
        ("Answer: $-5", "-5"),
        ("Answer: −5", "-5"),
        ("18 dollars", "18"),
        ("so\n#### 18", "18"),
        ("\\boxed{18}", "18"),
        ("\\boxed{\\$18}", "18"),
        ("\\boxed{18\\text{ dollars}}", "18"),
        ("Answer: 18%", "18"),
        ("x = 18.", "18"),
        ("Answer: 3/4", "0.75"),
        ("Answer: 2/3", "2/3"),
        ("Answer: \\frac{3}{4}", "0.75"),
        ("Answer: 1 1/2", "1.5"),
        ("Answer: 1.5e3", "1500"),
        ("Answer: 2 x 10^3", "2000"),
        ("Answer: 2 \\times 10^{-1}", "0.2"),
        ("Answer: .5", "0.5"),
        ("Answer: $1{,}234$", "1234"),
        ("**Answer:** 18", "18"),
        ("**Answer: \\(18\\)**", "18"),
        ("Final Answer:\n\n$$18$$", "18"),
        ("Answer: 3*6 = 18", "18"),
        ("Answer: x = 18 apples", "18"),
        ("Answer: 18 dollars for 3 days", "18"),
        ("Answer: he has 3 dogs, so 18 legs", "18"),
        ("The answer is 18. It is 3 of 6.", "18"),
        ("The answer is 7.\nNo. The answer is 8.", "8"),
        ("Answer: 7\n\\boxed{8}", "8"),
        ("\\boxed{8}\nAnswer: 7", "7"),
        ("3 + 4 = 7, and 7 * 2 = 14 eggs", "14"),
        ("He has 14. Answer:", "14"),
        ("Answer: 5\nAnswer: X", "5"),
        ("10-5", "5"),
        ("Answer: 1 of v2", "1"),
        ("Answer: 8 hours (since 1 day = 24 hours)", "8"),
        ("Answer: 5 (since 3 = 2 + 1)", "5"),
        ("Answer: 8 since 1 day = 24 hours", "8"),
        ("Answer: 8; 1 day = 24 hours", "8"),
        ("Answer: 7. Here 1 day = 24 hours", "7"),
        ("Answer: 48 + 24 = 72, because 48/2 = 24", "72"),
        ("Answer: 36 eggs = 3 dozen", "36"),
        ("Answer: 36 hard-boiled eggs = 3 dozen", "36"),
        ("Answer: 15 = $20 - $5", "15"),
        ("Answer: 20/3 = 7", "7"),
        ("Answer: 5 * n = 20", "20"),
        ("Answer: 3 bags 6 eggs each = 18 eggs", "18"),
        ("Answer: total cost (3 + 4) = 7\n2", "7"),
        ("Answer: 3 dogs * 6 legs = 18 legs", "18"),
        ("Answer: 60% of 30 = 18", "18"),
        ("Answer: $5 - $3 = $2", "2"),
        ("Answer: 3 * (2 + 4) = 18", "18"),
        ("Answer: 2(3 + 4) = 14", "14"),
        ("Answer: twice (3 + 4) = 14", "14"),
        ("Answer: (3 + 4) * 2 = 14", "14"),
        ("To find the answer, we add: 3 + 4 = 7\nThen 7 * 2 = 14\nSo he has 14 marbles.", "14"),
        ("To get the answer: 3 + 4 = 7\nDoubled, 14", "14"),
        ("The answer needs one more step, adding them: 3 + 4 = 7\nDoubled, 14", "14"),
        ("The answer needs care, there are 3 bags\nHe has 14.", "14"),
        ("We get the answer: 14\n2", "14"),
        ("The answer (in dollars) is 14.\n2", "14"),
        ("Answer (in dollars): 14\n2", "14"),
        ("The answer, in dollars, is 14.\n2", "14"),
        ("The answer to this question: 14\n2", "14"),
        ("So, the answer is \\(14\\).\n```python\nx = 3\ny", "14"),
        ("A total of 1,234,567.", "1234567"),
        ("nothing", None),
        ("", None),
        ("7/0", None),
        ("Answer: 1e999999999", None),
        ("9" * 5000, None),
    ],
)
def test_extract(reply: str, number: str | None) -> None:
    assert extract_number(reply) == number


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("1,000", "1000.0", True),
        ("0.5", "1/2", True),
        ("0.3333333", "1/3", False),
        ("18", "-18", False),
        ("0.1", "0.10000000000000001", False),
        ("", "", False),
    ],
)
def test_equality_is_exact(left: str, right: str, same: bool) -> None:
    assert numbers_equal(left, right) is same


@given(st.fractions(max_denominator=10**6).filter(lambda value: abs(value) < 10**9))
def test_plain_text_reads_back(value: Fraction) -> None:
    assert parse_number(plain(value)) == value
    assert extract_number(f"Answer: {plain(value)}") == plain(value)

"""Mathematical answers: where they stand in a reply, and when two mean the same."""

import threading

import pytest

from hierrouter.quality.maths import extract_math, math_equal


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Answer: x=5", "x=5"),
        ("Answer: $\\frac{1}{2}$", "\\frac{1}{2}"),
        ("So \\boxed{\\frac12}.", "\\frac12"),
        ("\\boxed{1}, no: \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("$\\boxed{(1,2)}$ as asked.\nAnswer: see above", "(1,2)"),
        ("First \\boxed{3}, then \\boxed{4", "3"),
        ("\\boxed{} Answer: 7", "7"),
        ("Answer: \\(3\\sqrt{2}\\)", "3\\sqrt{2}"),
        ("Answer:\n\\[\n 12 \n\\]", "12"),
        ("Answer: $5$ and $6$", "5, 6"),
        ("Answer: with $n = 4$ we get $7$", "7"),
        ("Answer: The area is 12 square units.", "12 square units"),
        ("the answer is 2.5. Then", "2.5"),
        ("**Answer:** \\text{even}", "\\text{even}"),
        ("Answer: $18", "18"),
        ("Answer: \\$10", "10"),
        ("Answer: $\\$10$", "10"),
        ("the answer is 3, because 2 + 1 = 3", "3"),
        ("Answer: 3 since 2 + 1 = 3", "3"),
        ("Answer: 12, which is 3 * 4", "12"),
        ("Answer: $7$ is the smallest of the 3 primes; here $n=2$", "7"),
        ("Answer: \\(7\\) since $n=2$", "7"),
        ("Answer: $x$ is $5$", "5"),
        ("Answer: $f(2)$ = $3 + 2$ = $5$.", "5"),
        ("To find the answer, we add: 3 + 4 = 7\nHence $x = 14$", "x = 14"),
        ("The sum of the values of $f(x)$ is 10.", "10"),
        ("Answer: $x$ is 5, for $y$ is 3.", "5"),
        ("Then $f(x)$ is one.", "f(x)"),
        ("Thus $x = 3$ so", "x = 3"),
        ("We get 3/4", "3/4"),
        ("Answer: 6\nAnswer: X", "6"),
        ("Answer: X", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_extract(reply: str, answer: str | None) -> None:
    assert extract_math(reply) == answer


EQUAL = [
    ("x=5", "5"),
    ("\\frac{1}{2}", "0.5"),
    ("1/2", "\\frac{1}{2}"),
    ("\\dfrac12", "\\frac{1}{2}"),
    ("[2,5)", "[2, 5)"),
    ("(1,2)", "(1, 2)"),
    ("50\\%", "50"),
    ("10 dollars", "\\$10"),
    ("10\\text{ dollars}", "\\$10"),
    ("\\$10", "10"),
    ("\\$1.5", "\\$1.50"),
    ("even", "\\text{even}"),
    ("3\\sqrt2", "\\sqrt{18}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("2,1", "1,2"),
    ("10,000", "10000"),
    ("12\\text{ cm}", "12"),
    ("90^\\circ", "90"),
    ("x \\in [1,2]", "[1,2]"),
    ("y=2x+3", "y = 3+2x"),
    ("\\text{(B)}", "B"),
]
DIFFERENT = [
    ("(2,5)", "[2,5)"),
    ("(2,1)", "(1,2)"),
    ("5", "6"),
    ("odd", "\\text{even}"),
    ("", "1"),
    ("{{{", "1"),
    ("\0", "1"),
    ("\ud800", "1"),
    ("9" * 500, "9" * 499),
]


@pytest.mark.parametrize(("answer", "accepted"), EQUAL)
def test_equal(answer: str, accepted: str) -> None:
    assert math_equal(answer, accepted)


@pytest.mark.parametrize(("answer", "accepted"), DIFFERENT)
def test_different(answer: str, accepted: str) -> None:
    assert not math_equal(answer, accepted)


def test_an_answer_that_never_ends_is_different_and_harms_no_other() -> None:
    assert not math_equal("9^{9^{9^{9}}}", "1")
    assert math_equal("\\frac{2}{4}", "\\frac{1}{2}")


def test_threads_get_their_own_verdicts() -> None:
    verdicts: dict[int, bool] = {}

    def compare(number: int) -> None:
        verdicts[number] = math_equal(f"\\frac{{{number}}}{{2}}", "\\frac{6}{4}")

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: number == 3 for number in range(8)}

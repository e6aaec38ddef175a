"""Token F1 against values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierrouter.quality.f1 import normalise, token_f1


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat sat", "the dog ran", 1 / 3),
        ("The  CAT,\nsat!", "the cat sat", 1.0),
        ("B", "b", 1.0),
        ("A", "A", 1.0),  # SQuAD's removal of articles would make this 0.
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("", "", 0.0),
        ("?!", "a", 0.0),
        ("x y", "z", 0.0),
        ("a a a b", "a b", 1.0),
        ("a b c d", "a", 2 * (1 / 4) * 1 / (1 / 4 + 1)),
    ],
)
def test_sets(reply: str, reference: str, expected: float) -> None:
    assert token_f1(reply, reference) == pytest.approx(expected)


def test_multisets_count_repetitions() -> None:
    # Shared 2 of 4 found and 2 wanted: precision 1/2, recall 1.
    assert token_f1("a a a b", "a b", multiset=True) == pytest.approx(2 / 3)
    assert token_f1("a a b", "a a a", multiset=True) == pytest.approx(2 / 3)


def test_a_letter_measures_brevity() -> None:
    # PAPER: against a one-letter reference F1 is 2 / (n + 1) for n distinct tokens.
    reply = " ".join(f"w{i}" for i in range(9)) + " B"
    assert token_f1(reply, "B") == pytest.approx(2 / 11)


def test_best_of_several_references() -> None:
    assert token_f1("red fox", ["blue", "red fox", "red"]) == 1.0
    assert token_f1("red", []) == 0.0


def test_normalise() -> None:
    assert normalise("  The “Cat's”\t hat… ") == "the cats hat"


@given(st.text(max_size=60), st.text(max_size=60), st.booleans())
def test_bounds_and_symmetry(left: str, right: str, multiset: bool) -> None:
    score = token_f1(left, right, multiset=multiset)
    assert 0 <= score <= 1
    assert score == token_f1(right, left, multiset=multiset)

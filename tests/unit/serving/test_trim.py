"""Answers piece by piece: however a text is cut, what is passed on is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierrouter.serving.trim import Trim

TEXTS = st.text("ab \n#", max_size=30)


def played(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    trim = Trim(stops)
    said = [trim.add(piece) for piece in pieces]
    text = "".join(said) + trim.finish()
    assert text == trim.said
    return text, trim.stopped


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    text = text.lstrip()
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return (text[: min(ends)] if ends else text).rstrip(), bool(ends)


@given(st.lists(TEXTS, max_size=8), st.lists(st.text("ab #", min_size=1, max_size=4), max_size=3))
def test_the_cuts_make_no_difference(pieces, stops) -> None:
    assert played(pieces, stops) == expected("".join(pieces), stops)


def test_what_cannot_be_part_of_a_stop_is_passed_on_at_once() -> None:
    trim = Trim(["STOP"])
    assert trim.add("  Hello") == "Hello"
    assert trim.add(" wor") == " wor"
    assert trim.add("ld S") == "ld"
    assert trim.add("T") == ""
    assert trim.add("AR") == " STAR"
    assert trim.add(" \n") == ""
    assert not trim.stopped
    assert trim.finish() == ""
    assert trim.said == "Hello world STAR"


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_stop_over_several_pieces_ends_the_answer(cut) -> None:
    text = "fine. END and more"
    assert played([text[:cut], text[cut:], "never"], ["END"]) == ("fine.", True)

"""What a reply answers, whatever it was asked: enough to tell whether two replies agree.

Scoring knows the kind of answer that a task wants; a router does not, and sees the reply alone. So
the kinds are tried from the surest: a boxed or stated answer, a letter, the last number. Where no
kind fits, the reply itself is what it says.
"""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction
from functools import lru_cache

from hierrouter.quality.letters import extract_letter
from hierrouter.quality.maths import extract_math
from hierrouter.quality.numbers import extract_number, plain
from hierrouter.quality.statements import answer_statements, extract_text, last_box, tail

CHOICES = 10
"""Letters that may stand for a choice: A to J."""
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
MARKS = " .,;:!*_`$\"'"
"""What may stand at the ends of an answer and is no part of it."""


@lru_cache(maxsize=4096)  # to many questions the answer is one of a few letters
def stated_answer(reply: str) -> str | None:
    """The answer in one spelling: equal texts say the same.

    Args:
        reply: of a model, to any question.

    Returns:
        None for a reply that says nothing.
    """
    ending = tail(reply)
    if last_box(ending) is not None:
        return _spelled(extract_math(reply))
    if (letter := extract_letter(reply, CHOICES)) is not None:
        return letter
    if any(True for _ in answer_statements(ending, hashes=True)):
        return _spelled(extract_text(reply))
    return _spelled(extract_number(reply) if "def " not in reply else reply) or _spelled(reply)


def _spelled(answer: str | None) -> str | None:
    """Numbers as numbers, all else without case, spaces and marks at its ends."""
    if answer is None:
        return None
    with contextlib.suppress(ValueError, ZeroDivisionError):
        return plain(Fraction(_FRACTION.sub(r"\1/\2", answer).replace(",", "").strip(" $.%")))
    return " ".join(answer.casefold().split()).strip(MARKS) or None

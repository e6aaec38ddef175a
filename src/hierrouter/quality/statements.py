r"""Where a reply states its answer: `\boxed{...}`, "Answer: ...", "the answer is ...".

Replies are untrusted text of any length: every search here takes time linear in the reply, by
bounded repeats and possessive quantifiers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_CHARACTERS = 50_000
"""Only this much of a reply's end is searched: an answer stands at the end, and no real reply is
as long."""
_BOX_CHARACTERS = 2_000
_BOX_TRIES = 50
_MOST_STATEMENTS = 200

_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,8}+\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_ASIDE = r"(?:[ ]?,[^.,;:=\n]{1,40},|[ ]?\([^().:=\n]{1,40}\))?"
_ANSWER = re.compile(
    # "Answer", with what may stand between it and its verb or colon: "The answer to this is",
    # "The answer, in metres, is", "Answer (in metres):". No comma: a new clause begins there.
    rf"\banswers?\b(?:{_ASIDE}[^.,;:=\n]{{0,60}}?\b(?:is|are|was|would be|should be|must be|equals"
    rf"|becomes)\b[ \t*_]*+[:=]?|{_ASIDE}[ \t*_)\]]*+[:=]"
    r"|[ ](?:to|for|in|of)\b[^.,;:=\n]{1,60}?[:=]|[ ][a-zA-Z][ ]?=)",
    re.IGNORECASE,
)
_SOUGHT = re.compile(
    # "To find the answer, ..." announces a calculation and states nothing.
    r"\b(?:to|let['’]s|let us|(?:we|you|i) (?:can|need|must|will|should)|now)[ ]"
    r"(?:find|get|determine|calculate|compute|obtain|reach|see|give|write|express|check)\b"
    r"(?:[ ][a-z]{1,10}){0,3}[ *_]{1,3}$",
    re.IGNORECASE,
)
_HASHES = re.compile(r"####+")


@dataclass(frozen=True, slots=True)
class Statement:
    """A place where an answer is stated."""

    start: int
    """Where its anchor begins."""
    end: int
    """Where its anchor ends and the answer should begin."""


def tail(reply: str) -> str:
    """The part of a reply that is searched for an answer."""
    return reply[-READ_CHARACTERS:]


def last_box(text: str) -> tuple[int, str] | None:
    r"""The last `\boxed{...}` with content and balanced braces: its position and its content."""
    for box in reversed(list(_BOX.finditer(text))[-_BOX_TRIES:]):
        content = braced(text, box.end())
        if content is not None and content.strip():
            return box.start(), content.strip()
    return None


def braced(text: str, start: int) -> str | None:
    """What stands between an opening brace that ends at `start` and its partner, if there is one.

    An escaped brace is not counted. Looks no further than a few thousand characters.
    """
    depth = 1
    for brace in _BRACE.finditer(text, start, start + _BOX_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()]
    return None


def answer_statements(text: str, *, hashes: bool = False) -> Iterator[Statement]:
    """Every "Answer: ", "the answer is ", in order (the last few hundred of a runaway reply).

    Args:
        text: Where to look.
        hashes: Whether GSM8K's "#### " is one too.
    """
    found = [
        Statement(match.start(), match.end())
        for match in _ANSWER.finditer(text)
        if not _SOUGHT.search(text[max(0, match.start() - 60) : match.start()])
    ]
    if hashes:
        found += [Statement(match.start(), match.end()) for match in _HASHES.finditer(text)]
    yield from sorted(found, key=lambda statement: statement.start)[-_MOST_STATEMENTS:]


def stated_line(text: str, start: int) -> str:
    """The rest of the line at `start`, or the next line with content when that rest is empty."""
    for line in text[start : start + _BOX_CHARACTERS].splitlines():
        if line.strip(" \t*_$`\\[]:"):
            return line.strip()
    return ""


def extract_text(reply: str) -> str | None:
    """A free-text answer: what the last "Answer: " says, else the whole reply."""
    text = tail(reply)
    for statement in reversed(list(answer_statements(text))):
        stated = stated_line(text, statement.end).strip(" \t*_`$\"'")
        if stated and stated != "X" and not stated.startswith('X",'):
            return stated
    return text.strip() or None

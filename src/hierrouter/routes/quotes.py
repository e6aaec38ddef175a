"""Replies without what they repeat of their question, for trees that are passed on without it.

A model asked to describe a problem repeats much of it word for word. Where a question may not be
passed on, such passages are stored as the place in the question that they repeat, and are put back
when the reply is read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from hierrouter.data.queries import Query
    from hierrouter.routes.nodes import Node

SHORTEST = 16
"""Fewest characters that count as repeated: shorter ones are of the language, not the question."""
# A place is written as <first>+<length> between two characters of Unicode's private use.
OPEN, CLOSE = "\ue000", "\ue001"
_PLACE = re.compile(f"{OPEN}(?:(\\d+)\\+(\\d+))?{CLOSE}")


class Quotes:
    """What replies repeat of the questions that are withheld."""

    def __init__(self, queries: Iterable[Query] = (), withheld: Container[str] = ()) -> None:
        """Keeps the questions.

        Args:
            queries: whatever is known; passages are put back for all of them, so that a task may
                be withheld from some day on, or no longer. Replies to others are passed on as they
                stand: what is not known cannot be put back.
            withheld: tasks whose questions are left out of what is stored from now on.
        """
        queries = list(queries)
        self._questions = {query.query_id: query.prompt for query in queries}
        self._withheld = {query.query_id for query in queries if query.task in withheld}

    def leave_out(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes as they are stored."""
        return [
            replace(node, reply="".join(_stored(node.reply, self._questions[node.query_id])))
            if node.query_id in self._withheld
            else self._escaped(node)
            for node in nodes
        ]

    def put_back(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes as they were recorded, from what `leave_out` gave."""
        return [
            replace(node, reply=_recorded(node.reply, self._questions[node.query_id]))
            if OPEN in node.reply and node.query_id in self._questions
            else node
            for node in nodes
        ]

    def _escaped(self, node: Node) -> Node:
        """A node whose own OPEN, if it holds one, is told apart by a place that names nothing."""
        if OPEN not in node.reply or node.query_id not in self._questions:
            return node
        return replace(node, reply=node.reply.replace(OPEN, OPEN + CLOSE))


def _stored(reply: str, question: str) -> Iterator[str]:
    """The pieces of a stored reply: at each character the longest passage of the question."""
    places: dict[str, list[int]] = {}
    for first in range(len(question) - SHORTEST + 1):
        places.setdefault(question[first : first + SHORTEST], []).append(first)
    at = 0
    while at < len(reply):
        starts = places.get(reply[at : at + SHORTEST])
        if starts is None:
            yield OPEN + CLOSE if reply[at] == OPEN else reply[at]
            at += 1
        else:
            length, first = max((_shared(reply[at:], question[each:]), -each) for each in starts)
            yield f"{OPEN}{-first}+{length}{CLOSE}"
            at += length


def _shared(text: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((at for at, (one, two) in pairs if one != two), min(len(text), len(other)))


def _recorded(reply: str, question: str) -> str:
    def passage(place: re.Match[str]) -> str:
        if place[1] is None:
            return OPEN
        first, length = int(place[1]), int(place[2])
        return question[first : first + length]

    return _PLACE.sub(passage, reply)

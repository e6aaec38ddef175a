"""What calls to an endpoint are waiting for, so that a server that stalls is not met in silence."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hierrouter.progress import duration, say

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET_S = 20.0
"""Seconds without any answer after which it is said what is being waited for."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Seconds before the first retry and before late ones: those of the openai client."""


class Waiting:
    """Knows the calls of one model that are under way; counted in one thread, told in any."""

    def __init__(self, name: str) -> None:
        """Starts with none.

        Args:
            name: of the model.
        """
        self._name = name
        self._since: dict[object, float] = {}
        self._failed: Counter[str] = Counter()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call that is under way in this block, whatever number of tries it takes."""
        this = object()
        self._since[this] = time.monotonic()
        try:
            yield
        finally:
            del self._since[this]

    def failed(self, kind: str) -> None:
        """Counts a try that failed."""
        self._failed[kind] += 1

    def tell(self) -> None:
        """Says how many calls are under way, for how long, and what became of their tries."""
        begun, failed = list(self._since.values()), dict(self._failed)
        if not begun:
            return
        longest = duration(time.monotonic() - min(begun))
        line = f"model {self._name}: {len(begun)} calls under way, the longest for {longest}"
        if failed:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(failed.items()))
            line += f"; tries that failed so far: {kinds}"
        say(line)


def pause_s(tries: int) -> float:
    """Seconds before a call is made again, longer after each of `tries`; calls fall out of step."""
    return min(FIRST_PAUSE_S * 2.0 ** (tries - 1), LONGEST_PAUSE_S) * random.uniform(0.75, 1.0)

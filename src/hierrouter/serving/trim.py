"""An answer as it is passed on, piece by piece: without space around it, up to a stop sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Trim:
    """Holds back what may turn out to be a stop sequence or the space at the end."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Takes the texts before which the answer ends."""
        self.stops = tuple(stop for stop in stops if stop)
        """The stop sequences."""
        self.said = ""
        """What was passed on so far."""
        self.stopped = False
        """Whether a stop sequence was met."""
        self._held = ""

    def add(self, piece: str) -> str:
        """Takes a piece; returns what can be passed on now."""
        if self.stopped:
            return ""
        text = self._held + piece
        if not self.said:
            text = text.lstrip()
        ends = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return self._pass_on(text[: min(ends)].rstrip())
        sure = len(text) - max((_begun(text, stop) for stop in self.stops), default=0)
        sure = len(text[:sure].rstrip())
        self._held = text[sure:]
        return self._pass_on(text[:sure])

    def finish(self) -> str:
        """What is left when no piece is to come."""
        rest, self._held = self._held.rstrip(), ""
        return self._pass_on(rest)

    def _pass_on(self, text: str) -> str:
        self.said += text
        return text


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text begin a stop sequence."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)

"""Ctrl-C and `kill` at a moment when something must be finished first."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def finished_first() -> Iterator[None]:
    """Holds back a Ctrl-C or `kill` until the block has ended; a second one ends it at once.

    For blocks that keep what was paid for. Does nothing outside the main thread, which is where
    signals arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: Any) -> None:
        held.append(number)
        if len(held) > 1:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, hold) for number in ENDING}
    try:
        yield
    finally:
        restore()
        if len(held) == 1:
            signal.raise_signal(held[0])

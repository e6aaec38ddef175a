"""Being told to stop: by the first signal in good order, by a second one at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")
INTERRUPTED = 130
"""What a shell expects of a command that Ctrl-C ended: 128 + SIGINT."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(SystemExit):
    """The program was told to stop; it ends with the exit code that a shell expects."""

    def __init__(self, words: str) -> None:
        """Takes what is said at the end."""
        super().__init__(INTERRUPTED)
        self.words = words


@contextlib.contextmanager
def stopping(words: str) -> Iterator[None]:
    """Lets the program end with these words where it is told to stop in this block.

    Args:
        words: one line; what is left of the work, and how to go on.

    Raises:
        StoppedError: it was told to stop.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(words) from None


def run_live(main: Coroutine[Any, Any, T]) -> T:
    """Runs asynchronous work that has something to put in order when it is told to stop.

    As `asyncio.run`, for SIGTERM, too; and a second signal does not break into what the first one
    has begun to put in order, which would end in tracebacks: it ends the process. Models have
    processes that end with it.

    Args:
        main: the work; it is cancelled at the first signal.

    Raises:
        KeyboardInterrupt: it was told to stop.
    """
    told = False
    with contextlib.ExitStack() as afterwards:
        loop = afterwards.enter_context(asyncio.Runner()).get_loop()
        work = loop.create_task(main)

        def stop(*_: object) -> None:
            nonlocal told
            if told:
                end_at_once()
            told = True
            if loop.is_closed():
                raise KeyboardInterrupt
            loop.call_soon_threadsafe(work.cancel)

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            return loop.run_until_complete(work)
        except asyncio.CancelledError:
            if told:
                raise KeyboardInterrupt from None
            raise
        finally:
            afterwards.close()
            # Told to stop, the program ends, and a further signal still ends it at once.
            if not told:
                for number, handler in before.items():
                    signal.signal(number, handler)


def end_at_once() -> NoReturn:
    """Ends the process from within a signal's handler, with nothing put in order."""
    # A console may be at work on a line just now.
    os.write(2, b"stopped at once\n")
    os._exit(INTERRUPTED)


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

    before = {number: signal.signal(number, hold) for number in SIGNALS}
    try:
        yield
    finally:
        restore()
        if len(held) == 1:
            signal.raise_signal(held[0])

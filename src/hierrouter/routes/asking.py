"""Having models asked: one after another, or several servers side by side.

Only the waiting happens in threads. Whatever reads a tree or adds to it runs in the caller's, which
is also where Ctrl-C arrives.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from hierrouter.pool.openai_backend import OpenAIBackend
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.pool.backend import Backend, Completion, OnReply


@dataclass(frozen=True, slots=True)
class Generation:
    """What a backend is to be asked; the arguments of `Backend.generate`."""

    backend: Backend
    prompts: Sequence[str]
    limits: Sequence[int]
    on_reply: OnReply


Lane = Generator[Generation, None, None]
"""Generations that follow on each other; the failure of one is thrown in where it was yielded."""


def in_turn(lane: Lane) -> None:
    """Makes generations one after another.

    Raises:
        BaseException: what a generation raised and the lane did not take, or what the lane raised.
    """
    failure: BaseException | None = None
    try:
        while True:
            try:
                generation = next(lane) if failure is None else lane.throw(failure)
            except StopIteration:
                return
            failure = None
            try:
                generation.backend.generate(
                    generation.prompts, generation.limits, generation.on_reply
                )
            except BaseException as error:
                failure = error
    finally:
        lane.close()


def side_by_side(lanes: Sequence[Lane]) -> None:
    """Makes generations of several lanes at the same time.

    Args:
        lanes: those of endpoints, unless it is a single one.

    Raises:
        Exception: what the first lane that failed raised. Calls under way are waited for.
        KeyboardInterrupt: pressed by the user. Calls under way are waited for at the first one.
    """
    if len(lanes) == 1:
        in_turn(lanes[0])
        return
    together = _Together()
    with contextlib.ExitStack() as closing:
        for lane in lanes:
            # Each commits what it was told, also where another one could not.
            closing.callback(lane.close)
        try:
            for lane in lanes:
                together.go_on(lane)
            together.listen()
        except KeyboardInterrupt:
            together.stop()
            say(
                "stopping; calls under way are waited for, as they are paid for (Ctrl-C: drop them)"
            )
            together.listen()
            raise
    if together.failures:
        raise together.failures[0]


class _Together:
    """Lanes of which each has at most one generation under way."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self._stopped = False
        self._busy: dict[_Worker, Lane] = {}
        self._news: SimpleQueue[_Worker] = SimpleQueue()

    def go_on(self, lane: Lane, failure: BaseException | None = None) -> None:
        """Lets a lane begin its next generation."""
        try:
            if self._stopped:
                lane.close()
                return
            generation = next(lane) if failure is None else lane.throw(failure)
        except StopIteration:
            return
        except Exception as error:
            self._fail(error)
            return
        worker = _Worker(generation, self._news)
        self._busy[worker] = lane
        worker.start()

    def listen(self) -> None:
        """Tells lanes of replies, and lets them go on, until all have ended."""
        while self._busy:
            worker = self._news.get()
            if worker not in self._busy:
                continue
            ended = worker.ended.is_set()  # looked at first: no reply comes after
            for position, completion in list(worker.replies.items()):
                try:
                    worker.generation.on_reply(position, completion)
                except Exception as error:
                    self._fail(error)
                # Last: a reply whose telling was interrupted is rather told twice than never.
                del worker.replies[position]
            if ended:
                self.go_on(self._busy.pop(worker), worker.failure)

    def stop(self) -> None:
        """Lets no new calls begin."""
        self._stopped = True
        for worker in self._busy:
            if isinstance(worker.generation.backend, OpenAIBackend):
                worker.generation.backend.stop()

    def _fail(self, error: Exception) -> None:
        self.failures.append(error)
        self.stop()


class _Worker(threading.Thread):
    """Waits for one generation; a daemon, so that a call that hangs does not keep the program."""

    def __init__(self, generation: Generation, news: SimpleQueue[_Worker]) -> None:
        super().__init__(daemon=True)
        self.generation, self._news = generation, news
        self.replies: dict[int, Completion] = {}
        self.ended = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        asked = self.generation
        try:
            asked.backend.generate(asked.prompts, asked.limits, self._keep)
        except BaseException as error:  # taken where the lane goes on
            self.failure = error
        self.ended.set()
        self._news.put(self)

    def _keep(self, position: int, completion: Completion) -> None:
        self.replies[position] = completion
        self._news.put(self)

"""One model of the pool as it is asked live: its turn, its time, its retries, its breaker."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from hierrouter.config import ModelSpec
    from hierrouter.pool.backend import Completion
    from hierrouter.pool.live.backend import LiveBackend, Prompt
    from hierrouter.pool.prompts import Role

FAILURES = 3
"""Failed calls in a row after which a model is left alone for a while."""
PAUSE_S = 10.0
"""How long, unless it said how long itself."""
FIRST_WAIT_S = 0.1
"""Before the first further try of a call; each wait is twice the one before."""
LONGEST_WAIT_S = 2.0
"""A caller is not kept longer than that between two tries; another model is asked instead."""
TIMEOUT_S = 300.0
"""Seconds that a reply of a model in this process may take; servers have their own limit."""
MOST_RETRIES = 2
"""Further tries of a call. Recording is patient; whoever waits for an answer is not."""
SILENT_S = 30.0
"""A caller who leaves after so long without a word leaves a model that fails."""
TRYING_S = 1.0
"""What is told as the wait while one call tries a model that has failed."""
FADES_S = 30.0
"""After how long half of what was waited in vain counts."""
NEWEST = 0.2
"""Weight of the newest call in the expected time of the next."""


class _SlowError(UnreachableError):
    """A reply was not whole in time; asking the same again would take as long."""


@dataclass
class Bill:
    """What a call took beside the reply that it gave: tries that may be charged all the same."""

    most: int = MOST_RETRIES + 1
    """Tries that may be charged and are paid for; then no other is sent."""
    lost: int = 0
    """Tries that failed after the model may have worked on them."""
    sent: bool = False
    """Whether the newest was sent and has not failed."""


class Breaker:
    """Leaves a model alone after several failures in a row; later one call may try it again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts closed: calls pass."""
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._open = False
        self._trying = False

    @property
    def wait_s(self) -> float:
        """Seconds until the model may be tried again; 0 where it may be now."""
        if self._trying:
            return TRYING_S
        return max(0.0, self._open_until - self._clock())

    @contextmanager
    def call(self) -> Iterator[None]:
        """Stands around a call; past a pause it lets one through and no other until that is over.

        Raises:
            UnreachableError: it is to be left alone, or another call tries it just now.
        """
        if self.wait_s > 0:
            failure = UnreachableError("failed lately, and is left alone for a while")
            failure.unpaid = True
            raise failure
        mine = self._trying = self._open
        try:
            yield
        finally:
            if mine:
                self._trying = False

    def succeed(self) -> None:
        """A call went well."""
        self._failures, self._open_until = 0, 0.0
        self._open = self._trying = False

    def fail(self, retry_after_s: float | None = None) -> None:
        """A call failed, with the wait that the model asked for, if it did."""
        self._failures += 1
        # Past a pause one failure is enough to leave it alone again.
        if self._failures >= FAILURES or self._open or retry_after_s is not None:
            pause = PAUSE_S if retry_after_s is None else retry_after_s
            self._open_until, self._open = self._clock() + pause, True


class Member:
    """A model of the pool: who answers for it, and how it has fared."""

    def __init__(
        self,
        spec: ModelSpec,
        backend: LiveBackend,
        places: asyncio.Semaphore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes a model and what answers for it.

        Args:
            spec: the model.
            backend: what answers; members with the same weights share it.
            places: as many as replies may be under way at the backend.
            clock: seconds that only grow.
        """
        self.spec, self.backend = spec, backend
        self.breaker = Breaker(clock)
        self.waiting = 0
        """Calls that wait for a place."""
        self.running = 0
        """Calls under way."""
        self._places = places
        self._expected: dict[Role, float] = {}
        self._missed: dict[Role, tuple[float, float]] = {}
        self._clock = clock
        endpoint = spec.endpoint
        self._timeout_s = endpoint.timeout_s if endpoint else TIMEOUT_S
        self._retries = min(endpoint.retries if endpoint else 0, MOST_RETRIES)

    def expected_s(self, role: Role) -> float:
        """Seconds that a call has taken lately; 0 while none is known.

        How long others waited in vain counts, too, but less and less: else a model that was slow
        once would never be asked again.
        """
        waited, at = self._missed.get(role, (0.0, 0.0))
        faded = waited * 0.5 ** ((self._clock() - at) / FADES_S)
        return max(self._expected.get(role, 0.0), float(faded))

    async def call(
        self,
        prompt: Prompt,
        limit: int,
        role: Role,
        *,
        pieces: bool,
        stop: Sequence[str] = (),
        deadline: float | None = None,
        bill: Bill | None = None,
    ) -> AsyncGenerator[str | Completion, None]:
        """One reply, when its turn comes.

        Args:
            prompt: of this member's backend.
            limit: the most new tokens.
            role: what is asked for.
            pieces: whether the text is wanted as it comes.
            stop: texts before which it may end.
            deadline: on the event loop's clock; none: the member's own time-out alone.
            bill: how many tries may be charged; in it is kept how many may have been.

        Yields:
            As `LiveBackend.stream`; `latency_s` counts from the call on, waiting among it.

        Raises:
            TimeoutError: the deadline has passed.
            RefusedError: this one call was refused.
            HierRouterError: the model fails, also after further tries.
        """
        self.backend.require_window(prompt, limit)
        bill = Bill() if bill is None else bill
        # The reply is made at the model's pace and not at the reader's: a client that is slow, or
        # reads no more, keeps no place, and says nothing about how quick the model is.
        said: asyncio.Queue[str | Completion | Exception] = asyncio.Queue()
        making = asyncio.ensure_future(
            self._make(prompt, limit, role, said, bill, pieces=pieces, stop=stop, deadline=deadline)
        )
        try:
            while True:
                piece = await said.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if not isinstance(piece, str):
                    return
        finally:
            if not making.done():
                making.cancel()
                await asyncio.wait({making})

    async def _make(
        self,
        prompt: Prompt,
        limit: int,
        role: Role,
        said: asyncio.Queue[str | Completion | Exception],
        bill: Bill,
        *,
        pieces: bool,
        stop: Sequence[str],
        deadline: float | None,
    ) -> None:
        """Makes the reply, when its turn comes; what fails is handed to the reader as well."""
        started = time.perf_counter()
        try:
            self.waiting += 1
            try:
                async with asyncio.timeout_at(deadline):
                    await self._places.acquire()
            finally:
                self.waiting -= 1
            self.running += 1
            try:
                with self.breaker.call():
                    await self._try(
                        prompt, limit, role, said, bill, started, pieces, stop, deadline
                    )
            finally:
                self.running -= 1
                self._places.release()
        except Exception as error:
            said.put_nowait(error)

    async def _try(
        self,
        prompt: Prompt,
        limit: int,
        role: Role,
        said: asyncio.Queue[str | Completion | Exception],
        bill: Bill,
        started: float,
        pieces: bool,
        stop: Sequence[str],
        deadline: float | None,
    ) -> None:
        """The call, again where it failed in a way that may pass and nothing has been said."""
        loop = asyncio.get_running_loop()
        for tries_left in range(self._retries, -1, -1):
            began, whole, asked = False, False, time.perf_counter()
            bill.sent = True
            try:
                ends = loop.time() + self._timeout_s
                calling = self.backend.stream(prompt, limit, pieces=pieces, stop=stop)
                soonest = ends if deadline is None else min(deadline, ends)
                async with self._within(soonest, deadline), aclosing(calling) as stream:
                    async for piece in stream:
                        began = True
                        if not isinstance(piece, str):
                            whole = True
                            piece = replace(piece, latency_s=time.perf_counter() - started)
                            self.breaker.succeed()
                            self._note(role, piece.latency_s)
                        said.put_nowait(piece)
                if not whole:
                    raise UnreachableError(f"model {self.spec.name} ended without a whole reply")
                return
            except (TimeoutError, asyncio.CancelledError):
                silent = 0.0 if began else time.perf_counter() - asked
                # It took at least that long; how much longer, nobody waited to see.
                self._missed[role] = max(self.expected_s(role), silent), self._clock()
                # Of a reply that was not wanted piece by piece nothing could have been heard.
                if pieces and silent >= SILENT_S:
                    self.breaker.fail()
                raise
            except UnreachableError as error:
                bill.sent = False
                bill.lost += not error.unpaid
                wait = error.retry_after_s
                if wait is None:
                    doubled = FIRST_WAIT_S * 2 ** (self._retries - tries_left)
                    wait = doubled * random.uniform(0.5, 1.5)
                last = not tries_left or bill.lost >= bill.most or isinstance(error, _SlowError)
                if isinstance(error, _SlowError):
                    await self.backend.slow()
                if began or last or wait > LONGEST_WAIT_S:
                    self.breaker.fail(error.retry_after_s)
                    raise
                async with asyncio.timeout_at(deadline):
                    await asyncio.sleep(wait)
            except RefusedError:
                bill.sent = False
                raise
            except HierRouterError as error:
                bill.sent = False
                bill.lost += not error.unpaid
                self.breaker.fail()
                raise

    @asynccontextmanager
    async def _within(self, soonest: float, deadline: float | None) -> AsyncIterator[None]:
        """Ends what takes longer: with TimeoutError at the deadline, else as the model's fault."""
        try:
            async with asyncio.timeout_at(soonest):
                yield
        except TimeoutError as error:
            if soonest == deadline:
                raise
            raise _SlowError(
                f"model {self.spec.name} gave no whole reply within {self._timeout_s:g} s"
            ) from error

    def _note(self, role: Role, took: float) -> None:
        known = self._expected.get(role, took)
        self._expected[role] = known + NEWEST * (took - known)

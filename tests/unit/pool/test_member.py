"""A model asked live: turns, retries and the breaker, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hierrouter.config import ModelSpec
from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import Prompt
from hierrouter.pool.live.member import FADES_S, FAILURES, PAUSE_S, Breaker, Member

DONE = Completion("yes", 3, 1, "stop", 0.0, -0.1, -0.1)
PROMPT = Prompt((), 3)


class Script:
    """Answers call by call as it is told: an exception, or pieces with the completion last."""

    name, device, dtype, concurrency = "script", "endpoint", "none", 2

    def __init__(self, *calls) -> None:
        self.calls = list(calls)
        self.made = 0

    slowness = 0

    def require_window(self, prompt, limit) -> None: ...

    async def slow(self) -> None:
        self.slowness += 1

    async def stream(self, prompt, limit, *, pieces=True, stop=()):
        self.made += 1
        for said in self.calls.pop(0):
            if isinstance(said, Exception):
                raise said
            if isinstance(said, asyncio.Event):
                await said.wait()
            else:
                yield said


def member_over(backend, retries=2, timeout_s=60.0, places=2):
    endpoint = {"url": "http://localhost:1/v1", "retries": retries, "timeout_s": timeout_s}
    spec = ModelSpec(name="m", model="m", backend="openai", base_rate=1, endpoint=endpoint)
    now = [0.0]
    return Member(spec, backend, asyncio.Semaphore(places), lambda: now[0]), now


async def ask(member, deadline=None, pieces=True):
    calling = member.call(PROMPT, 5, "solve", pieces=pieces, deadline=deadline)
    return [piece async for piece in calling]


def test_a_failure_that_may_pass_is_tried_again() -> None:
    soon = UnreachableError("busy", retry_after_s=0.0)
    backend = Script([soon], [UnreachableError("gone")], ["ye", "s", DONE])
    member, _ = member_over(backend)
    *pieces, last = asyncio.run(ask(member))
    assert pieces == ["ye", "s"]
    assert replace(last, latency_s=0.0) == DONE
    assert backend.made == 3
    assert member.breaker.wait_s == 0
    assert member.expected_s("solve") > 0
    assert member.expected_s("analyze") == 0


def test_not_more_often_than_it_may_be_and_never_after_a_piece() -> None:
    gone = UnreachableError("gone", retry_after_s=0.0)
    backend = Script([gone], [gone], [gone], [DONE])
    member, _ = member_over(backend)
    with pytest.raises(UnreachableError):
        asyncio.run(ask(member))
    assert backend.made == 3
    backend = Script(["ye", gone], [DONE])
    member, _ = member_over(backend)
    with pytest.raises(UnreachableError):
        asyncio.run(ask(member))
    assert backend.made == 1


def test_who_is_told_to_come_back_much_later_asks_somebody_else() -> None:
    backend = Script([UnreachableError("busy", retry_after_s=30.0)], [DONE])
    member, now = member_over(backend)
    with pytest.raises(UnreachableError):
        asyncio.run(ask(member))
    assert backend.made == 1
    assert member.breaker.wait_s == 30
    now[0] = 31.0
    assert member.breaker.wait_s == 0


@pytest.mark.parametrize("error", [RefusedError("too long"), HierRouterError("no such model")])
def test_what_does_not_pass_is_not_tried_again(error) -> None:
    backend = Script([error], [DONE])
    member, _ = member_over(backend)
    with pytest.raises(type(error)):
        asyncio.run(ask(member))
    assert backend.made == 1


def test_refusals_of_single_calls_do_not_open_the_breaker() -> None:
    backend = Script(*[[RefusedError("too long")]] * 10)
    member, _ = member_over(backend)
    for _ in range(10):
        with pytest.raises(RefusedError):
            asyncio.run(ask(member))
    assert member.breaker.wait_s == 0


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try_after_its_pause() -> None:
    now = [100.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES - 1):
        breaker.fail()
    breaker.succeed()
    for _ in range(FAILURES - 1):
        breaker.fail()
    assert breaker.wait_s == 0
    breaker.fail()
    assert breaker.wait_s == PAUSE_S
    now[0] += PAUSE_S
    assert breaker.wait_s == 0
    breaker.fail()
    assert breaker.wait_s == PAUSE_S
    now[0] += PAUSE_S
    breaker.succeed()
    breaker.fail()
    assert breaker.wait_s == 0


def test_past_its_pause_one_call_tries_a_model_and_others_are_turned_away() -> None:
    go = asyncio.Event()
    failing = [[HierRouterError("bad")]] * FAILURES
    backend = Script(*failing, [go, "ye", DONE], [HierRouterError("bad")], [DONE])
    member, now = member_over(backend, retries=0, places=4)

    async def run() -> None:
        for _ in range(FAILURES):
            with pytest.raises(HierRouterError):
                await ask(member)
        with pytest.raises(UnreachableError, match="left alone") as turned_away:
            await ask(member)
        assert turned_away.value.unpaid
        now[0] += PAUSE_S
        assert member.breaker.wait_s == 0
        trying = asyncio.ensure_future(ask(member))
        while backend.made == FAILURES:
            await asyncio.sleep(0)
        assert member.breaker.wait_s > 0
        with pytest.raises(UnreachableError, match="left alone"):
            await ask(member)
        go.set()
        assert (await trying)[0] == "ye"
        assert member.breaker.wait_s == 0
        # Well again: one failure does not open it.
        with pytest.raises(HierRouterError):
            await ask(member)
        assert len(await ask(member)) == 1
        assert backend.made == FAILURES + 3

    asyncio.run(run())


def test_who_gives_a_trial_up_leaves_it_to_the_next() -> None:
    never = asyncio.Event()
    backend = Script(*[[HierRouterError("bad")]] * FAILURES, ["ye", never], [DONE])
    member, now = member_over(backend, retries=0)

    async def run() -> None:
        for _ in range(FAILURES):
            with pytest.raises(HierRouterError):
                await ask(member)
        now[0] += PAUSE_S
        leaving = member.call(PROMPT, 5, "solve", pieces=True)
        assert await anext(leaving) == "ye"
        await leaving.aclose()
        assert len(await ask(member)) == 1

    asyncio.run(run())


def test_a_reply_that_takes_too_long_is_a_failure_and_a_deadline_is_not() -> None:
    async def run() -> None:
        backend = Script([asyncio.Event()], [asyncio.Event()])
        member, _ = member_over(backend, retries=0, timeout_s=0.02)
        with pytest.raises(UnreachableError, match=r"0\.02 s"):
            await ask(member)
        member, _ = member_over(backend, retries=0)
        with pytest.raises(TimeoutError):
            await ask(member, asyncio.get_running_loop().time() + 0.02)
        assert member.breaker.wait_s == 0
        assert member.running == 0

    asyncio.run(run())


def test_more_callers_than_places_wait_their_turn() -> None:
    async def run() -> None:
        hold = asyncio.Event()
        backend = Script([hold, DONE], [hold, DONE], [DONE])
        member, _ = member_over(backend, places=2)
        asking = [asyncio.ensure_future(ask(member)) for _ in range(3)]
        while member.running < 2:
            await asyncio.sleep(0)
        assert member.waiting == 1
        assert backend.made == 2
        asking[0].cancel()
        while backend.made < 3:
            await asyncio.sleep(0)
        assert len(await asking[2]) == 1
        hold.set()
        assert len(await asking[1]) == 1
        assert (member.waiting, member.running) == (0, 0)

    asyncio.run(run())


def test_a_reader_who_is_slow_keeps_no_place_and_makes_no_model_look_slow() -> None:
    async def run() -> None:
        backend = Script(["ye", "s", DONE], [DONE])
        member, _ = member_over(backend, places=1)
        slow = member.call(PROMPT, 5, "solve", pieces=True)
        assert await anext(slow) == "ye"
        assert len(await ask(member)) == 1
        assert member.running == 0
        assert await anext(slow) == "s"

    asyncio.run(run())


def test_a_reader_who_goes_away_ends_the_reply() -> None:
    async def run() -> None:
        hold = asyncio.Event()
        backend = Script(["ye", hold, DONE])
        member, _ = member_over(backend, places=1)
        leaving = member.call(PROMPT, 5, "solve", pieces=True)
        assert await anext(leaving) == "ye"
        assert member.running == 1
        await leaving.aclose()
        assert member.running == 0
        assert backend.calls == []

    asyncio.run(run())


def test_a_time_out_is_not_tried_again() -> None:
    async def run() -> None:
        backend = Script([asyncio.Event()], [DONE])
        member, _ = member_over(backend, retries=2, timeout_s=0.02)
        with pytest.raises(UnreachableError):
            await ask(member)
        assert backend.made == 1
        assert backend.slowness == 1

    asyncio.run(run())


def test_a_deadline_that_a_silent_model_missed_makes_it_look_as_slow_as_it_was() -> None:
    async def run() -> None:
        member, now = member_over(Script([asyncio.Event()]), retries=0)
        with pytest.raises(TimeoutError):
            await ask(member, asyncio.get_running_loop().time() + 0.02)
        waited = member.expected_s("solve")
        assert waited > 0  # a part of the .02 s may have gone before it was asked
        assert member.expected_s("analyze") == 0
        # What was waited in vain fades: else it would never be asked again.
        now[0] += FADES_S
        assert member.expected_s("solve") == pytest.approx(waited / 2)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("most_silent", "pieces", "opens"),
    # Whoever wants no pieces hears nothing before the end, however well the model is.
    [(0.0, True, True), (60.0, True, False), (0.0, False, False)],
)
def test_callers_who_leave_a_silent_model_open_its_breaker(
    monkeypatch, most_silent, pieces, opens
) -> None:
    monkeypatch.setattr("hierrouter.pool.live.member.SILENT_S", most_silent)

    async def run() -> None:
        backend = Script(*[[asyncio.Event()]] * FAILURES)
        member, _ = member_over(backend)
        for made in range(FAILURES):
            leaving = asyncio.ensure_future(ask(member, pieces=pieces))
            while backend.made == made:
                await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        assert (member.breaker.wait_s > 0) == opens

    asyncio.run(run())


def test_a_stream_that_ends_without_a_whole_reply_is_a_failure() -> None:
    backend = Script(["ye"])
    member, _ = member_over(backend)
    with pytest.raises(UnreachableError, match="without a whole reply"):
        asyncio.run(ask(member))

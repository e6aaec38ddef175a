"""The router as a service: lets requests in, plays their routes, keeps the books."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hierrouter.serving.events import Decision, Hop, LateError, Route, Text
from hierrouter.serving.gauges import Failing
from hierrouter.serving.knobs import presets
from hierrouter.serving.problems import OverloadedError, Problem, ending, problem_of
from hierrouter.serving.spans import span_of
from hierrouter.serving.told import failure_entry, request_entry
from hierrouter.serving.visits import current

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from hierrouter.serving.calls import Question
    from hierrouter.serving.gauges import Gauges, InFlight
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.player import Event, Player
    from hierrouter.serving.visits import Visit
    from hierrouter.tracking.traces import Tracer

log = logging.getLogger("hierrouter.serving")
CLIENT_GONE = 499
"""The status under which a request is kept whose client went away."""


@dataclass(frozen=True)
class Identity:
    """Which router this is."""

    name: str
    """What it is called in requests."""
    version: str
    """Its version in MLflow, or the begin of its digest."""
    digest: str
    """SHA-256 of its weights."""

    def told(self) -> dict[str, str]:
        """As answers tell it."""
        return {"name": self.name, "version": self.version, "digest": self.digest}


@dataclass
class Places:
    """The places of one request: as many of its queries may be under way at once."""

    in_flight: InFlight
    held: int
    left: int
    """Its queries that are not answered yet."""

    def done(self) -> None:
        """One of its queries is answered; a place that no other of them needs is free again."""
        self.left -= 1
        if self.held > self.left > 0:
            self.held -= 1
            self.in_flight.count -= 1


class Service:
    """Answers questions for every interface alike."""

    def __init__(
        self,
        player: Player,
        identity: Identity,
        alpha: float,
        gauges: Gauges,
        *,
        most: int,
        log_texts: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        """Takes what plays routes.

        Args:
            player: plays them.
            identity: which router it has.
            alpha: where neither request nor preset says another.
            gauges: what Prometheus is told.
            most: queries under way at the same time; more are refused.
            log_texts: whether questions and answers are logged.
            tracer: sends a share of the requests to MLflow.
        """
        self.player, self.identity = player, identity
        self.info = player.router.info
        self.presets = presets(identity.name, self.info, alpha)
        """The alpha of each name under which the router is asked."""
        self.started = int(time.time())
        """Seconds since 1970."""
        self.ending = False
        """Whether the server is shutting down."""
        self.in_flight = gauges.in_flight
        self._gauges, self._most = gauges, most
        self._log_texts, self._tracer = log_texts, tracer
        gauges.watch(player.members)

    @property
    def ready(self) -> bool:
        """Whether a request now would find a model that answers."""
        return not self.ending and any(m.breaker.wait_s == 0 for m in self.player.members)

    async def close(self) -> None:
        """Frees the models, and sends the traces that wait."""
        await self.player.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    @contextmanager
    def admitted(self, api: str, queries: int = 1) -> Iterator[Places]:
        """Lets a request in, and counts it once when it ends.

        Args:
            api: the interface, for the books.
            queries: how many it holds.

        Yields:
            The places that are kept for it: as many of its queries may be under way at once.

        Raises:
            OverloadedError: too many queries are under way.
        """
        room = self._most - self.in_flight.count
        if room < 1:
            are = "1 query is" if self._most == 1 else f"{self._most} queries are"
            raise OverloadedError(f"{are} under way, and no more are let in; ask again soon")
        places = min(room, queries)
        self.in_flight.count += places
        held = Places(self.in_flight, places, queries)
        visit, started, status = current(), time.perf_counter(), 0
        visit.admitted = True
        try:
            yield held
            status = 200
        except Exception as error:
            status = problem_of(error).status
            raise
        finally:
            self.in_flight.count -= held.held
            self._gauges.request(api, status or _gone(visit), time.perf_counter() - started)

    async def answer(
        self,
        question: Question,
        terms: Terms,
        route: Route,
        *,
        api: str,
        request_id: str,
        stop: Sequence[str] = (),
        pieces: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Lets a request of one query in, and answers it.

        Args:
            question: what is asked.
            terms: how it may be answered.
            route: a new one, in which is kept what the request took.
            api: the interface, for the books.
            request_id: of the request.
            stop: texts before which the answer ends.
            pieces: whether the answer is wanted as it comes.

        Raises:
            OverloadedError: too many queries are under way.
            HierRouterError: as `Player.play`.
        """
        with self.admitted(api):
            playing = self.query(
                question, terms, route, api=api, request_id=request_id, stop=stop, pieces=pieces
            )
            async with aclosing(playing) as events:
                async for event in events:
                    yield event

    async def query(
        self,
        question: Question,
        terms: Terms,
        route: Route,
        *,
        api: str,
        request_id: str,
        stop: Sequence[str] = (),
        pieces: bool = False,
        waited_s: float = 0.0,
    ) -> AsyncGenerator[Event, None]:
        """Answers a query of a request that was let in, and keeps the books about its route.

        Args:
            question: what is asked.
            terms: how it may be answered.
            route: a new one, in which is kept what the query took.
            api: the interface, for the books.
            request_id: of the query.
            stop: texts before which the answer ends.
            pieces: whether the answer is wanted as it comes.
            waited_s: seconds that it has waited for others of its request.

        Raises:
            HierRouterError: as `Player.play`.
        """
        began, started = time.time_ns(), time.perf_counter()
        visit, status, first = current(), 0, 0.0
        failing = Failing(self._gauges, route)
        try:
            left = _less(terms, waited_s)
            playing = self.player.play(question, left, route, stop=stop, pieces=pieces)
            async with aclosing(playing) as events:
                async for event in events:
                    failing.note()
                    if isinstance(event, Decision):
                        failing.model = event.model
                    elif isinstance(event, Hop):
                        self._gauges.hop(event)
                    elif isinstance(event, Text) and pieces and not first:
                        first = time.perf_counter() - started
                        self._gauges.first_piece(api, first)
                    yield event
            status = 200
        except Exception as error:
            status = problem_of(error).status
            if status == 500 and visit.failure is not error:
                visit.failure = error
                log.error("request %s failed", request_id, exc_info=error)
            raise
        finally:
            status = status or _gone(visit)
            took = time.perf_counter() - started
            failing.note()
            self._gauges.route(route)
            self._log(question, route, api, request_id, status, took, first)
            if self._tracer is not None and self._tracer.wants():
                texts = (question.text, route.answer) if self._log_texts else None
                self._tracer.send(span_of(route, request_id, api, status, began, took, texts))

    def refused(self, visit: Visit, status: int) -> None:
        """Counts and logs a request that was not let in.

        Args:
            visit: the request.
            status: with which it was refused.
        """
        self._gauges.refused(visit.api, status)
        problem = visit.problem or Problem(status, "")
        told = {
            "request_id": visit.request_id,
            "api": visit.api,
            "status": status,
            "reason": problem.reason,
        }
        if self._log_texts:
            # It may quote what the request held.
            told["told"] = problem.message
        log.info("refused", extra={"told": told})

    def _log(
        self,
        question: Question,
        route: Route,
        api: str,
        request_id: str,
        status: int,
        took: float,
        first: float,
    ) -> None:
        told = request_entry(route, request_id, api, status)
        told["ms"] = round(took * 1000, 3)
        if first:
            told["first_ms"] = round(first * 1000, 3)
        if route.failures:
            told["failures"] = [failure_entry(each, self._log_texts) for each in route.failures]
        if self._log_texts:
            told["question"], told["answer"] = question.text, route.answer
        log.info("request", extra={"told": told})


def _gone(visit: Visit) -> int:
    """The status of a request that was broken off: by the server's end, or by its client."""
    return ending().status if visit.cut else CLIENT_GONE


def _less(terms: Terms, waited_s: float) -> Terms:
    """The terms of a query that has waited for others of its request: the deadline is nearer."""
    if terms.deadline_s is None or not waited_s:
        return terms
    left = terms.deadline_s - waited_s
    if left <= 0:
        raise LateError(
            f"no whole answer within the {terms.deadline_s:g} s of hierrouter.deadline_ms: the "
            "query had to wait for others of its request; allow more, or send fewer at once"
        )
    return replace(terms, deadline_s=left)

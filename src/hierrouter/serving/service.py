"""The router as a service: lets requests in, plays their routes, keeps the books."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierrouter.serving.events import Hop, Route, Text
from hierrouter.serving.knobs import presets
from hierrouter.serving.problems import OverloadedError, problem_of
from hierrouter.serving.spans import span_of
from hierrouter.serving.told import request_entry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from hierrouter.serving.calls import Question
    from hierrouter.serving.gauges import Gauges
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.player import Event, Player
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
            most: requests under way at the same time; more are refused.
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
        """Plays a route and keeps the books about it.

        Args:
            question: what is asked.
            terms: how it may be answered.
            route: a new one, in which is kept what the request took.
            api: the interface, for the books.
            request_id: of the request.
            stop: texts before which the answer ends.
            pieces: whether the answer is wanted as it comes.

        Raises:
            OverloadedError: too many requests are under way.
            HierRouterError: as `Player.play`.
        """
        if self.in_flight.count >= self._most:
            self._gauges.request(api, 429, 0.0)
            raise OverloadedError(
                f"{self._most} requests are under way, and no more are let in; ask again soon"
            )
        self.in_flight.count += 1
        began, started = time.time_ns(), time.perf_counter()
        status, first = CLIENT_GONE, 0.0
        try:
            playing = self.player.play(question, terms, route, stop=stop, pieces=pieces)
            async with aclosing(playing) as events:
                async for event in events:
                    if isinstance(event, Hop):
                        self._gauges.hop(event)
                    elif isinstance(event, Text) and pieces and not first:
                        first = time.perf_counter() - started
                        self._gauges.first_piece(api, first)
                    yield event
            status = 200
        except Exception as error:
            status = problem_of(error).status
            if status == 500:
                log.exception("request %s failed", request_id)
            raise
        finally:
            self.in_flight.count -= 1
            took = time.perf_counter() - started
            self._gauges.request(api, status, took)
            self._gauges.route(route)
            self._log(question, route, api, request_id, status, took, first)
            if self._tracer is not None and self._tracer.wants():
                texts = (question.text, route.answer) if self._log_texts else None
                self._tracer.send(span_of(route, request_id, api, status, began, took, texts))

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
            told["failures"] = route.failures
        if self._log_texts:
            told["question"], told["answer"] = question.text, route.answer
        log.info("request", extra={"told": told})

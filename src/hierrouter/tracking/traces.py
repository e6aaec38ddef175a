"""MLflow traces of served requests: a span a request, under it a span a hop."""

from __future__ import annotations

import logging
import random
from collections import deque
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from hierrouter.tracking.store import connected, resolved_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger("hierrouter.tracking")
MOST_WAITING = 1000
"""Traces that wait to be sent; the oldest are left out while MLflow is slower than that."""


@dataclass(frozen=True)
class Span:
    """A piece of work, with begin and end in nanoseconds since 1970."""

    name: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    inputs: Any = None
    outputs: Any = None
    inner: Sequence[Span] = field(default_factory=tuple)
    failed: str = ""
    """What went wrong, if something did."""


class Tracer:
    """Sends a share of the requests to MLflow, from a thread of its own."""

    def __init__(
        self, share: float, experiment: str, draw: Callable[[], float] = random.random
    ) -> None:
        """Makes sure of MLflow, and starts the thread.

        Args:
            share: of the requests, from 0 to 1.
            experiment: where the traces go.
            draw: a number in [0, 1) for each request.

        Raises:
            UnreachableError: MLflow does not answer.
            HierRouterError: it refuses.
        """
        self._share, self._draw = share, draw
        with connected() as client:
            found = client.get_experiment_by_name(experiment)
            known = found.experiment_id if found else client.create_experiment(experiment)
        self._experiment: str = known
        self._uri = resolved_uri()
        self._waiting: deque[Span] = deque(maxlen=MOST_WAITING)
        self._any, self._ended = Event(), False
        self._thread = Thread(target=self._run, daemon=True, name="traces")
        self._thread.start()

    def wants(self) -> bool:
        """Draws whether the next request becomes a trace."""
        return self._draw() < self._share

    def send(self, span: Span) -> None:
        """Takes a finished request; returns at once."""
        self._waiting.append(span)
        self._any.set()

    def close(self) -> None:
        """Sends what waits, and ends."""
        self._ended = True
        self._any.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(self._uri)
        while True:
            self._any.wait()
            self._any.clear()
            while self._waiting:
                span = self._waiting.popleft()
                try:
                    _write(span, None, self._experiment)
                except Exception as error:  # a request has been answered, whatever MLflow says
                    log.warning("a trace was not sent to MLflow (%s)", str(error)[:200])
            if self._ended:
                mlflow.flush_trace_async_logging(terminate=True)
                return


def _write(span: Span, parent: Any, experiment: str) -> None:
    import mlflow
    from mlflow.entities import SpanType

    made = mlflow.start_span_no_context(
        span.name,
        span_type=SpanType.CHAIN if parent is None else SpanType.CHAT_MODEL,
        parent_span=parent,
        inputs=span.inputs,
        attributes=span.attributes,
        # Only the first span of a trace may name it.
        experiment_id=experiment if parent is None else None,
        start_time_ns=span.began_ns,
    )
    for each in span.inner:
        _write(each, made, experiment)
    made.set_outputs(span.outputs)
    made.end(status="ERROR" if span.failed else "OK", end_time_ns=span.ended_ns)

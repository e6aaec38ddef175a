"""A finished request as the spans that MLflow is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.serving.told import hop_object, request_entry
from hierrouter.tracking.traces import Span

if TYPE_CHECKING:
    from hierrouter.serving.events import Hop, Route


def span_of(
    route: Route,
    request_id: str,
    api: str,
    status: int,
    began_ns: int,
    took_s: float,
    texts: tuple[str, str] | None,
) -> Span:
    """The span of a request, with one for each hop under it.

    Args:
        route: what the request took.
        request_id: of the request.
        api: the interface.
        status: with which it ended.
        began_ns: when, in nanoseconds since 1970.
        took_s: seconds.
        texts: question and answer, where they may be told.
    """
    return Span(
        name="hierrouter",
        began_ns=began_ns,
        ended_ns=began_ns + _ns(took_s),
        attributes=request_entry(route, request_id, api, status),
        inputs={"question": texts[0]} if texts else None,
        outputs={"answer": texts[1]} if texts else None,
        inner=[_hop(hop, began_ns, texts is not None) for hop in route.hops],
        failed="" if status == 200 else str(status),
    )


def _hop(hop: Hop, began_ns: int, with_text: bool) -> Span:
    began = began_ns + _ns(hop.started_s)
    return Span(
        name=f"{hop.decision.model} {hop.decision.role}",
        began_ns=began,
        ended_ns=began + _ns(hop.latency_s),
        attributes=hop_object(hop, replies=False),
        outputs={"reply": hop.completion.reply} if with_text else None,
    )


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)

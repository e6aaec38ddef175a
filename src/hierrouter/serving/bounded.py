"""uvicorn's HTTP protocol with a bound on what comes before a body.

Its parser has none, and a request's headers are read before any key is looked at.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hierrouter.serving.visits import Visit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MOST_HEAD = 65_536
"""Bytes of request line and headers, and what the network hands over at once."""
HEAD_S = 60.0
"""Seconds from a connection's begin, or from the first byte after an answer, to whole headers."""
REFUSAL = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\n"
    "content-length: 0\r\nconnection: close\r\nx-request-id: {}\r\n\r\n"
)


class BoundedHeads(HttpToolsProtocol):
    """Answers 431 where the headers do not end."""

    def __init__(self, *given: Any, refused: Callable[[Visit, int], None], **settings: Any) -> None:
        """As uvicorn makes it; `refused` is told of what never becomes a request."""
        super().__init__(*given, **settings)
        self._refused = refused
        self._head: int | None = 0
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client is there; uvicorn itself looks after idle connections after a response only."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what came; nothing more once the headers are too long."""
        if self._head is not None:
            if self._head > MOST_HEAD:
                return
            self._head += len(data)
        # Any byte ends uvicorn's own timer, whether it begins a request or not.
        if self._waiting is None and self.cycle is not None and self.cycle.response_complete:
            self._wait()
        super().data_received(data)
        if self._head is not None and self._head > MOST_HEAD:
            visit = Visit(uuid.uuid4().hex)
            self.transport.write(REFUSAL.format(visit.request_id).encode())
            self.transport.close()
            self._refused(visit, 431)

    def on_message_begin(self) -> None:
        """Another request has begun."""
        self._head = self._head or 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """What follows is its body, whose length and pace the gate looks after."""
        self._head = None
        self._wait_no_longer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What follows is another request."""
        self._head = 0
        super().on_message_complete()

    def _wait(self) -> None:
        """Closes the connection unless headers are complete in time."""
        self._waiting = self.loop.call_later(HEAD_S, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        super().send_400_response(msg)
        self._refused(Visit(uuid.uuid4().hex), 400)

"""uvicorn's HTTP protocol with a bound on what comes before a body.

Its parser has none, and a request's headers are read before any key is looked at.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 65_536
"""Bytes of request line and headers, and what the network hands over at once."""
REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class BoundedHeads(HttpToolsProtocol):
    """Answers 431 where the headers do not end."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*given, **settings)
        self._head: int | None = 0

    def data_received(self, data: bytes) -> None:
        """Takes what came; nothing more once the headers are too long."""
        if self._head is not None:
            if self._head > MOST_HEAD:
                return
            self._head += len(data)
        super().data_received(data)
        if self._head is not None and self._head > MOST_HEAD:
            self.transport.write(REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Another request has begun."""
        self._head = self._head or 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """What follows is its body, whose length the gate looks after."""
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What follows is another request."""
        self._head = 0
        super().on_message_complete()

"""Clients that begin a request and never end it: they hold no connection, also without a key."""

from __future__ import annotations

import asyncio
from unittest.mock import MagicMock

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from hierrouter.serving import gate
from hierrouter.serving.bounded import HEAD_S, BoundedHeads
from hierrouter.serving.gate import Gate, Rules

WHOLE = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Clock:
    """A loop that keeps its timers and runs nothing."""

    def __init__(self) -> None:
        self.timers: list[MagicMock] = []

    def call_later(self, seconds, call):
        self.timers.append(MagicMock(seconds=seconds, call=call))
        return self.timers[-1]

    def create_task(self, coroutine, **_):
        coroutine.close()
        return MagicMock()

    def pending(self, seconds=HEAD_S):
        return [
            timer for timer in self.timers if timer.seconds == seconds and not timer.cancel.called
        ]


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nhost: loc", b"\r\n"])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_headers_have_to_be_whole_in_time_whichever_request_it_is(begun, before) -> None:
    clock, transport = Clock(), MagicMock()
    transport.is_closing.return_value = False
    config = Config(MagicMock(), timeout_keep_alive=5, log_config=None)
    protocol = BoundedHeads(
        config, ServerState(), {}, _loop=clock, refused=lambda visit, status: None
    )
    protocol.connection_made(transport)
    for _ in range(before):
        protocol.data_received(WHOLE)
        # A model may take as long as it takes, whatever comes meanwhile.
        protocol.data_received(b"\r\n")
        assert not clock.pending()
        protocol.cycle.response_complete = True
        protocol.on_response_complete()
        assert not clock.pending()  # idle, which is uvicorn's to end
        assert clock.pending(5)
    for byte in begun:
        protocol.data_received(bytes([byte]))
    (timer,) = clock.pending()
    transport.close.assert_not_called()
    timer.call()
    transport.close.assert_called_once_with()
    protocol.connection_lost(None)
    assert not clock.pending()


@pytest.mark.parametrize(("whole", "status"), [(True, 200), (False, 408)])
def test_a_body_has_to_be_whole_in_time_and_its_answer_has_not(monkeypatch, whole, status) -> None:
    monkeypatch.setattr(gate, "BODY_S", 0)
    refused, sent = [], []

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200})

    async def run() -> None:
        parts = [{"type": "http.request", "body": b"{", "more_body": not whole}]

        async def receive():
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        rules = Rules(keys=None, most_bytes=1000, only_loopback=False)
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/openai/v1/chat/completions",
            "headers": [(b"content-type", b"application/json")],
        }
        standing = Gate(app, rules, lambda visit, status: refused.append(status))
        await asyncio.wait_for(standing(scope, receive, send), 60)

    asyncio.run(run())
    assert sent[0]["status"] == status
    assert refused == ([] if whole else [408])

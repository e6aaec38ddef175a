"""A model server that costs next to nothing: what stands behind the servers that are measured.

    python benchmarks/_stub.py [--gap-ms 0]

It says its port, then answers OpenAI's chat completions, plain and streamed, with `PIECES` words
that are a hash of the question: the first line of the last message. So whoever asks knows what has
to come back. Each word of a stream is an event and a write of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import httptools
import orjson
import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = 40
HEAD = {"id": "chatcmpl-stub", "created": 1, "model": "stub"}
USAGE = {"prompt_tokens": 20, "completion_tokens": PIECES, "total_tokens": 20 + PIECES}


def words_for(question: str) -> list[str]:
    """The pieces of the reply to a question; all but the first begin with a space."""
    digest = hashlib.sha512(question.encode()).hexdigest()
    return [(" " if at else "") + digest[3 * at : 3 * at + 4] for at in range(PIECES)]


@lru_cache(maxsize=256)
def plain_answer(question: str) -> bytes:
    """Head and body of an answer in one."""
    message = {"role": "assistant", "content": "".join(words_for(question))}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = orjson.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
        + str(len(body)).encode()
        + b"\r\n\r\n"
        + body
    )


@lru_cache(maxsize=256)
def streamed_answer(question: str) -> tuple[bytes, ...]:
    """The writes of a stream, in chunked encoding."""
    head = {**HEAD, "object": "chat.completion.chunk"}

    def event(data: bytes) -> bytes:
        text = b"data: " + data + b"\n\n"
        return f"{len(text):x}\r\n".encode() + text + b"\r\n"

    def piece(delta: dict[str, str], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event(orjson.dumps({**head, "choices": [choice]}))

    last = event(orjson.dumps({**head, "choices": [], "usage": USAGE}))
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + piece({"role": "assistant", "content": ""}, None),
        *(piece({"content": word}, None) for word in words_for(question)),
        piece({}, "stop"),
        last + event(b"[DONE]") + b"0\r\n\r\n",
    )


class Connection(asyncio.Protocol):
    """One connection, kept open."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"POST":
            # LiteLLM asks whether the server is a certain other kind of server.
            if self._transport is not None:
                self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        asked = orjson.loads(b"".join(self._body))
        self._body.clear()
        content = asked["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        question = text.partition("\n")[0]
        if asked.get("stream"):
            self._next(iter(streamed_answer(question)))
        elif self._transport is not None:
            self._transport.write(plain_answer(question))

    def _next(self, writes: Iterator[bytes]) -> None:
        if self._transport is None or (data := next(writes, None)) is None:
            return
        self._transport.write(data)
        loop = asyncio.get_running_loop()
        if self._gap_s:
            loop.call_later(self._gap_s, self._next, writes)
        else:
            loop.call_soon(self._next, writes)


async def serve(gap_s: float) -> None:
    """Serves until it is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(gap_s), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between two words (0)")
    uvloop.run(serve(parser.parse_args().gap_ms / 1000))

"""Clients that ask a server side by side, and look at every answer; a process of its own.

    echo '{"port": 8080, "path": "/openai/v1/chat/completions", …}' | python benchmarks/_load.py

Reads what to do as JSON from its input (`Load`), and writes what came of it as JSON (`Seen`). Each
client asks again as soon as it has its answer, over one connection. Answers are those of
`_stub.py`, or of any server where `check` is off.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import httptools
import orjson
import uvloop
from _stub import words_for

CONTENT = re.compile(rb'"content":\s*"((?:[^"\\]|\\.)*)"')
SAID = re.compile(rb'"content":\s*"[^"]')
TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
WAIT_S = 120.0


@dataclass
class Load:
    """What to ask."""

    port: int
    path: str
    body: dict[str, Any]
    """Of every request, but for the messages."""
    concurrency: int
    requests: int = 0
    """In all; 0: as many as fit into `seconds`."""
    seconds: float = 0.0
    questions: list[str] = field(default_factory=list)
    """Asked over and over; none: every request has a question of its own."""
    check: bool = True
    """Whether every answer must be the stub's."""


@dataclass
class Seen:
    """What came of it; seconds."""

    took: list[float] = field(default_factory=list)
    """Of each request that went well."""
    first: list[float] = field(default_factory=list)
    """Until its first text, of streams."""
    tokens: int = 0
    """New tokens, as the answers tell them."""
    problems: dict[str, int] = field(default_factory=dict)
    wall: float = 0.0
    processor: float = 0.0
    """Of this process, while it asked."""


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._parser: Any = None
        self.body = bytearray()
        self.status = 0
        self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(error or ConnectionResetError("closed before its end"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.body += data
        if not self.first and SAID.search(self.body):
            self.first = time.perf_counter()

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def ask(self, request: bytes) -> None:
        """Sends a request, and waits for the whole answer."""
        if self._transport is None:
            raise ConnectionResetError("closed")
        self._parser = httptools.HttpResponseParser(self)
        self.body.clear()
        self.first = 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(WAIT_S):
            await self._done


async def ask_all(load: Load) -> Seen:
    """Does what is asked."""
    seen, problems = Seen(), Counter[str]()
    loop = asyncio.get_running_loop()
    ends = time.perf_counter() + load.seconds
    sent = 0

    async def one() -> None:
        nonlocal sent
        client: Client | None = None
        while sent < load.requests if load.requests else time.perf_counter() < ends:
            number, sent = sent, sent + 1
            given = load.questions
            question = given[number % len(given)] if given else f"Question {number:08d}: why?"
            request = _request(load, question)
            began = time.perf_counter()
            try:
                if client is None:
                    _, client = await loop.create_connection(Client, "127.0.0.1", load.port)
                await client.ask(request)
            except (OSError, TimeoutError, httptools.HttpParserError) as error:
                problems[f"{type(error).__name__}: {error}"] += 1
                client = None
                continue
            took = time.perf_counter() - began
            if problem := _problem(load, client, question):
                problems[problem] += 1
                continue
            seen.took.append(took)
            if load.body.get("stream"):
                seen.first.append(client.first - began)
            if counts := TOKENS.findall(client.body):
                seen.tokens += int(counts[-1])

    wall, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(load.concurrency)))
    seen.wall, seen.processor = time.perf_counter() - wall, time.process_time() - processor
    seen.problems = dict(problems)
    return seen


def _request(load: Load, question: str) -> bytes:
    body = orjson.dumps({**load.body, "messages": [{"role": "user", "content": question}]})
    return (
        f"POST {load.path} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def _problem(load: Load, client: Client, question: str) -> str:
    """What is wrong with an answer."""
    if client.status != 200:
        return f"status {client.status}: {bytes(client.body[:200])!r}"
    if load.body.get("stream") and not client.body.endswith(b"data: [DONE]\n\n"):
        return f"a stream ends with {bytes(client.body[-80:])!r}"
    if load.check:
        said = b"".join(CONTENT.findall(client.body)).decode()
        if said != "".join(words_for(question)):
            return f"wrong content, {said[:80]!r}"
    return ""


def run_load(load: Load) -> Seen:
    """Lets a process of its own do it."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        input=orjson.dumps(asdict(load)),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Seen(**orjson.loads(done.stdout))


if __name__ == "__main__":
    found = uvloop.run(ask_all(Load(**orjson.loads(sys.stdin.buffer.read()))))
    # Where Python does not buffer, a long write may end half-way.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(orjson.dumps(asdict(found)))

"""The gate before every route: keys, sizes, what is refused outright, and clients that go away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from hierrouter.serving.problems import INVALID, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready", "/metrics", "/playground"})
"""What is answered without a key: health, numbers, and a page that holds nothing by itself."""
REFUSED = "/v2/repository"
"""KServe's routes that load and unload models: the router is what the server was started with."""
FORMS = frozenset(
    {b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"}
)
"""What a browser sends for any web page without asking the server first."""
READ_WITHIN_S = 60.0
"""A client that reads nothing for so long is taken for gone."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Rules:
    """What the gate lets through."""

    keys: Callable[[], list[bytes]] | None
    """The SHA-256 digests of the keys in force; none: no key is asked for."""
    most_bytes: int
    """The longest body."""
    only_loopback: bool
    """Whether requests must name this machine by a loopback name: without keys, a web page could
    otherwise reach the server by a name that it makes point here."""


class Gate:
    """ASGI middleware."""

    def __init__(self, app: App, rules: Rules) -> None:
        """Stands before `app`."""
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        others = [pair for pair in scope["headers"] if pair[0] != b"x-request-id"]
        scope["headers"] = [*others, (b"x-request-id", request_id.encode())]
        if (problem := self._problem(scope, headers)) is not None:
            await _refuse(send, problem, request_id)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                pairs = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": pairs}
            await send(message)

        if scope["method"] == "POST":
            await self._attended(scope, receive, send, request_id)
        else:
            await self._app(scope, receive, named)

    def _problem(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
        """Why a request is not let through."""
        rules, path = self._rules, scope["path"]
        if rules.only_loopback:
            host = headers.get(b"host", b"").decode("latin-1")
            name = re.sub(r":\d*$", "", host).lower()
            if name not in LOOPBACK:
                return Problem(403, f"this server is asked as localhost only, not as {name[:80]!r}")
        keys = None if rules.keys is None or path in OPEN else rules.keys()
        if keys is not None and not _known(headers.get(b"authorization", b""), keys):
            text = "a valid key is missing; send it as `Authorization: Bearer KEY`"
            again = {"www-authenticate": "Bearer"}
            return Problem(401, text, INVALID, "invalid_api_key", headers=again)
        if path.startswith(REFUSED):
            return Problem(403, "loading and unloading are off: start another server instead")
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind in FORMS:
                shown = kind.decode("latin-1") or "missing"
                text = f"content-type is {shown}; send application/json"
                return Problem(415, text, parameter="content-type")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > rules.most_bytes:
            return _too_long(rules.most_bytes)
        return None

    async def _attended(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Runs a request for as long as its client is there and its body is not too long."""
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        begun = False

        loop = asyncio.get_running_loop()
        sending = 0.0

        async def watching(message: Message) -> None:
            nonlocal begun, sending
            if not begun:
                begun = True
                pairs = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": pairs}
            sending = loop.time()
            await send(message)
            sending = 0.0

        async def watch() -> Problem | None:
            length = 0
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                length += len(message.get("body", b""))
                if length > self._rules.most_bytes:
                    return _too_long(self._rules.most_bytes)
                arrived.put_nowait(message)

        work = asyncio.ensure_future(self._app(scope, arrived.get, watching))
        watcher = asyncio.ensure_future(watch())
        try:
            ended = False
            while not ended:
                both, first = {work, watcher}, asyncio.FIRST_COMPLETED
                done, _ = await asyncio.wait(both, timeout=READ_WITHIN_S, return_when=first)
                # Sending blocks while the client reads nothing; one that never reads is gone. (A
                # time-out for every message would cost more than the message.)
                ended = bool(done) or 0 < sending <= loop.time() - READ_WITHIN_S
            if not work.done():
                problem = watcher.result() if watcher.done() else None
                work.cancel()
                await asyncio.wait({work})
                if problem is not None and not begun:
                    await _refuse(send, problem, request_id)
            if not work.cancelled():
                work.result()
        finally:
            for task in (work, watcher):
                task.cancel()
            await asyncio.gather(work, watcher, return_exceptions=True)


def digest(key: str) -> bytes:
    """What of a key is kept and compared."""
    return hashlib.sha256(key.encode()).digest()


def _known(authorization: bytes, keys: list[bytes]) -> bool:
    """Whether a header holds one of the keys; takes as long for a wrong one as for a right one."""
    scheme, _, given = authorization.partition(b" ")
    presented = hashlib.sha256(given.strip()).digest()
    found = False
    for key in keys:
        found |= hmac.compare_digest(presented, key)
    return found and scheme.lower() == b"bearer"


def _too_long(most: int) -> Problem:
    return Problem(413, f"the body is longer than {most:,} bytes", INVALID, "request_too_large")


async def _refuse(send: Send, problem: Problem, request_id: str) -> None:
    body = orjson.dumps(problem.body())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        # What is left of the body is not read.
        "connection": "close",
        **problem.headers,
    }
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})

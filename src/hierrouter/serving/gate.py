"""The gate before every route: keys, sizes, what is refused outright, and clients that go away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from hierrouter.serving.problems import INVALID, Problem, ending, problem_of
from hierrouter.serving.visits import Visit, begin, interface

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("hierrouter.serving")
OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready", "/metrics", "/playground"})
"""What is answered without a key: health, numbers, and a page that holds nothing by itself."""
REFUSED = "/v2/repository"
"""KServe's routes that load and unload models: the router is what the server was started with."""
FORMS = frozenset(
    {b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"}
)
"""What a browser sends for any web page without asking the server first."""
BODY_S = 60.0
"""Seconds in which a body has to be whole."""
READ_WITHIN_S = 60.0
"""A client that reads nothing for so long is taken for gone."""
LAST_WORDS_S = 2.0
"""For the end of a stream that is cut because the server ends."""
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

    def __init__(self, app: App, rules: Rules, refused: Callable[[Visit, int], None]) -> None:
        """Stands before `app`.

        Args:
            app: answers.
            rules: of what is let through.
            refused: is told of each request that ends in a failure, and was not let in further on.
        """
        self._app, self._rules, self._refused = app, rules, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        visit = Visit(request_id, interface(scope["path"]))
        begin(visit)
        scope.setdefault("state", {})["request_id"] = request_id
        others = [pair for pair in scope["headers"] if pair[0] != b"x-request-id"]
        scope["headers"] = [*others, (b"x-request-id", request_id.encode())]
        if (problem := self._problem(scope, headers)) is not None:
            await self._refuse(send, problem, visit)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                # Probes ask over and over whether the server is ready.
                if not (visit.status == 503 and scope["path"] in OPEN):
                    self._note(visit)
                pairs = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": pairs}
            await send(message)

        try:
            if scope["method"] == "POST":
                await self._attended(scope, receive, send, named, visit)
            else:
                await self._app(scope, receive, named)
        except Exception as error:
            # The server would log it with what the request held.
            if visit.failure is not error:
                log.error("request %s failed", request_id, exc_info=error)
            if not visit.status:
                await self._refuse(send, problem_of(error), visit)

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

    async def _attended(
        self, scope: Scope, receive: Receive, send: Send, named: Send, visit: Visit
    ) -> None:
        """Runs a request for as long as its client is there, and its body short and fast enough."""
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        sending = 0.0

        async def watching(message: Message) -> None:
            nonlocal sending
            sending = loop.time()
            await (send if visit.status else named)(message)
            sending = 0.0

        async def watch() -> Problem | None:
            length = 0
            try:
                async with asyncio.timeout(BODY_S) as until_whole:
                    while True:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            return None
                        length += len(message.get("body", b""))
                        if length > self._rules.most_bytes:
                            return _too_long(self._rules.most_bytes)
                        arrived.put_nowait(message)
                        if not message.get("more_body"):
                            until_whole.reschedule(None)
            except TimeoutError:
                return Problem(408, f"the body was not whole within {BODY_S:g} s; send it faster")

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
                if problem is not None and not visit.status:
                    await self._refuse(send, problem, visit)
            if not work.cancelled():
                work.result()
        except asyncio.CancelledError:
            # The server ends, and gives nobody more time; what is under way may say so.
            visit.cut = True
            work.cancel()
            await asyncio.wait({work}, timeout=LAST_WORDS_S)
            if not visit.status:
                await self._refuse(send, ending(), visit)
        finally:
            for task in (work, watcher):
                task.cancel()
            await asyncio.gather(work, watcher, return_exceptions=True)

    def _note(self, visit: Visit) -> None:
        """Before the client knows it, so that whoever looks then finds it in the books."""
        if visit.status >= 400 and not visit.admitted:
            self._refused(visit, visit.status)

    async def _refuse(self, send: Send, problem: Problem, visit: Visit) -> None:
        visit.problem, visit.status = problem, problem.status
        self._note(visit)
        body = orjson.dumps(problem.body(visit.api))
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-request-id": visit.request_id,
            # What is left of the body is not read.
            "connection": "close",
            **problem.headers,
        }
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


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

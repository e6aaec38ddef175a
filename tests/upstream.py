"""An OpenAI-compatible server in a thread, which can also fail in every way that servers do."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

DEFAULT = "one two three four"
NO_LOGPROBS: tuple[Any, ...] = (
    None,
    {"content": None},
    {"tokens": ["a"], "token_logprobs": [-1.0]},
    *({"content": [{"token": "a", "logprob": odd}]} for odd in (None, "-1", 5.0, -math.inf)),
)
"""What servers tell that hold no log-probabilities, or none that can be."""


class Upstream:
    """Answers `reply` for each model as it is told to behave.

    Behaviours: `ok`, `refuse` (500), `busy` (429 with Retry-After 1), `long` (400), `foreign`
    (404), `garbage`, `hang` (until `release`), `cut` (half a stream, then the connection ends),
    `error` (half a stream, then an error event), `uncounted` (no usage), `endless`
    (a stream that goes on until its client goes away), `login` (a web page), `stall` (headers and
    half an answer, then nothing), `gateway` (504), `newer` (wants `max_completion_tokens`),
    `quoting` (400, naming model and question), `wide` (20 MB in few pieces), `filtered` (ends by
    `content_filter`), `shy` (400 where log-probabilities are wanted).
    """

    def __init__(self) -> None:
        self.behaviour: dict[str, str] = {}
        self.reply: dict[str, str] = {}
        self.count = ""
        """JSON in place of the number of new tokens."""
        self.logprobs: Any = ...
        """What is told as such, where it is wanted, in place of -0.1, -0.2, … for the words."""
        self.asked: list[dict[str, Any]] = []
        """Bodies of the calls that came in."""
        self.given_up = threading.Semaphore(0)
        """Released once for each call whose client went away."""
        self.under_way = threading.Semaphore(0)
        """Released once for each call that has begun to hang or to stream."""
        self.headers: list[dict[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._release = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def release(self) -> None:
        """Lets calls that hang go on."""
        self._loop.call_soon_threadsafe(self._release.set)

    async def _start(self) -> int:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        address: tuple[str, int] = self._runner.addresses[0]
        return address[1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        model = body["model"]
        behaviour = self.behaviour.get(model, "ok")
        try:
            return await self._behave(request, body, behaviour)
        except asyncio.CancelledError:
            self.given_up.release()
            raise

    async def _behave(
        self, request: web.Request, body: dict[str, Any], behaviour: str
    ) -> web.StreamResponse:
        if behaviour == "refuse":
            return web.json_response({"error": {"message": "broken inside"}}, status=500)
        if behaviour == "gateway":
            return web.Response(text="the model took too long", status=504)
        if behaviour == "newer" and "max_tokens" in body:
            said = "'max_tokens' is not supported; use 'max_completion_tokens' instead."
            return web.json_response({"error": {"message": said}}, status=400)
        if behaviour == "shy" and "logprobs" in body:
            return web.json_response({"detail": "Unexpected fields: {'logprobs'}"}, status=400)
        if behaviour == "quoting":
            said = f"{body['model']}: cannot take {body['messages'][-1]['content']}"
            return web.json_response({"error": {"message": said}}, status=400)
        if behaviour == "busy":
            headers = {"Retry-After": "1"}
            return web.json_response({"error": "later"}, status=429, headers=headers)
        if behaviour == "long":
            return web.json_response({"error": {"message": "too long"}}, status=400)
        if behaviour == "foreign":
            return web.json_response({"detail": "Not Found"}, status=404)
        if behaviour == "garbage":
            return web.Response(text="<html>not json", content_type="application/json")
        if behaviour == "login":
            return web.Response(text="<html>log in</html>", content_type="text/html")
        if behaviour == "hang":
            self.under_way.release()
            await self._release.wait()
        reply = self.reply.get(body["model"], DEFAULT)
        words = reply.split(" ")[: body.get("max_tokens", 1000)]
        usage = {
            "prompt_tokens": sum(len(m["content"].split()) for m in body["messages"]),
            "completion_tokens": len(words),
        }
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"message": message, "finish_reason": end_of(behaviour)}
            if body.get("logprobs"):
                choice["logprobs"] = self._logprobs(range(len(words)))
            answer = {"choices": [choice], "usage": usage}
            if behaviour == "uncounted":
                del answer["usage"]
            return self._json(answer)
        return await self._stream(request, words, usage, behaviour, bool(body.get("logprobs")))

    def _logprobs(self, numbers: Iterable[int]) -> Any:
        if self.logprobs is not ...:
            return self.logprobs
        return {"content": [{"token": "…", "logprob": -0.1 * (each + 1)} for each in numbers]}

    def _dumps(self, value: Any) -> str:
        text = json.dumps(value)
        if self.count:
            text = re.sub(r'("completion_tokens": )\d+', rf"\g<1>{self.count}", text)
        return text

    def _json(self, value: Any) -> web.Response:
        return web.Response(text=self._dumps(value), content_type="application/json")

    async def _stream(
        self,
        request: web.Request,
        words: list[str],
        usage: dict[str, int],
        behaviour: str,
        logprobs: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(event: Any) -> None:
            text = event if isinstance(event, str) else self._dumps(event)
            await response.write(f"data: {text}\n\n".encode())

        def piece(text: str, reason: str | None = None) -> dict[str, Any]:
            return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}

        await response.write(b": a comment\n\n")
        if behaviour == "endless":
            self.under_way.release()
            while True:
                await send(piece("again "))
                await asyncio.sleep(0.01)
        if behaviour == "wide":
            for _ in range(40):
                await send(piece("x" * 2**19))
        half = len(words) // 2
        for number, word in enumerate(words):
            if number == half and behaviour in ("cut", "error", "stall"):
                if behaviour == "error":
                    await send({"error": {"message": "out of memory", "code": 500}})
                if behaviour == "stall":
                    self.under_way.release()
                    await self._release.wait()
                if behaviour == "cut" and request.transport is not None:
                    request.transport.close()
                return response
            said = piece(word if number == 0 else f" {word}")
            if logprobs:
                said["choices"][0]["logprobs"] = self._logprobs([number])
            await send(said)
        await send(piece("", end_of(behaviour)))
        if behaviour != "uncounted":
            await send({"choices": [], "usage": usage})
        await send("[DONE]")
        return response


def end_of(behaviour: str) -> str:
    """The `finish_reason` of a reply that came to its end, or to that of a filter."""
    return "content_filter" if behaviour == "filtered" else "stop"

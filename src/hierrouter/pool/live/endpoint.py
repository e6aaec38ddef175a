"""A model behind an OpenAI-compatible server, live: pooled connections, and no client between.

The openai package takes several times the processor time of the call itself, which is what a
server that only passes text on is made of; so this path speaks HTTP through aiohttp.
"""

from __future__ import annotations

import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import Prompt
from hierrouter.pool.live.endpoint_reply import Reply, json_of
from hierrouter.pool.openai_answer import ENDS, UNREADABLE, certainty
from hierrouter.pool.openai_backend import estimated_tokens
from hierrouter.pool.openai_line import CONNECT_S
from hierrouter.pool.openai_settings import Settings
from hierrouter.pool.openai_words import Words
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    import aiohttp

    from hierrouter.config import ModelSpec
    from hierrouter.pool.live.backend import Turn

TEMPLATE_TOKENS = 256
"""Most tokens that a server's chat template is taken to add to a turn."""
BEYOND = 16
"""Pieces more than tokens were asked for, beyond which a server is taken to go on for ever."""
ABSURD = 1000
"""A server that counts so many times what a call can take does not count."""
LONGEST_LINE = 1 << 20
"""Bytes of one event, beyond which it is no chat completion."""
LONGEST_ANSWER = 16 << 20
"""Bytes of a whole answer, beyond which it is no chat completion."""
LONGEST_WAIT_S = 120.0
"""The longest Retry-After that is believed."""


class EndpointLive:
    """Asks one server for many callers."""

    name, device, dtype = "openai", "endpoint", "unknown"
    tokenizes = False

    def __init__(self, spec: ModelSpec, logprobs: bool = False) -> None:
        """Connects to nothing yet.

        Args:
            spec: a model with an `endpoint`.
            logprobs: whether the log-probabilities of its replies are looked at.
        """
        if spec.endpoint is None:
            raise HierRouterError(f"model {spec.name} has no endpoint")
        self._endpoint = spec.endpoint
        self._words = Words(spec, spec.endpoint)
        self.concurrency = spec.endpoint.concurrency
        self._url = spec.endpoint.url.rstrip("/") + "/chat/completions"
        self._session: aiohttp.ClientSession | None = None
        self._settings = Settings(logprobs)
        self._missed = logprobs
        self._uncounted = False
        self._beyond = 0

    async def start(self) -> None:
        """Opens the pool of connections; the server is asked when there is something to ask."""
        if self._session is not None:
            return
        import aiohttp

        key = self._words.key()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.concurrency, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(
                total=self._endpoint.timeout_s, sock_connect=CONNECT_S, sock_read=None
            ),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auto_decompress=True,
            read_bufsize=LONGEST_LINE,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy_for(self._url),
        )

    def count_tokens(self, text: str) -> int:
        """A cautious estimate, the same by which recording cuts long contexts."""
        return estimated_tokens(text)

    def prepare(self, turns: Sequence[Turn]) -> Prompt:
        """The conversation itself: the server applies the chat template.

        No tokenizer that can read every text has a token shorter than a byte, so bytes bound what
        the server will count.
        """
        most = sum(TEMPLATE_TOKENS + len(turn.text.encode("utf-8", "replace")) for turn in turns)
        return Prompt(tuple(turns), most + self._beyond, beyond=self._beyond)

    def require_window(self, prompt: Prompt, limit: int) -> None:
        """The server knows its window, and refuses what does not fit."""

    async def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        """One greedy reply of the server (see `LiveBackend`)."""
        body = self._body(prompt, limit, stop)
        started = time.perf_counter()
        if not pieces:
            async with self._posted(body) as response:
                reply = self._whole(await self._read(response))
                yield self._completed(reply, prompt, limit, time.perf_counter() - started)
            return
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        reply = Reply(limit + BEYOND)
        async with self._posted(body) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                reply = self._whole(await self._read(response))
                completion = self._completed(reply, prompt, limit, time.perf_counter() - started)
                yield completion.reply
                yield completion
                return
            # What came together is passed on together: the more a server has to do, the less each
            # piece costs it.
            async for events in self._events(response):
                text = ""
                for event in events:
                    try:
                        text += reply.take(event)
                    except UNREADABLE:
                        reply.broken = self._words.garbage(str(event), "chat completion")
                    if reply.failure:
                        reply.broken = self._broken_off(reply)
                    if reply.broken:
                        break
                if text:
                    yield text
                if reply.broken:
                    raise reply.broken
        if not reply.finish_reason:
            raise UnreachableError(f"{self._words.at} cut a reply off before its end")
        yield self._completed(reply, prompt, limit, time.perf_counter() - started)

    async def slow(self) -> None:
        """Nothing here to start anew."""

    async def close(self) -> None:
        """Closes the connections; calls under way are given up."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _body(self, prompt: Prompt, limit: int, stop: Sequence[str]) -> dict[str, Any]:
        return {
            "model": self._words.served,
            "messages": [{"role": turn.speaker, "content": turn.text} for turn in prompt.turns],
            "temperature": 0,
            **self._settings.of(limit),
            # More than four are refused by most; whoever reads the reply heeds them all.
            **({"stop": list(stop[:4])} if stop else {}),
        }

    @asynccontextmanager
    async def _posted(self, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The server's answer to a call, its status looked at; failures in our own words."""
        import aiohttp

        if self._session is None:
            raise HierRouterError(f"{self._words.at} is not started")
        try:
            while True:
                asking = self._session.post(self._url, json=body, allow_redirects=False)
                async with asking as response:
                    if response.status == 200:
                        self._settings.keep(body)
                        yield response
                        return
                    said = (await response.content.read(4096)).decode("utf-8", "replace")
                    unfit = response.status in (400, 422)
                    if not (unfit and self._settings.mend(body, said)):
                        raise self._refusal(response, said)
        except TimeoutError as error:
            raise UnreachableError(
                f"{self._words.at} gave no answer within {self._endpoint.timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            failure = UnreachableError(f"{self._words.at} does not answer ({reason})")
            failure.unpaid = isinstance(error, aiohttp.ClientConnectorError)
            raise failure from error

    def _refusal(self, response: aiohttp.ClientResponse, said: str) -> HierRouterError:
        line = f"{self._words.at} refused the call ({response.status}: {self._words.quoted(said)})"
        status, refusal = response.status, HierRouterError(line)
        if status in (408, 409, 429) or status >= 500:
            refusal = UnreachableError(line, retry_after_s=_seconds(response.headers))
        elif status in (400, 413, 422):
            # Whatever it says: what it says may quote the question.
            refusal = RefusedError(line)
        refusal.refused_with = status
        # Behind a gateway that lost patience a model may have worked to the end.
        refusal.unpaid = (status < 500 and status != 408) or status == 503
        return refusal

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """A whole answer, of bounded length."""
        parts, length = [], 0
        async for part in response.content.iter_any():
            parts.append(part)
            length += len(part)
            if length > LONGEST_ANSWER:
                raise self._words.garbage("too long", "chat completion")
        return b"".join(parts)

    async def _events(
        self, response: aiohttp.ClientResponse
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """The data of server-sent events until [DONE] or the end, as many as came together."""
        rest, length = b"", 0
        async for data in response.content.iter_any():
            length += len(data)
            if length > LONGEST_ANSWER:
                raise self._words.garbage("too long", "chat completion")
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise self._words.garbage("a line without end", "chat completion")
            events, done = self._parsed(lines)
            if events:
                yield events
            if done:
                return
        events, _ = self._parsed([rest])
        if events:
            yield events

    def _parsed(self, lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], bool]:
        """The events of some lines, and whether [DONE] was among them."""
        events: list[dict[str, Any]] = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue  # comments that keep a connection open, names of events, blank lines
            data = line[5:].strip()
            if not data:
                continue
            if data == b"[DONE]":
                return events, True
            try:
                event = json_of(data)
            except ValueError as error:
                shown = data.decode("utf-8", "replace")
                raise self._words.garbage(shown, "chat completion") from error
            if isinstance(event, dict):
                events.append(event)
        return events, False

    def _whole(self, answer: bytes) -> Reply:
        """A reply that came in one piece."""
        reply = Reply(1)
        try:
            reply.take_whole(json_of(answer))
        except UNREADABLE as error:
            shown = answer[:500].decode("utf-8", "replace")
            raise self._words.garbage(shown, "chat completion") from error
        if reply.failure:
            raise self._broken_off(reply)
        return reply

    def _broken_off(self, reply: Reply) -> HierRouterError:
        return UnreachableError(f"{self._words.at} broke a reply off ({reply.failure[:120]})")

    def _completed(self, reply: Reply, prompt: Prompt, limit: int, took: float) -> Completion:
        """What came of a call; where the server did not count, what it can have counted at most."""
        if reply.usage is None and not self._uncounted:
            self._uncounted = True
            say(
                f"{self._words.at} answers without `usage`: such answers cost their upper bounds; "
                "let the server report it (of streams: stream_options.include_usage)"
            )
        tokens_in, tokens_out = reply.usage or (prompt.tokens_in, limit)
        text, (mean, least) = "".join(reply.texts).strip(), certainty(reply.logprobs)
        if self._missed and text and math.isnan(mean):
            self._missed = False
            say(
                f"{self._words.at} tells no log-probabilities: a router that was trained with them "
                "judges its answers by less; let it tell them (`logprobs`), or record and train "
                "with it as it is"
            )
        completion = Completion(
            reply=text,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            finish_reason=ENDS.get(reply.finish_reason, "stop"),
            latency_s=took,
            logprob_mean=mean,
            logprob_min=least,
        )
        return self._within(completion, prompt, limit)

    def _within(self, completion: Completion, prompt: Prompt, limit: int) -> Completion:
        """A completion; one that counts more than it can have needed widens the bounds to come."""
        counted, most = completion.tokens_in + completion.tokens_out, prompt.tokens_in + limit
        if counted > ABSURD * most:
            raise self._words.garbage(f"usage of {counted} tokens", "chat completion")
        # Of many calls at once each was bounded by what was known when it was made.
        if (beyond := prompt.beyond + counted - most) > max(self._beyond, prompt.beyond):
            self._beyond = beyond
            say(
                f"{self._words.at} counted {counted} tokens where at most {most} were expected: it "
                "puts more before a prompt, or writes more than it was asked for; costs are "
                "bounded accordingly from now on"
            )
        return completion


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address; aiohttp would look for each call."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def _seconds(headers: Any) -> float | None:
    """Retry-After, where it is a number of seconds."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT_S) if math.isfinite(seconds) else None

"""The openai client on an event loop in a thread of its own.

Any thread may ask, all share one bound on the calls under way, and a call that is given up ends at
once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from hierrouter.config import Endpoint

CONNECT_S = 10.0
"""Seconds until a machine that is not there is given up; a reply may take much longer."""
SLOW_RETRIES = 6
"""Most retries of tries that may be paid for: they take too long, or their answer is of no use."""
PASSING = (408, 409, 429)
"""Answers, beside those of 500 and more, that may be others when the call is made again."""


class Line:
    """The client of one endpoint, and the event loop that its calls live on."""

    def __init__(self, endpoint: Endpoint, key: str, failed: Callable[[str], None]) -> None:
        """Starts the loop; connects to nothing yet.

        Args:
            endpoint: the server.
            key: what to authenticate with; empty: nothing is sent.
            failed: told, on the loop, of every try that failed and may be made again: in a word.
        """
        import openai

        self.headers: dict[str, Any] = _headers(key)
        """What every call has to be made with."""
        timeout = openai.Timeout(endpoint.timeout_s, connect=min(CONNECT_S, endpoint.timeout_s))
        self.client: Any = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=key or "none",
            timeout=timeout,
            max_retries=endpoint.retries,
            http_client=_on_time(
                endpoint.timeout_s, failed, base_url=endpoint.url, timeout=timeout
            ),
        )
        self.places = asyncio.Semaphore(endpoint.concurrency)
        self._loop = asyncio.new_event_loop()
        # A daemon: a call that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, work: Any) -> Future[Any]:
        """Runs a coroutine on the loop; cancelling the future ends it there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Gives up what is under way, closes the connections, ends the loop."""

        async def hang_up() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self.client.close()

        self.start(hang_up()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _headers(key: str) -> dict[str, Any]:
    """The key, if any, and that nothing is sent of what the user has set up for OpenAI itself."""
    import openai

    # The client adds these to every call, and lets them replace the key that it was given.
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    theirs = [line.partition(":")[0].strip() for line in lines if ":" in line]
    kept_back = (*theirs, "OpenAI-Organization", "OpenAI-Project")
    headers: dict[str, Any] = dict.fromkeys(kept_back, openai.Omit())
    # Put last: of names that differ only in case the last counts.
    headers.pop("Authorization", None)
    headers["Authorization"] = f"Bearer {key}" if key else openai.Omit()
    return headers


def _on_time(most_s: float, failed: Callable[[str], None], **settings: Any) -> Any:
    """The openai package's HTTP client, with a bound on each whole request.

    A time-out of HTTP is one of silence: a server that sends a space now and then never meets it.
    """
    import openai

    class OnTime(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, *more: Any, **options: Any) -> Any:
            try:
                async with asyncio.timeout(most_s):
                    answer = await super().send(request, *more, **options)
            except Exception as error:
                kind = type(error).__name__
                slow = kind in ("TimeoutError", "ReadTimeout", "WriteTimeout")
                failed("time-out" if slow else "no connection")
                if not slow:
                    raise
                if tries_of(request) > SLOW_RETRIES:
                    # The package passes its own errors on, and makes no further try.
                    raise openai.APITimeoutError(request=request) from error
                # The package takes httpx or its successor; the request is of the one it took.
                http = import_module(type(request).__module__.partition(".")[0])
                raise http.ReadTimeout(f"no answer in {most_s:g} s", request=request) from error
            if answer.status_code in PASSING or answer.status_code >= 500:
                failed(str(answer.status_code))
            return answer

    return OnTime(**settings)


def tries_of(request: Any) -> int:
    """How many tries of its call were made by then, this one among them."""
    return int(request.headers.get("x-stainless-retry-count", "0")) + 1

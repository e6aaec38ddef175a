"""The openai client on an event loop in a thread of its own.

Any thread may ask, all share one bound on the calls under way, and a call that is given up ends at
once.
"""

from __future__ import annotations

import asyncio
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hierrouter.config import Endpoint

CONNECT_S = 10.0
"""Seconds until a machine that is not there is given up; a reply may take much longer."""


class Line:
    """The client of one endpoint, and the event loop that its calls live on."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        """Starts the loop; connects to nothing yet.

        Args:
            endpoint: the server.
            key: what to authenticate with; empty: nothing is sent.
        """
        import openai

        # Without a key nothing that the user has set up for OpenAI itself may reach this server.
        kept_back = () if key else ("Authorization", "OpenAI-Organization", "OpenAI-Project")
        self.headers: dict[str, Any] = dict.fromkeys(kept_back, openai.Omit())
        """What every call has to be made with."""
        timeout = openai.Timeout(endpoint.timeout_s, connect=min(CONNECT_S, endpoint.timeout_s))
        self.client: Any = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=key or "none",
            timeout=timeout,
            max_retries=endpoint.retries,
            http_client=_on_time(endpoint.timeout_s, base_url=endpoint.url, timeout=timeout),
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


def _on_time(most_s: float, **settings: Any) -> Any:
    """The openai package's HTTP client, with a bound on each whole request.

    A time-out of HTTP is one of silence: a server that sends a space now and then never meets it.
    """
    import openai

    class OnTime(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, *more: Any, **options: Any) -> Any:
            try:
                async with asyncio.timeout(most_s):
                    return await super().send(request, *more, **options)
            except TimeoutError as error:
                # The package takes httpx or its successor; the request is of the one it took.
                http = import_module(type(request).__module__.partition(".")[0])
                raise http.ReadTimeout(f"no answer in {most_s:g} s", request=request) from error

    return OnTime(**settings)

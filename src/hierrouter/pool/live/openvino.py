"""OpenVINO GenAI, live: one thread steps the continuous batch that all callers share."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.pool.backend import Completion
from hierrouter.pool.checkpoint import Checkpoint
from hierrouter.pool.live.local import LocalPrompts, Reply
from hierrouter.pool.openvino_backend import AT_ONCE, add_request, load_pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from hierrouter.pool.live.backend import Prompt


@dataclass(eq=False)
class _Request:
    """One reply under way, and the caller who waits for it."""

    ids: list[int]
    limit: int
    reply: Reply
    loop: asyncio.AbstractEventLoop
    started: float = field(default_factory=time.perf_counter)
    said: asyncio.Queue[str | Completion | HierRouterError] = field(default_factory=asyncio.Queue)
    gone: bool = False
    handle: Any = None


class OpenVINOLive(LocalPrompts):
    """Runs one folder of `openvino_convert.convert` for many callers."""

    name, device, dtype = "openvino", "cpu", "int8"
    concurrency = AT_ONCE

    def __init__(self, folder: Path, label: str) -> None:
        """Loads nothing yet.

        Args:
            folder: the converted model with its tokenizer.
            label: what messages call the model.
        """
        super().__init__(Checkpoint(folder, label))
        self._stops: frozenset[int] = frozenset()
        self._pipeline: Any = None
        self._asked: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._numbers = 0

    async def start(self) -> None:
        """Loads the weights and starts the thread.

        Raises:
            HierRouterError: the folder does not load.
        """
        if self._thread is not None:
            return
        await asyncio.to_thread(self._load)
        # A daemon: a step that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, daemon=True, name="openvino")
        self._thread.start()

    async def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        """One greedy reply, in steps with the others under way (see `LiveBackend`)."""
        reply = Reply(self._checkpoint, self._stops, prompt.tokens_in)
        request = _Request(prompt.ids, limit, reply, asyncio.get_running_loop())
        self._asked.put(request)
        try:
            while True:
                said = await request.said.get()
                if isinstance(said, HierRouterError):
                    raise said
                if pieces or isinstance(said, Completion):
                    yield said
                if isinstance(said, Completion):
                    return
        finally:
            request.gone = True

    async def close(self) -> None:
        """Ends the thread after its present step and frees the weights."""
        if self._thread is not None:
            self._asked.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._pipeline = None

    def _load(self) -> None:
        self._stops = self._checkpoint.stop_tokens()
        self._pipeline = load_pipeline(self._checkpoint)

    def _run(self) -> None:
        """What the thread does: takes requests, steps, hands pieces out, until told to end."""
        running: list[_Request] = []
        while self._take(running):
            if not running:
                continue
            try:
                self._pipeline.step()
                self._hand_out(running)
            except Exception as error:  # whatever it is, the thread goes on for the others
                self._fail(running, error)
            if gone := [request for request in running if request.gone]:
                self._drop(gone)
                running[:] = [request for request in running if not request.gone]
        ending = UnreachableError(f"model {self._checkpoint.label} is shutting down")
        _tell([(request, ending) for request in running])
        self._drop(running)

    def _take(self, running: list[_Request]) -> bool:
        """Adds what was asked; waits where nothing is under way. False: the end."""
        while True:
            try:
                request = self._asked.get(block=not running)
            except Empty:
                return True
            if request is None:
                return False
            if request.gone:
                continue
            self._numbers += 1
            try:
                if self._pipeline is None:
                    self._load()
                request.handle = add_request(
                    self._pipeline, self._numbers, request.ids, request.limit, self._stops
                )
            except HierRouterError as error:
                _tell([(request, UnreachableError(str(error)))])
                continue
            except Exception as error:
                _tell([(request, RefusedError(self._failed(error)))])
                continue
            running.append(request)

    def _hand_out(self, running: list[_Request]) -> None:
        """Tells every caller what the last step made for it."""
        import openvino_genai

        status = openvino_genai.GenerationStatus
        told: list[tuple[_Request, str | Completion | HierRouterError]] = []
        for request in running:
            while request.handle.can_read():
                for output in request.handle.read().values():
                    text = request.reply.add(output.generated_ids, output.generated_log_probs)
                    if text:
                        told.append((request, text))
            now = request.handle.get_status()
            if now == status.RUNNING:
                continue
            if now == status.IGNORED:
                no_room = f"model {self._checkpoint.label}: a prompt does not fit into its cache"
                told.append((request, RefusedError(no_room)))
            else:
                if rest := request.reply.rest():
                    told.append((request, rest))
                took = time.perf_counter() - request.started
                told.append((request, request.reply.completion(took)))
        _tell(told)
        ended = {id(request) for request, said in told if not isinstance(said, str)}
        running[:] = [request for request in running if id(request) not in ended]

    def _fail(self, running: list[_Request], error: Exception) -> None:
        """A step failed: its callers are told, and the next one gets a new pipeline."""
        failure = UnreachableError(self._failed(error))
        _tell([(request, failure) for request in running])
        running.clear()
        self._pipeline = None

    def _failed(self, error: Exception) -> str:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"model {self._checkpoint.label}: OpenVINO failed ({reason})"

    def _drop(self, gone: list[_Request]) -> None:
        """Ends replies that nobody waits for; the next step frees what they held."""
        with contextlib.suppress(RuntimeError, AttributeError):
            for request in gone:
                request.handle.cancel()
            if gone:
                self._pipeline.step()


def _tell(told: list[tuple[_Request, str | Completion | HierRouterError]]) -> None:
    """Wakes the callers' event loops once each, whatever the number of pieces."""
    by_loop: dict[
        asyncio.AbstractEventLoop, list[tuple[_Request, str | Completion | HierRouterError]]
    ] = {}
    for request, said in told:
        by_loop.setdefault(request.loop, []).append((request, said))
    for loop, some in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_put, some)


def _put(told: list[tuple[_Request, str | Completion | HierRouterError]]) -> None:
    for request, said in told:
        request.said.put_nowait(said)

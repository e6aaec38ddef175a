"""OpenVINO GenAI, live: a process of its own steps the continuous batch that all callers share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.pool.backend import Completion
from hierrouter.pool.checkpoint import Checkpoint
from hierrouter.pool.live.local import LocalPrompts, Reply
from hierrouter.pool.live.openvino_process import ModelProcess
from hierrouter.pool.openvino_pipeline import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from hierrouter.pool.live.backend import Prompt
    from hierrouter.pool.live.openvino_process import Made


SILENT_S = 60.0
"""A process that says nothing for so long though it has to hangs: no step takes that long."""


@dataclass(eq=False)
class _Request:
    """One reply under way, and what its caller is told."""

    reply: Reply
    label: str
    started: float = field(default_factory=time.perf_counter)
    said: asyncio.Queue[str | Completion | HierRouterError] = field(default_factory=asyncio.Queue)

    def made(self, made: Made) -> None:
        """Takes what a step made."""
        _, tokens, logprobs, end = made
        text = self.reply.add(tokens, logprobs)
        if end == "done":
            text += self.reply.rest()
        if text:
            self.said.put_nowait(text)
        if end == "done":
            took = time.perf_counter() - self.started
            self.said.put_nowait(self.reply.completion(took))
        elif end == "no room":
            self.failed(RefusedError(f"model {self.label}: a prompt does not fit into its cache"))

    def failed(self, error: HierRouterError) -> None:
        """Takes what ends it."""
        self.said.put_nowait(error)


class OpenVINOLive(LocalPrompts):
    """Runs one folder of `openvino_convert.convert` for many callers, all of one event loop.

    What takes the model's process away (a fault in it, too little memory) is told to those who
    wait for it; the next caller gets a new process.
    """

    name, device, dtype = "openvino", "cpu", "int8"
    concurrency = AT_ONCE

    def __init__(self, folder: Path, label: str) -> None:
        """Loads nothing yet.

        Args:
            folder: the converted model with its tokenizer.
            label: what messages call the model.
        """
        super().__init__(Checkpoint(folder, label))
        self._stops: list[int] = []
        self._process: ModelProcess | None = None
        self._open = False

    async def start(self) -> None:
        """Starts the process and waits until it has loaded the weights.

        Raises:
            HierRouterError: the folder does not load.
        """
        if self._open:
            return
        self._stops = sorted(await asyncio.to_thread(self._checkpoint.stop_tokens))
        self._open = True
        try:
            await self._loaded()
        except BaseException:
            await self.close()
            raise

    async def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        """One greedy reply, in steps with the others under way (see `LiveBackend`)."""
        reply = Reply(self._checkpoint, frozenset(self._stops), prompt.tokens_in)
        request = _Request(reply, self._checkpoint.label)
        try:
            process = await self._loaded()
        except HierRouterError as error:
            raise UnreachableError(str(error)) from error
        number = process.ask(request, prompt.ids, limit, self._stops)
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
            process.drop(number)

    async def slow(self) -> None:
        """Ends a process that has said nothing for long while there is something to say."""
        process = self._process
        if process is not None and process.silent_s > SILENT_S:
            await process.end(f"model {self._checkpoint.label}: its process hangs; ask again")

    async def close(self) -> None:
        """Ends the process, whatever it is at; its callers are told at once."""
        self._open = False
        process, self._process = self._process, None
        if process is not None:
            await process.end(f"model {self._checkpoint.label} is shutting down")

    async def _loaded(self) -> ModelProcess:
        """The process, a new one where there is none any more, once it has loaded the weights."""
        if not self._open:
            raise UnreachableError(f"model {self._checkpoint.label} is not loaded")
        if self._process is None or self._process.over:
            self._process = ModelProcess(self._checkpoint)
        process = self._process
        await process.loaded()
        return process

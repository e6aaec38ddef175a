"""transformers' own continuous batching, live: what an accelerator runs.

It also answers on a processor where OpenVINO is not installed, more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from typing import TYPE_CHECKING, Any, Literal

import torch

from hierrouter.errors import UnreachableError
from hierrouter.pool.checkpoint import Checkpoint, hf
from hierrouter.pool.continuous import paging
from hierrouter.pool.devices import choose_device, choose_dtype
from hierrouter.pool.live.local import LocalPrompts, Reply
from hierrouter.pool.transformers_backend import load_model

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from hierrouter.pool.backend import Completion
    from hierrouter.pool.devices import Dtype
    from hierrouter.pool.live.backend import Prompt

AT_ONCE = 64
"""Replies that are let in at the same time."""
HELD_ON_CPU = 32_768
"""Tokens that are held at once on a processor."""
READ_ON_CPU = 512
"""Tokens, read and written, of one step on a processor."""


class TransformersLive(LocalPrompts):
    """Runs one checkpoint folder with transformers for many callers."""

    name = "transformers"
    concurrency = AT_ONCE

    def __init__(self, folder: Path, label: str, dtype: Literal["auto"] | Dtype = "auto") -> None:
        """Loads nothing yet.

        Args:
            folder: config.json, safetensors and a tokenizer.
            label: what messages call the model.
            dtype: number format of the weights.
        """
        super().__init__(Checkpoint(folder, label))
        self.device = choose_device()
        self.dtype: str = choose_dtype(dtype, self.device)
        self._stops: frozenset[int] = frozenset()
        self._model: Any = None
        self._manager: Any = None
        self._numbers = itertools.count(1)
        self._beginning = asyncio.Lock()

    async def start(self) -> None:
        """Loads the weights and starts transformers' thread.

        Raises:
            HierRouterError: the folder does not load.
        """
        if self._manager is None:
            await asyncio.to_thread(self._load)

    async def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        """One greedy reply, in steps with the others under way (see `LiveBackend`)."""
        started = time.perf_counter()
        async with self._beginning:
            # One of those who wait starts it again for all.
            if self._manager is None:
                raise self._failed("it was closed")
            if not self._manager.is_running():
                await asyncio.to_thread(self._begin)
            manager = self._manager
        number = str(next(self._numbers))
        reply = Reply(self._checkpoint, self._stops, prompt.tokens_in)
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        manager.register_result_handler(number, outputs.put_nowait)
        ended = False
        try:
            taken = manager.add_request(
                prompt.ids,
                request_id=number,
                max_new_tokens=limit,
                streaming=pieces,
                eos_token_id=sorted(self._stops),
            )
            if taken is None:
                raise self._failed("it takes no requests")
            while not ended:
                output = await outputs.get()
                if output.error is not None:
                    raise self._failed(output.error)
                known = len(reply.tokens)
                # Tokens that are still being computed on the device have a place, but no number.
                ready = list(itertools.takewhile(lambda token: token >= 0, output.generated_tokens))
                text = reply.add(ready[known:], output.logprobs[known : len(ready)])
                ended = output.is_finished()
                text += reply.rest() if ended else ""
                if text and pieces:
                    yield text
            yield reply.completion(time.perf_counter() - started)
        finally:
            if not ended and self._manager is manager:
                manager.cancel_request(number)
                # What it still delivers goes to nobody.
                with manager.output_router._lock:
                    manager.output_router.result_handlers.pop(number, None)

    async def slow(self) -> None:
        """A thread cannot be ended."""

    async def close(self) -> None:
        """Ends the thread and frees the weights."""
        manager, self._manager = self._manager, None
        if manager is not None:
            await asyncio.to_thread(manager.stop, block=True, hard_stop=True)
            manager.destroy()
        self._model = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _load(self) -> None:
        self._stops = self._checkpoint.stop_tokens()
        self._model = load_model(self._checkpoint, self.dtype, self.device)
        self._begin()

    def _begin(self) -> None:
        """Starts transformers' thread, anew where it ended with an error."""
        if self._manager is not None:
            with contextlib.suppress(RuntimeError):
                self._manager.destroy()
        self._manager = self._model.init_continuous_batching(
            generation_config=hf.GenerationConfig(
                do_sample=False, eos_token_id=sorted(self._stops)
            ),
            continuous_batching_config=self._pages(),
        )
        self._manager.start()

    def _pages(self) -> Any:
        """Paging; a processor's memory is everybody's, so there it is not filled with pages."""
        pages = paging(self._model)
        if self.device == "cpu":
            pages.num_blocks = HELD_ON_CPU // pages.page_size
            pages.max_batch_tokens = READ_ON_CPU
        return pages

    def _failed(self, reason: str) -> UnreachableError:
        first = " ".join(str(reason).split())[:160]
        return UnreachableError(f"model {self._checkpoint.label}: transformers failed ({first})")

"""Encoding live: never on the event loop, each text once, the newest kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hierrouter.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hierrouter.routes.encoder import Encoder

KEPT = 4096
"""Vectors kept; of all-mpnet-base-v2 they take 12 MB."""
TOGETHER = 16
"""Texts that an accelerator encodes at once; a processor gains nothing by batches."""


class Vectors:
    """The vectors of texts, by an encoder in a thread of its own."""

    def __init__(self, encoder: Encoder, kept: int = KEPT) -> None:
        """Takes the encoder, loaded.

        Args:
            encoder: what encodes.
            kept: how many vectors are remembered, those asked for last.
        """
        self._encoder, self._kept = encoder, kept
        self._together = 1 if encoder.device == "cpu" else TOGETHER
        # By digest: a text may be as long as a request.
        self._known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[NDArray[np.float32]]] = {}
        self._callers: Counter[bytes] = Counter()
        self._waiting: deque[str] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._working: asyncio.Task[None] | None = None

    async def of(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vectors of texts, in their order, D numbers each."""
        return [await self._one(text) for text in texts]

    def close(self) -> None:
        """Ends the thread; who waits is told."""
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for future in self._under_way.values():
            if not future.done():
                future.set_exception(UnreachableError("the encoder is shutting down"))

    async def _one(self, text: str) -> NDArray[np.float32]:
        place = _digest(text)
        if (known := self._known.get(place)) is not None:
            self._known.move_to_end(place)
            return known
        if place not in self._under_way:
            self._under_way[place] = asyncio.get_running_loop().create_future()
            self._waiting.append(text)
            if self._working is None or self._working.done():
                self._working = asyncio.create_task(self._work())
        self._callers[place] += 1
        try:
            # A caller who goes away must not take the vector from the others who wait for it.
            return await asyncio.shield(self._under_way[place])
        finally:
            self._callers[place] -= 1
            if not self._callers[place]:
                del self._callers[place]

    async def _work(self) -> None:
        """Encodes what waits until nothing does."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            texts = self._next()
            if not texts:
                return
            try:
                vectors = await loop.run_in_executor(self._thread, self._encoder.encode, texts)
            except Exception as error:  # handed to whoever waits
                for text in texts:
                    future = self._under_way.pop(_digest(text))
                    if not future.done():
                        future.set_exception(error)
                continue
            for text, vector in zip(texts, vectors, strict=True):
                # A copy: a row would keep the whole batch.
                self._known[_digest(text)] = vector.copy()
                future = self._under_way.pop(_digest(text))
                if not future.done():
                    future.set_result(vector)
            while len(self._known) > self._kept:
                self._known.popitem(last=False)

    def _next(self) -> list[str]:
        """The texts to encode now: the oldest that somebody still waits for."""
        texts: list[str] = []
        while self._waiting and len(texts) < self._together:
            text = self._waiting.popleft()
            if self._callers[place := _digest(text)]:
                texts.append(text)
            else:
                self._under_way.pop(place).cancel()
        return texts


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

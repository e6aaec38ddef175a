"""A scripted model, live: the replies of `pool.scripted`, word by word."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from hierrouter.pool.live.backend import Prompt
from hierrouter.pool.scripted import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from hierrouter.config import ModelSpec, Prompts
    from hierrouter.pool.backend import Completion
    from hierrouter.pool.live.backend import Turn


class ScriptedLive:
    """One scripted model. It reads the last turn only."""

    name, device, dtype = "scripted", "cpu", "none"
    tokenizes = False
    concurrency = 1000

    def __init__(self, spec: ModelSpec, prompts: Prompts) -> None:
        """Takes the model's skills and the instructions by which it knows what is wanted."""
        self._backend = ScriptedBackend(spec, prompts)

    async def start(self) -> None:
        """Nothing to load."""

    def count_tokens(self, text: str) -> int:
        """Number of words."""
        return self._backend.count_tokens(text)

    def prepare(self, turns: Sequence[Turn]) -> Prompt:
        """Counts the words of all turns."""
        return Prompt(tuple(turns), sum(self.count_tokens(turn.text) for turn in turns))

    def require_window(self, prompt: Prompt, limit: int) -> None:
        """Everything fits."""

    async def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        """The reply by the rules of `pool.scripted`, a word at a time."""
        (last,) = self._backend.generate([prompt.turns[-1].text], [limit])
        completion = replace(last, tokens_in=prompt.tokens_in)
        if pieces:
            for word in re.findall(r"\s*\S+", completion.reply):
                yield word
                await asyncio.sleep(0)
        yield completion

    async def slow(self) -> None:
        """Nothing to start anew."""

    async def close(self) -> None:
        """Nothing to free."""

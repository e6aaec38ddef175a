"""The one interface behind which a model answers live: a prompt in, pieces of text out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from hierrouter.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from hierrouter.pool.backend import Completion

LONG_TOKEN = 32
"""Characters of a token, on the average of a text, that no real text has: counting the tokens of
a long one takes seconds, so those of a longer one are not counted."""
Speaker = Literal["system", "user", "assistant"]
"""Who says a turn of a conversation."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as one model is given it."""

    turns: tuple[Turn, ...]
    tokens_in: int
    """How many tokens it will count: exactly for a model in this process, at most for a server."""
    ids: list[int] = field(default_factory=list)
    """Its tokens, where the model runs in this process."""
    beyond: int = 0
    """Tokens among `tokens_in` that a server was seen to count without need."""


class WindowError(RefusedError):
    """A conversation is longer than a model can read."""


class LiveBackend(Protocol):
    """A model that answers several callers at once."""

    name: str
    """What makes the replies ("openvino", "openai", …)."""
    device: str
    """Where ("cpu", "cuda", "endpoint")."""
    dtype: str
    """Number format of the weights."""
    tokenizes: bool
    """Whether prompts are tokenized here, which takes too long for an event loop."""
    concurrency: int
    """Replies that it can usefully make side by side; more callers wait their turn."""

    async def start(self) -> None:
        """Loads the weights, or makes sure of the server; nothing is asked before that.

        Raises:
            HierRouterError: it cannot be used.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a message, by which contexts are cut: exactly, or a cautious estimate."""
        ...

    def prepare(self, turns: Sequence[Turn]) -> Prompt:
        """A conversation, its last turn the user's, as the model reads it."""
        ...

    def require_window(self, prompt: Prompt, limit: int) -> None:
        """Makes sure that prompt and reply fit into what the model can attend to.

        Raises:
            WindowError: they do not.
        """
        ...

    def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        """One greedy reply.

        Closing the generator ends the generation.

        Args:
            prompt: from `prepare`.
            limit: the most new tokens.
            pieces: whether the text is wanted as it comes; else the backend may give the
                completion alone.
            stop: texts before which it may end. Only a server that counts for itself needs to
                heed them: whoever reads the pieces does so anyway, and closes the generator.

        Yields:
            Pieces of the reply, in order, and at last its `Completion`.

        Raises:
            UnreachableError: it failed in a way that may pass.
            RefusedError: it refuses this one call.
            HierRouterError: it fails for good.
        """
        ...

    async def slow(self) -> None:
        """Is told that a reply was not whole in all the time that it had; may start anew."""
        ...

    async def close(self) -> None:
        """Frees the weights or closes the connections; replies under way are given up."""
        ...

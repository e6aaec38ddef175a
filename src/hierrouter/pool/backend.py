"""The one interface behind which a model runs: prompts in, completions out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply and what it took.

    `logprob_mean` and `logprob_min` are over the reply's tokens, natural logarithm, NaN where a
    backend does not tell them; `latency_s` is the wall time from handing over the prompts (with
    transformers: from first reading this one) to the end of the reply, in seconds.
    """

    reply: str
    tokens_in: int
    tokens_out: int
    finish_reason: str  # "stop" or "length"; "content_filter" where a server cut it
    latency_s: float
    logprob_mean: float
    logprob_min: float


OnReply = Callable[[int, Completion], None]
"""Called with the position of a prompt and its reply, as soon as that is there."""


class Backend(Protocol):
    """A model that answers. Weights are loaded at the first `generate`, not before."""

    name: str
    """What made the replies ("transformers", "scripted"), recorded with each."""
    device: str
    """Where ("cpu", "cuda"), recorded with each reply."""
    dtype: str
    """Number format of the weights, recorded with each reply."""

    def render(self, message: str) -> str:
        """The full prompt for one user message: the model's chat template applied."""
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens."""
        ...

    def require_window(self, message_tokens: int, max_new_tokens: int) -> None:
        """Makes sure that a message and its reply fit into what the model can attend to.

        Args:
            message_tokens: tokens of a user message, without its chat template.
            max_new_tokens: the most new tokens of its reply.

        Raises:
            HierRouterError: they do not.
        """
        ...

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: Sequence[int],
        on_reply: OnReply | None = None,
    ) -> list[Completion]:
        """Greedy completions of rendered prompts, in their order.

        Args:
            prompts: rendered prompts, any number; the backend forms batches.
            max_new_tokens: for each prompt, the most new tokens.
            on_reply: told of every reply as soon as it is there, so that whoever records can keep
                what was paid for when a later one fails.
        """
        ...

    def close(self) -> None:
        """Frees the weights."""
        ...

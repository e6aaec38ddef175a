"""What every live backend with weights in this process shares: prompts, and tokens to text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers.decoders import DecodeStream

from hierrouter.errors import HierRouterError
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import LONG_TOKEN, Prompt, WindowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.pool.checkpoint import Checkpoint
    from hierrouter.pool.live.backend import Turn


class LocalPrompts:
    """Conversations as one checkpoint reads them."""

    tokenizes = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Reads nothing yet."""
        self._checkpoint = checkpoint

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens."""
        return self._checkpoint.count_tokens(text)

    def prepare(self, turns: Sequence[Turn]) -> Prompt:
        """The chat template applied to a conversation, and its tokens.

        Raises:
            WindowError: it is so long that its tokens need not be counted.
        """
        characters = sum(len(turn.text) for turn in turns)
        if characters > LONG_TOKEN * self._checkpoint.window:
            raise WindowError(
                f"model {self._checkpoint.label}: a conversation of {characters} characters does "
                f"not fit into its window of {self._checkpoint.window} tokens"
            )
        rendered = self._checkpoint.render_turns([(turn.speaker, turn.text) for turn in turns])
        (ids,) = self._checkpoint.encode([rendered])
        return Prompt(tuple(turns), len(ids), ids)

    def require_window(self, prompt: Prompt, limit: int) -> None:
        """Raises WindowError where prompt and reply are longer than the model's window."""
        try:
            self._checkpoint.refuse_beyond_window(prompt.tokens_in, limit)
        except HierRouterError as error:
            raise WindowError(str(error)) from error


class Reply:
    """A reply that grows token by token."""

    def __init__(self, checkpoint: Checkpoint, stops: frozenset[int], tokens_in: int) -> None:
        """Starts empty.

        Args:
            checkpoint: whose tokens they are.
            stops: tokens that end a reply.
            tokens_in: tokens of its prompt.
        """
        self._checkpoint, self._stops, self._tokens_in = checkpoint, stops, tokens_in
        # Not every tokenizer can be read token by token; then the text comes at the end.
        self._inner: Any = getattr(checkpoint.tokenizer, "backend_tokenizer", None)
        self._stream: Any = DecodeStream(skip_special_tokens=True)
        self._said = ""
        self.tokens: list[int] = []
        self.logprobs: list[float] = []

    def add(self, tokens: Sequence[int], logprobs: Sequence[float]) -> str:
        """Takes new tokens; returns the text that they complete, which may be none."""
        self.tokens += tokens
        self.logprobs += logprobs
        if self._inner is None:
            return ""
        pieces = (self._stream.step(self._inner, token) for token in tokens)
        text = "".join(piece for piece in pieces if piece)
        self._said += text
        return text

    def rest(self) -> str:
        """What the whole text has beyond the pieces: a cut character at its end, mostly."""
        whole = self._checkpoint.tokenizer.decode(self.tokens, skip_special_tokens=True)
        return whole[len(self._said) :] if whole.startswith(self._said) else ""

    def completion(self, latency_s: float) -> Completion:
        """The whole reply."""
        ended = bool(self.tokens) and self.tokens[-1] in self._stops
        return Completion(
            reply=self._checkpoint.decode(self.tokens),
            tokens_in=self._tokens_in,
            tokens_out=len(self.tokens),
            finish_reason="stop" if ended else "length",
            latency_s=latency_s,
            logprob_mean=sum(self.logprobs) / max(len(self.logprobs), 1),
            logprob_min=min(self.logprobs, default=0.0),
        )

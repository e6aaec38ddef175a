"""What a chat completion says, as far as it can be stored and priced."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hierrouter.pool.backend import Completion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.pool.openai_words import Words

MOST_TOKENS = 10**9
"""Of one call; a server that counts more does not count."""
LEAST = -1e5
"""A log-probability below it is none; servers write -9999 for minus infinity. None is above 0, but
for rounding."""
ENDS = {reason: reason for reason in ("length", "content_filter")}
"""How a reply may end before its own end."""
UNREADABLE = (
    *(AttributeError, IndexError, KeyError, TypeError, ValueError),
    *(OverflowError, RecursionError),
)
"""What reading an answer of another form raises."""


def completion_of(answer: Any, words: Words) -> Completion:
    """What a server answered to a call.

    Args:
        answer: the raw response of the openai client.
        words: of the server.

    Raises:
        OddAnswerError: the server broke the reply off; or it has answered before, and this is no
            completion or has no `usage`.
        HierRouterError: it never answered, and this is no completion or has no `usage`.
    """
    try:
        body = answer.parse()
        choice = body.choices[0]
        # A model that still reasons at its limit has no content.
        reply = writable(choice.message.content or "").strip()
        told = getattr(choice.logprobs, "content", None) or ()
        mean, least = certainty([getattr(token, "logprob", None) for token in told])
        if choice.finish_reason in ("abort", "error"):
            raise words.broken_off(f"finish_reason {choice.finish_reason}")
        if body.usage is None:
            raise words.uncounted()
        tokens_in, tokens_out = counts(body.usage.prompt_tokens, body.usage.completion_tokens)
        return Completion(
            reply=reply,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            finish_reason=ENDS.get(choice.finish_reason, "stop"),
            # Of the try that succeeded: waits after a refusal say nothing about the model.
            latency_s=answer.elapsed.total_seconds(),
            logprob_mean=mean,
            logprob_min=least,
        )
    except UNREADABLE as error:
        raise words.garbage(answer.text, "chat completion") from error


def certainty(logprobs: Sequence[Any]) -> tuple[float, float]:
    """Mean and least of the log-probabilities of a reply's tokens.

    NaN where a server told none, or what can be none: the reply is worth having without.
    """
    known = all(isinstance(each, int | float) and LEAST <= each <= 0.01 for each in logprobs)
    if not logprobs or not known:
        return math.nan, math.nan
    return sum(logprobs) / len(logprobs), min(logprobs)


def counts(tokens_in: Any, tokens_out: Any) -> tuple[int, int]:
    """Tokens read and written, as a server counts them.

    Raises:
        TypeError, ValueError, OverflowError: they are no numbers, or no call can take so many.
    """
    found = int(tokens_in), int(tokens_out)
    if min(found) < 0 or max(found) > MOST_TOKENS:
        raise ValueError(f"usage is {found}")
    return found


def writable(text: str) -> str:
    """A text that can be stored and sent: JSON may hold half of a character; no encoding does."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

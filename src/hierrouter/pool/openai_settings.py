"""What a call asks of a server beside its text, put right where the server does not take it."""

from __future__ import annotations

from typing import Any

NEWER = "max_completion_tokens"
"""What newer servers of OpenAI's own models call the limit."""


class Settings:
    """Remembers what one server refused, so that it is not asked again.

    Each only ever changes one way, so calls that run at the same time cannot undo what another one
    found out.
    """

    def __init__(self, logprobs: bool) -> None:
        """Knows of no refusal yet.

        Args:
            logprobs: whether log-probabilities are wanted.
        """
        self._logprobs = logprobs
        self._limit_name = "max_tokens"

    def of(self, limit: int) -> dict[str, Any]:
        """Those of a call with so many new tokens at most."""
        return {self._limit_name: limit, **({"logprobs": True} if self._logprobs else {})}

    def mend(self, call: dict[str, Any], refusal: str) -> bool:
        """Puts a call right that was refused; False where it is not known how.

        Args:
            call: its settings, `of` among them.
            refusal: what the server said.
        """
        said = refusal.lower()
        if "logprobs" in call and "logprob" in said:
            # Not every server tells them; a reply is worth having without.
            del call["logprobs"]
        elif "max_tokens" in call and NEWER in said:
            call[NEWER] = call.pop("max_tokens")
        else:
            return False
        return True

    def keep(self, call: dict[str, Any]) -> None:
        """Remembers how a call had to be put right, now that it was answered.

        Not before: a refusal for another reason may quote a question that has these words.
        """
        self._logprobs = self._logprobs and "logprobs" in call
        if NEWER in call:
            self._limit_name = NEWER

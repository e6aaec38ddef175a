"""What a server has said to a call by then, in one piece or in many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from hierrouter.pool.openai_answer import counts, writable

if TYPE_CHECKING:
    from hierrouter.errors import HierRouterError


class Reply:
    """What has come of a reply."""

    def __init__(self, most: int) -> None:
        """Begins with nothing.

        Args:
            most: pieces, beyond which it is taken to go on for ever.
        """
        self._most = most
        self.texts: list[str] = []
        self.finish_reason = ""
        self.usage: tuple[int, int] | None = None
        """Tokens read and written, where the server counted them."""
        self.logprobs: list[Any] = []
        """Of its tokens, where the server tells them."""
        self.failure = ""
        self.broken: HierRouterError | None = None

    def take(self, event: dict[str, Any]) -> str:
        """Takes one event of a stream; returns its text, which may be none."""
        if event.get("error"):
            told = event["error"]
            self.failure = str(told.get("message", told) if isinstance(told, dict) else told)
            return ""
        self._count(event)
        if not (choices := event.get("choices")):
            return ""
        return self._say(choices[0], choices[0].get("delta") or {})

    def take_whole(self, answer: Any) -> None:
        """Takes an answer that came in one piece."""
        choice = answer["choices"][0]
        self._count(answer)
        self._say(choice, choice["message"])

    def _count(self, told: dict[str, Any]) -> None:
        if usage := told.get("usage"):
            self.usage = counts(usage["prompt_tokens"], usage["completion_tokens"])

    def _say(self, choice: dict[str, Any], said: dict[str, Any]) -> str:
        if reason := choice.get("finish_reason"):
            self.finish_reason = str(reason)
            if reason in ("abort", "error"):
                self.failure = f"finish_reason {reason}"
        if told := choice.get("logprobs"):
            self.logprobs += _logprobs(told)
        text = writable(said.get("content") or "")
        if text:
            self.texts.append(text)
            if len(self.texts) > self._most:
                self.failure = "it says more than it was asked for"
        return text


def _logprobs(told: Any) -> list[Any]:
    """Those of some tokens; none where they come in another form than OpenAI's."""
    tokens = told.get("content") if isinstance(told, dict) else None
    return [token.get("logprob") if isinstance(token, dict) else None for token in tokens or ()]


def json_of(data: bytes) -> Any:
    """JSON, also with what servers write against its rules: NaN, and half of a character."""
    try:
        return orjson.loads(data)
    except ValueError:
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

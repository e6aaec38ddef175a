"""How failures are told to clients: status, OpenAI's error object, and when to ask again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from hierrouter.errors import HierRouterError
from hierrouter.serving.events import (
    BrokenOffError,
    LateError,
    NobodyAnswersError,
    NotTakenError,
    TooDearError,
    TooLongError,
)
from hierrouter.serving.knobs import KnobError

INVALID, SERVER = "invalid_request_error", "server_error"


class RequestError(HierRouterError):
    """A request that cannot be understood or followed."""

    def __init__(
        self, text: str, parameter: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        """Takes what is wrong, the culprit's name, the HTTP status and a code for programs."""
        super().__init__(text)
        self.parameter, self.status, self.code = parameter, status, code


class OverloadedError(HierRouterError):
    """As many requests are under way as are let in."""


@dataclass(frozen=True)
class Problem:
    """A failure as a client is told it."""

    status: int
    message: str
    kind: str = INVALID
    code: str | None = None
    parameter: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """One of a few words for it, as the log has it: the message may quote the request."""
        if self.code:
            return self.code
        try:
            return HTTPStatus(self.status).phrase.lower().replace(" ", "_").replace("-", "_")
        except ValueError:
            return str(self.status)

    def body(self, api: str = "openai") -> dict[str, Any]:
        """The error as an interface has it: KServe's two have a text, all others OpenAI's object.

        Args:
            api: the interface.
        """
        if api in ("v1", "v2"):
            return {"error": self.message}
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.parameter,
                "code": self.code,
            }
        }


def ending() -> Problem:
    """What a client is told whose answer was not whole when the server ended."""
    text = "the server is shutting down; ask again"
    return Problem(503, text, SERVER, "shutting_down", headers={"retry-after": "1"})


def problem_of(error: Exception) -> Problem:
    """What a client is told of a failure; of unexpected ones nothing but that they were."""
    text = str(error)
    match error:
        case RequestError():
            return Problem(error.status, text, INVALID, error.code, error.parameter)
        case KnobError():
            return Problem(400, text, INVALID, "invalid_value", error.parameter)
        case TooDearError():
            return Problem(400, text, INVALID, "max_cost_too_low", "hierrouter.max_cost")
        case TooLongError():
            return Problem(400, text, INVALID, "context_length_exceeded", "messages")
        case NotTakenError():
            return Problem(400, text, INVALID, "conversation_refused", "messages")
        case OverloadedError():
            again = {"retry-after": "1"}
            return Problem(429, text, "rate_limit_error", "overloaded", headers=again)
        case LateError():
            # The same request would be late again.
            once = {"x-should-retry": "false"}
            name = "hierrouter.deadline_ms"
            return Problem(504, text, "timeout_error", "deadline_exceeded", name, once)
        case NobodyAnswersError():
            again = {"retry-after": str(math.ceil(error.retry_after_s))}
            return Problem(503, text, SERVER, "no_model_available", headers=again)
        case BrokenOffError():
            return Problem(502, text, SERVER, "answer_broken_off")
    return Problem(500, "the server failed; its log says more", SERVER, "internal_error")

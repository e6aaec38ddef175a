"""What is said when an endpoint fails: one line that names the culprit and the remedy."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError, HierRouterError, RefusedError, UnreachableError
from hierrouter.pool.openai_line import PASSING, tries_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hierrouter.config import Endpoint, ModelSpec

KEPT = "run the same command again: what was answered is kept"


class OddAnswerError(UnreachableError):
    """An answer of no use that may be another when the call is made again."""


class Words:
    """Knows one endpoint, and its key so that it is never shown."""

    def __init__(self, spec: ModelSpec, endpoint: Endpoint, answered: bool = False) -> None:
        """Reads nothing yet.

        Args:
            spec: the model.
            endpoint: where it is served.
            answered: whether it is known to have answered before.
        """
        self._name, self._model, self._endpoint = spec.name, spec.model, endpoint
        self.served = endpoint.served_name or spec.model
        """What the server calls the model."""
        self.at = f"model {spec.name}: {endpoint.url}"
        """How a complaint begins."""
        self.answered = answered
        """Whether it has answered: then address and name are right, and what fails may pass."""

    def key(self) -> str:
        """The key, or nothing.

        Raises:
            ConfigError: it has characters that no header may hold; it is not shown.
        """
        key = os.environ.get(self._endpoint.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigError(
                f"model {self._name}: {self._endpoint.api_key_env} holds characters that no "
                "key has; set it again"
            )
        return key

    @contextmanager
    def translating(self, timeout_s: float) -> Iterator[None]:
        """Turns what the client raises into one line that names the culprit and the remedy."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            said = self.quoted(server_said(error))
            line = f"{self.at} refused the call ({said}); {self._remedy(error)}"
            failure = self._kind(error)(line)
            failure.unpaid = error.status_code == 404
            raise failure from error
        except openai.APIConnectionError as error:
            tries = tries_of(error.request)
            times = "1 try" if tries == 1 else f"{tries} tries"
            at_once = type(error.__cause__).__name__ == "ConnectTimeout"
            if isinstance(error, openai.APITimeoutError) and not at_once:
                raise UnreachableError(
                    f"{self.at} gave no answer within {timeout_s:g} s ({times}); raise "
                    f"endpoint.timeout_s or lower endpoint.concurrency, then {KEPT}"
                ) from error
            why = "no connection in time" if at_once else _first_cause(error)
            raise UnreachableError(
                f"{self.at} does not answer ({self.quoted(why)}, {times}); start it or correct "
                f"endpoint.url, then {KEPT}"
            ) from error
        except openai.OpenAIError as error:
            raise self.garbage(str(error), "chat completion") from error

    def _kind(self, error: Any) -> type[HierRouterError]:
        """Whether a refusal is of the one call, of all calls, or passes."""
        if error.status_code >= 500 or error.status_code in PASSING:
            return UnreachableError
        # Too long, mostly. A model of another name is none of the call's fault.
        if error.status_code in (400, 413, 422) and not self._is_misnamed(error):
            return RefusedError
        if not self.answered:
            return HierRouterError
        # Where a gateway has lost the server for a while.
        return OddAnswerError if error.status_code == 404 else UnreachableError

    def _is_misnamed(self, error: Any) -> bool:
        """Whether a refusal names the model, which never answered by this name."""
        # Some quote the call, and "this model's" is said of any: served_name may be a plain word.
        name = rf"(?<![\w./-]){re.escape(self.served)}(?![\w/-]|\.\w|'s\b)"
        return not self.answered and re.search(name, server_said(error)) is not None

    def _remedy(self, error: Any) -> str:
        variable = self._endpoint.api_key_env
        if error.status_code in (401, 403):
            if not variable:
                return "name the environment variable that holds its key in endpoint.api_key_env"
            unset = f"{variable} is not set: " if not self.key() else ""
            return f"{unset}put a valid key into {variable}"
        if error.status_code in (400, 404) and self._is_misnamed(error):
            return f"set endpoint.served_name to what the server calls {self._model}"
        if error.status_code == 404 and self.answered:
            return f"does it still serve {self.served}? look at the server's log, then {KEPT}"
        if error.status_code == 404:
            return (
                f"is that its base address, up to and including /v1, and does it serve "
                f"{self.served} (endpoint.served_name)?"
            )
        if error.status_code == 429:
            wait = error.response.headers.get("retry-after")
            later = f"when its Retry-After of {wait} has passed" if wait else "later"
            return f"lower endpoint.concurrency, or, {later}, {KEPT}"
        if error.status_code in (408, 409) or error.status_code >= 500:
            return f"look at the server's log, then {KEPT}"
        return "look at what it says, and at the model's limits and pool.prompts.max_context_tokens"

    def garbage(self, text: str, wanted: str) -> HierRouterError:
        """What to raise where an answer is no `wanted`."""
        quoted = self.quoted(text)[:120] or "nothing"
        line = f"{self.at} answered with what is no {wanted} ({quoted})"
        if self.answered:
            return OddAnswerError(f"{line}; look at the server's log, then {KEPT}")
        return HierRouterError(
            f"{line}; is it the base address of an OpenAI-compatible server, up to and including "
            "/v1?"
        )

    def uncounted(self) -> HierRouterError:
        """What to raise where an answer has no `usage`."""
        line = (
            f"{self.at} answers without `usage`, and what is not counted cannot be priced; let the "
            "server report it"
        )
        return OddAnswerError(f"{line}, then {KEPT}") if self.answered else HierRouterError(line)

    def broken_off(self, how: str) -> OddAnswerError:
        """What to raise where the server gave a reply up."""
        return OddAnswerError(f"{self.at} broke a reply off ({how}); {KEPT}")

    def quoted(self, text: str) -> str:
        """What a server said, in one short line and without the key, should it repeat that."""
        key = self.key()
        hidden = text.replace(key, "***") if key else text
        return " ".join(hidden.split())[:200]


def server_said(error: Any) -> str:
    """Status and text of a refusal: most servers word it as OpenAI does, some as `detail`."""
    told = error.body if isinstance(error.body, dict) else {}
    return (
        f"{error.status_code}: {told.get('message') or told.get('detail') or error.response.text}"
    )


def _first_cause(error: BaseException) -> str:
    """What began it, in its words: clients wrap a refused connection several times."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__

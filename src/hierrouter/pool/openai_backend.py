"""A model behind an OpenAI-compatible server: vLLM, the KServe Hugging Face runtime, and others.

The server applies the chat template, so a prompt is the user message itself; token counts are
those that it reports. Retries, back-off and Retry-After are the openai client's own.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.pool.backend import Completion
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.config import ModelSpec
    from hierrouter.pool.backend import OnReply

BYTES_PER_TOKEN = 3
"""A cautious guess where a server's tokenizer is not at hand: real text has about 4."""


class OpenAIBackend:
    """Asks one server, many calls at a time. Only what `usage` reports is counted."""

    name = "openai"
    device = "endpoint"
    dtype = "unknown"

    def __init__(self, spec: ModelSpec) -> None:
        """Connects to nothing yet.

        Args:
            spec: a model with an `endpoint`.
        """
        if spec.endpoint is None:
            raise HierRouterError(f"model {spec.name} has no endpoint")
        self._spec, self._endpoint = spec, spec.endpoint
        self._served = spec.endpoint.served_name or spec.model
        self._with_logprobs = True
        self._client: Any = None

    def render(self, message: str) -> str:
        """The message itself: the server applies the chat template."""
        return message

    def count_tokens(self, text: str) -> int:
        """A cautious estimate, since the server's tokenizer is not at hand."""
        return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)

    def require_window(self, message_tokens: int, max_new_tokens: int) -> None:
        """The server knows its window, and refuses what does not fit."""

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: Sequence[int],
        on_reply: OnReply | None = None,
    ) -> list[Completion]:
        """Greedy completions of user messages, in their order.

        Args:
            prompts: user messages.
            max_new_tokens: for each, the most new tokens.
            on_reply: called with every reply when it is there.

        Raises:
            UnreachableError: the server still does not answer, or refuses, after all retries. Calls
                that are under way then are waited for and told to `on_reply`; no new ones are made.
            HierRouterError: it refuses the call itself, or what it answers is no chat completion.
        """
        self._connected()
        done: dict[int, Completion] = {}
        failures: list[BaseException] = []
        pool = ThreadPoolExecutor(self._endpoint.concurrency)
        waiting = {
            pool.submit(self._call, prompt, limit): position
            for position, (prompt, limit) in enumerate(zip(prompts, max_new_tokens, strict=True))
        }

        def take_answers() -> None:
            for future in as_completed(list(waiting)):
                position = waiting.pop(future)
                if future.cancelled():
                    continue
                error = future.exception()
                if error is not None:
                    failures.append(error)
                    pool.shutdown(wait=False, cancel_futures=True)
                    continue
                done[position] = future.result()
                if on_reply is not None:
                    on_reply(position, done[position])

        try:
            take_answers()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            say(
                "stopping; calls under way are waited for, as they are paid for (Ctrl-C: drop them)"
            )
            take_answers()
            raise
        finally:
            if waiting:  # interrupted twice: closing the connections ends what is under way
                self.close()
            pool.shutdown(wait=False, cancel_futures=True)
        if failures:
            raise failures[0]
        return [done[position] for position in range(len(prompts))]

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, prompt: str, limit: int) -> Completion:
        import openai

        settings: dict[str, Any] = {"logprobs": True} if self._with_logprobs else {}
        started = time.perf_counter()
        try:
            answer = self._connected().chat.completions.create(
                model=self._served,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=limit,
                temperature=0,
                **settings,
            )
        except openai.BadRequestError as error:
            if settings and "logprob" in str(error).lower():
                # Not every server tells log-probabilities; the reply is worth having without.
                self._with_logprobs = False
                return self._call(prompt, limit)
            raise self._refused(error) from error
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise UnreachableError(
                f"model {self._spec.name}: {self._endpoint.url} does not answer "
                f"({str(cause) or type(cause).__name__}, {self._endpoint.retries + 1} tries); "
                "start it, then run the same command again: what was answered is kept"
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise self._garbage(error) from error
        return self._completion(answer, time.perf_counter() - started)

    def _completion(self, answer: Any, latency: float) -> Completion:
        try:
            choice = answer.choices[0]
            logprobs = [
                each.logprob for each in (choice.logprobs and choice.logprobs.content) or ()
            ]
            return Completion(
                reply=(choice.message.content or "").strip(),
                tokens_in=int(answer.usage.prompt_tokens),
                tokens_out=int(answer.usage.completion_tokens),
                finish_reason="length" if choice.finish_reason == "length" else "stop",
                latency_s=latency,
                logprob_mean=sum(logprobs) / len(logprobs) if logprobs else math.nan,
                logprob_min=min(logprobs, default=math.nan),
            )
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise self._garbage(error) from error

    def _connected(self) -> Any:
        if self._client is None:
            import openai

            key = os.environ.get(self._endpoint.api_key_env, "")
            self._client = openai.OpenAI(
                base_url=self._endpoint.url,
                api_key=key or "none",
                timeout=self._endpoint.timeout_s,
                max_retries=self._endpoint.retries,
            )
        return self._client

    def _refused(self, error: Any) -> HierRouterError:
        kind = UnreachableError if error.status_code in (408, 409, 429) else HierRouterError
        kind = UnreachableError if error.status_code >= 500 else kind
        hint = {
            401: f"; put a valid key into {self._endpoint.api_key_env}",
            403: f"; put a valid key into {self._endpoint.api_key_env}",
            404: f"; does it serve {self._served} (endpoint.served_name)?",
        }.get(error.status_code, "")
        said = " ".join(str(error).split())[:160]
        return kind(
            f"model {self._spec.name}: {self._endpoint.url} refused the call ({said}){hint}"
        )

    def _garbage(self, error: Exception) -> HierRouterError:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        return HierRouterError(
            f"model {self._spec.name}: {self._endpoint.url} answered with what is no chat "
            f"completion ({said}); is it an OpenAI-compatible address that ends in /v1?"
        )

"""A model behind an OpenAI-compatible server: vLLM, the KServe Hugging Face runtime, and others.

The server applies the chat template, so a prompt is the user message itself; token counts are
those that it reports. Retries, back-off and Retry-After are the openai client's own, but for
answers that the client takes for good ones.
"""

from __future__ import annotations

import asyncio
import math
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError, RefusedError
from hierrouter.pool.openai_answer import completion_of
from hierrouter.pool.openai_line import CONNECT_S, SLOW_RETRIES, Line
from hierrouter.pool.openai_settings import Settings
from hierrouter.pool.openai_waiting import QUIET_S, Waiting, pause_s
from hierrouter.pool.openai_words import KEPT, OddAnswerError, Words, server_said
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from hierrouter.config import ModelSpec
    from hierrouter.pool.backend import Completion, OnReply

TEMPLATE_TOKENS = 64
"""A cautious guess of what the server's chat template adds to a message."""
HOPELESS = 20
"""If so many calls, the first of all, are refused, the fault is not the calls'."""
BYTES_PER_TOKEN = 3
"""A cautious guess where a server's tokenizer is not at hand: real text has about 4."""


def estimated_tokens(text: str) -> int:
    """A cautious guess of a message's tokens, with what a chat template adds."""
    return TEMPLATE_TOKENS + math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


class OpenAIBackend:
    """Asks one server, many calls at a time. Only what `usage` reports is counted."""

    name = "openai"
    device = "endpoint"
    dtype = "unknown"

    def __init__(self, spec: ModelSpec, answered: bool = False, quiet_s: float = QUIET_S) -> None:
        """Connects to nothing yet.

        Args:
            spec: a model with an `endpoint`.
            answered: whether it is known to have answered before: refusals then are the calls' own,
                and what else goes wrong may pass.
            quiet_s: seconds without any answer after which it is said what is being waited for.
        """
        if spec.endpoint is None:
            raise HierRouterError(f"model {spec.name} has no endpoint")
        self.concurrency = spec.endpoint.concurrency
        self._endpoint, self._quiet_s = spec.endpoint, quiet_s
        self._words = Words(spec, spec.endpoint, answered)
        self._served = self._words.served
        self._settings = Settings(logprobs=True)
        self._begun, self._refused = 0, 0
        self._stopped = False
        self._waiting = Waiting(spec.name)
        self._line: Line | None = None
        self._opening = threading.Lock()

    def render(self, message: str) -> str:
        """The message itself: the server applies the chat template."""
        return message

    def count_tokens(self, text: str) -> int:
        """A cautious estimate, since the server's tokenizer is not at hand."""
        return estimated_tokens(text)

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
            ConfigError: the variable of the key holds what cannot be a key.
            UnreachableError: the server still does not answer, or refuses, after all retries; or it
                has answered before, and what it says now is of no use. Calls that are under way
                then are waited for and told to `on_reply`; no new ones are made. So it is where
                `on_reply` fails.
            RefusedError: it refuses some calls, as too long for instance; all others were made.
            HierRouterError: it never answered and refuses every call, or what it answers is no chat
                completion; or `stop` was called.
            KeyboardInterrupt: pressed by the user; calls under way are treated in the same way.
        """
        line = self._connected()
        halt = threading.Event()
        waiting: dict[Future[Completion | None], int] = {}
        done: dict[int, Completion] = {}
        failures: list[BaseException] = []
        # Not `as_completed`: a Ctrl-C while it takes the futures' locks leaves them taken, and the
        # loop then waits for ever.
        answered: SimpleQueue[Future[Completion | None]] = SimpleQueue()

        def tell(position: int, completion: Completion) -> None:
            try:
                if on_reply is not None:
                    on_reply(position, completion)
            except Exception as error:  # whatever it is: calls under way are paid for, too
                halt.set()
                failures.append(error)

        def take(future: Future[Completion | None]) -> None:
            position, error = waiting[future], future.exception()
            if error is not None:
                failures.append(error)
            elif (completion := future.result()) is not None:
                done[position] = completion
                tell(position, completion)
            # Last: a reply whose telling was interrupted is rather told twice than never.
            del waiting[future]

        def take_answers() -> None:
            for future in list(waiting):
                future.add_done_callback(answered.put)  # at once for one that is done
            while waiting:
                try:
                    future = answered.get(timeout=self._quiet_s)
                except Empty:
                    self._waiting.tell()
                    continue
                if future in waiting:
                    take(future)

        try:
            for position, asked in enumerate(zip(prompts, max_new_tokens, strict=True)):
                waiting[line.start(self._call(line, *asked, halt))] = position
            take_answers()
        except KeyboardInterrupt:
            halt.set()
            say(
                "stopping; calls under way are waited for, as they are paid for (Ctrl-C: drop them)"
            )
            take_answers()
            raise
        finally:
            halt.set()
            for future in waiting:
                future.cancel()
        if failures:
            raise _worst(failures, len(prompts))
        if len(done) < len(prompts):
            raise HierRouterError(f"{self._words.at} is not asked any further; {KEPT}")
        return [done[position] for position in range(len(prompts))]

    def listed_models(self) -> list[str]:
        """Names of the models that the server says it has, asked once and not again.

        Raises:
            HierRouterError: as `generate`.
        """
        line = self._connected()

        async def ask() -> list[str]:
            with self._words.translating(CONNECT_S):
                asked = line.client.with_options(max_retries=0, timeout=CONNECT_S)
                answer = await asked.models.with_raw_response.list(extra_headers=line.headers)
                try:
                    return [str(each.id) for each in answer.parse().data]
                except (AttributeError, TypeError, ValueError) as error:
                    raise self._words.garbage(answer.text, "list of models") from error

        names: list[str] = line.start(ask()).result()
        return names

    def stop(self) -> None:
        """Lets no new calls begin: `generate`, in another thread, waits for others and fails."""
        self._stopped = True

    def close(self) -> None:
        """Closes the connections; calls under way are given up."""
        with self._opening:
            self._stopped = False
            if self._line is not None:
                self._line.close()
                self._line = None

    def _connected(self) -> Line:
        with self._opening:
            if self._line is None:
                self._line = Line(self._endpoint, self._words.key(), self._waiting.failed)
            return self._line

    async def _call(
        self, line: Line, prompt: str, limit: int, halt: threading.Event
    ) -> Completion | None:
        """One call when its turn comes; none if `halt` is set by then."""
        async with line.places:
            if halt.is_set() or self._stopped:
                return None
            early = self._begun < HOPELESS
            self._begun += 1
            try:
                with self._waiting.call():
                    completion = await self._ask(line, prompt, limit, halt)
            except RefusedError as error:
                # Only of those: refusing is faster than answering.
                self._refused += early
                if self._words.answered or not early or self._refused < HOPELESS:
                    raise
                halt.set()
                raise HierRouterError(str(error)) from error
            except Exception:
                halt.set()  # before the place is free for a call that waits
                raise
            self._words.answered = True
            return completion

    async def _ask(self, line: Line, prompt: str, limit: int, halt: threading.Event) -> Completion:
        """A call made again after answers that may pass, unless no more calls are to be made."""
        tries, most = 0, self._endpoint.retries
        while True:
            try:
                return await self._ask_once(line, prompt, limit)
            except OddAnswerError as error:
                tries += 1
                spent = tries > (most if error.unpaid else min(most, SLOW_RETRIES))
                if spent or halt.is_set() or self._stopped:
                    raise
            self._waiting.failed("odd answer")
            await asyncio.sleep(pause_s(tries))

    async def _ask_once(self, line: Line, prompt: str, limit: int) -> Completion:
        import openai

        settings = self._settings.of(limit)
        while True:
            with self._words.translating(self._endpoint.timeout_s):
                try:
                    answer = await line.client.chat.completions.with_raw_response.create(
                        model=self._served,
                        messages=[{"role": "user", "content": prompt}],
                        temperature=0,
                        extra_headers=line.headers,
                        **settings,
                    )
                except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                    if not self._settings.mend(settings, server_said(error)):
                        raise
                    continue
                self._settings.keep(settings)
                return completion_of(answer, self._words)


def _worst(failures: Sequence[BaseException], calls: int) -> BaseException:
    """What to raise of several failures: refusals of single calls only if nothing else failed."""
    others = [failure for failure in failures if not isinstance(failure, RefusedError)]
    if others or len(failures) == 1:
        return (others or failures)[0]
    return RefusedError(f"{len(failures)} of {calls} calls refused, one of them: {failures[0]}")

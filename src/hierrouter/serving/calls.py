"""The calls that a hop could make of a request: their prompts, and what they may cost at most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.learning.actions import ANALYZE, ROLES, SOLVE
from hierrouter.pool.live.backend import LONG_TOKEN, Prompt, Turn
from hierrouter.pool.prompts import GAP, build_message, instruction_for, limit_for
from hierrouter.routes.costs import call_cost
from hierrouter.serving.events import TooLongError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.config import AnswerKind, PoolConfig
    from hierrouter.pool.live.member import Member
    from hierrouter.pool.prompts import Role

LABEL_TOKENS = 16
"""Tokens set aside for the heading under which an analysis will stand."""


class GivenUpError(Exception):
    """Nobody waits for what is being made."""


@dataclass(frozen=True)
class Question:
    """What is asked of the router."""

    text: str
    """The query: the last turn of the user."""
    before: tuple[Turn, ...] = ()
    """The turns before it, which the models read and the encoder does not."""
    max_tokens: int | None = None
    """Most new tokens of the answer, where fewer than the model's own limit are wanted."""
    kind: AnswerKind | None = None
    """Of a benchmark query, how its answer is to be written; the models are told, the encoder is
    not."""
    task: str | None = None
    """Of a benchmark query, its task, which may have token limits of its own."""


def check_length(question: Question, pool: PoolConfig) -> None:
    """Refuses a question so long that its tokens need not be counted, by anybody.

    Raises:
        TooLongError: it is.
    """
    characters, most = len(question.text), pool.prompts.max_context_tokens
    if characters > LONG_TOKEN * most:
        raise TooLongError(
            f"a question of {characters} characters is longer than the {most} tokens that the "
            "pool's models are given (pool.prompts.max_context_tokens)"
        )


class Calls:
    """The calls of one request; knows the pool, not the policy."""

    def __init__(self, question: Question, pool: PoolConfig, members: Sequence[Member]) -> None:
        """Takes the question and who may be asked."""
        self._question, self._pool, self._members = question, pool, members
        self.replies: list[tuple[Role, str]] = []
        """Role and text of the calls made so far."""
        self.given_up = False
        """Set from another thread once nobody waits for the request: whatever is made ends."""
        self._bare: dict[tuple[int, int, int, int], int] = {}
        self._made: dict[tuple[int, str], Prompt] = {}

    def limit(self, action: int) -> int:
        """The most new tokens of a call."""
        spec, role = self._pool.models[action // 2], ROLES[action % 2]
        limit = limit_for(spec, role, self._question.task)
        if role == "solve" and self._question.max_tokens is not None:
            limit = min(limit, self._question.max_tokens)
        return limit

    def prompt(self, action: int, hop: int, dollars: float = math.inf) -> Prompt:
        """The prompt of a call.

        Args:
            action: which model in which role.
            hop: the hop index l.
            dollars: what the call may cost at most. Earlier replies lose their middles where that
                makes it cheap enough; a question is never cut.

        Raises:
            HierRouterError: it is too long even so, or the model cannot read it.
        """
        prompt = self._prompt(action, hop, self.replies)
        if self._most(action, prompt.tokens_in) <= dollars or not self.replies:
            return prompt
        rate = self._pool.models[action // 2].rate
        affordable = math.floor(dollars / rate * 1000) - self.limit(action)
        return self._prompt(action, hop, self.replies, affordable)

    def most(self, action: int, hop: int, dollars: float) -> float:
        """The most dollars that a call can cost; infinity where it cannot be made for `dollars`."""
        try:
            most = self._most(action, self.prompt(action, hop, dollars).tokens_in)
        except HierRouterError:
            return math.inf
        return most if most <= dollars else math.inf

    def cheapest_end(
        self, allowed: NDArray[np.bool_], hop: int, analysed: Sequence[int] = ()
    ) -> float:
        """The least that the rest of a route from a hop on may be made to cost.

        Args:
            allowed: L x (2 M + 1) flags of the actions that may be taken.
            hop: the hop index l.
            analysed: limits of the analyses that come before it and are not there yet.
        """
        if hop >= len(allowed):
            return math.inf
        replies = [*self.replies, *(("analyze", GAP) for _ in analysed)]
        extra = sum(analysed) + LABEL_TOKENS * len(analysed)
        least = math.inf
        for action in map(int, allowed[hop].nonzero()[0]):
            place = action, hop, len(self.replies), len(analysed)
            try:
                if place not in self._bare:
                    self._bare[place] = self._prompt(action, hop, replies).tokens_in
            except HierRouterError:
                continue
            tokens = self._bare[place] + extra
            most = self._most(action, tokens)
            try:
                backend = self._members[action // 2].backend
                backend.require_window(Prompt((), tokens), self.limit(action))
            except HierRouterError:
                continue
            if action % 2 == ANALYZE and most < least:
                most += self.cheapest_end(allowed, hop + 1, [*analysed, self.limit(action)])
            least = min(least, most)
        return least

    def affordable(
        self, allowed: NDArray[np.bool_], hop: int, dollars: float
    ) -> tuple[NDArray[np.bool_], float]:
        """Which actions of a hop leave a whole route within a budget.

        Args:
            allowed: L x (2 M + 1) flags of the actions that may be taken.
            hop: the hop index l.
            dollars: what is left.

        Returns:
            2 M + 1 flags, and the least that any route from here on may be made to cost.
        """
        fits = allowed[hop].copy()
        fits[:] = False
        least = math.inf
        for action in map(int, allowed[hop].nonzero()[0]):
            if action % 2 == SOLVE:
                most = self.most(action, hop, dollars)
                floor = most if most < math.inf else self._floor(action, hop)
            else:
                # An analysis is not cut to fit: it would plan from a part of what is known.
                floor = self._floor(action, hop)
                rest = self.cheapest_end(allowed, hop + 1, [self.limit(action)])
                most = floor = floor + rest
            fits[action] = most <= dollars
            least = min(least, floor)
        return fits, least

    def later(
        self, action: int, allowed: NDArray[np.bool_], hop: int, dollars: float
    ) -> NDArray[np.bool_]:
        """Who could still be paid for an answer after a call.

        Args:
            action: the call.
            allowed: L x (2 M + 1) flags of the actions that may be taken.
            hop: the hop index l of the call.
            dollars: what is left before it.

        Returns:
            M flags.
        """
        ends = allowed.copy()
        if action % 2 == ANALYZE:
            after, analysed = hop + 1, [self.limit(action)]
        else:
            after, analysed = hop, []
            ends[:, ANALYZE::2] = False
        left = dollars - self._floor(action, hop)
        flags = np.zeros(len(self._members), dtype=np.bool_)
        if after >= len(allowed):
            return flags
        if allowed[after, SOLVE::2].any():
            ends[:, ANALYZE::2] = False  # to answer at once is cheapest
        for model in range(len(flags)):
            ends[:, SOLVE::2] = False
            ends[:, 2 * model + SOLVE] = allowed[:, 2 * model + SOLVE]
            flags[model] = self.cheapest_end(ends, after, analysed) <= left
        return flags

    def _floor(self, action: int, hop: int) -> float:
        """The most that a call can cost with its context as it is."""
        try:
            return self._most(action, self._prompt(action, hop, self.replies).tokens_in)
        except HierRouterError:
            return math.inf

    def _most(self, action: int, tokens_in: int) -> float:
        return call_cost(self._pool.models[action // 2].rate, tokens_in, self.limit(action))

    def _prompt(
        self,
        action: int,
        hop: int,
        replies: Sequence[tuple[Role, str]],
        affordable: int | None = None,
    ) -> Prompt:
        spec, role = self._pool.models[action // 2], ROLES[action % 2]
        if self.given_up:
            raise GivenUpError
        backend = self._members[action // 2].backend
        prompts, before = self._pool.prompts, self._question.before
        longest = prompts.max_context_tokens
        kind = self._question.kind
        answer_format = getattr(prompts.answer_formats, kind) if kind and role == "solve" else ""

        def whole(message: str) -> Prompt:
            # Members with the same weights are often asked in the same words.
            place = id(backend), message
            if place not in self._made:
                self._made[place] = backend.prepare([*before, Turn("user", message)])
            return self._made[place]

        message = build_message(
            self._question.text,
            replies,
            instruction_for(prompts, spec, hop, role, any_before=bool(replies)),
            answer_format,
            backend.count_tokens if affordable is None else lambda text: whole(text).tokens_in,
            longest if affordable is None else affordable,
        )
        prompt = whole(message)
        backend.require_window(prompt, self.limit(action))
        return prompt

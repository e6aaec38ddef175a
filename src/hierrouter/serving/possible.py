"""What may be done at a decision of a live route: what is alive, affordable, and in time.

All of these are masks over the router's actions: the policy decides among what is left.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from hierrouter.learning.actions import ACCEPT, ANALYZE, ROLES, SOLVE
from hierrouter.learning.rests import Left
from hierrouter.serving.events import (
    NobodyAnswersError,
    NotTakenError,
    TooDearError,
    TooLongError,
)
from hierrouter.serving.hand import Hand

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from hierrouter.errors import HierRouterError
    from hierrouter.learning.router import Router
    from hierrouter.pool.live.member import Member
    from hierrouter.serving.calls import Calls, Question
    from hierrouter.serving.events import Route
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.trim import Trim

P = ParamSpec("P")
T = TypeVar("T")
RETRY_S = 1.0
"""After how long it is worth asking again where no model says it itself."""


@dataclass
class Play:
    """One request under way."""

    question: Question
    terms: Terms
    calls: Calls
    allowed: NDArray[np.bool_]
    """L x (2 M + 1) flags: what the request leaves."""
    deadline: float | None
    pieces: bool
    trim: Trim
    route: Route
    began: float = field(default_factory=perf_counter)
    query: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """The question's vector, once it was encoded."""
    context: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """The context's vector, once a decision was made in it."""
    hand: Hand = field(default_factory=Hand)
    """Answers that may be accepted."""
    failed: set[int] = field(default_factory=set)
    """Models that failed."""
    refused: set[int] = field(default_factory=set)
    """Models that refused the conversation."""
    too_long: set[int] = field(default_factory=set)
    """Those of them for which it is too long, as could be told without asking."""

    @property
    def analyses(self) -> int:
        """How many were made.

        An answer is not shown to those who are asked after it: to them this is the hop index.
        """
        return len(self.calls.replies)

    @property
    def left_usd(self) -> float:
        """Dollars that may still be spent."""
        most = self.terms.max_cost
        return math.inf if most is None else most - self.route.cost_usd


class Prompting:
    """Makes prompts; in a thread of its own where that means tokenizing."""

    def __init__(self, members: Sequence[Member]) -> None:
        """Takes the models that prompts are made for."""
        tokenizing = any(member.backend.tokenizes for member in members)
        self._tokenizing = ThreadPoolExecutor(1, "prompts") if tokenizing else None

    def close(self) -> None:
        """What is being made is given up."""
        if self._tokenizing is not None:
            self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def off_loop(
        self, play: Play, work: Callable[P, T], *given: P.args, **none: P.kwargs
    ) -> T:
        """Makes prompts in a thread where that means tokenizing: other requests go on meanwhile."""
        if self._tokenizing is None:
            return work(*given, **none)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(play.deadline):
                return await loop.run_in_executor(self._tokenizing, partial(work, *given, **none))
        except (TimeoutError, asyncio.CancelledError):
            # The thread would go on with what nobody waits for, and others wait for the thread.
            play.calls.given_up = True
            raise


class Possible:
    """Which actions are left of those that a router's moves allow."""

    def __init__(self, router: Router, members: Sequence[Member], prompting: Prompting) -> None:
        """Takes a router and those who answer for it."""
        self._router, self._members, self._prompting = router, members, prompting

    def at_first(self, terms: Terms) -> NDArray[np.bool_]:
        """Which calls the terms leave at each hop that may be made."""
        allowed = self._router.allowed[: terms.hops].copy()
        allowed[:, ACCEPT] = False
        if terms.hops < self._router.info.hops:
            allowed[-1, ANALYZE::2] = False
        return _without(allowed, set(range(len(self._members))) - terms.models)

    async def now(self, play: Play) -> tuple[NDArray[np.bool_], set[int]]:
        """What may be done next, 2 M + 1 flags, and which of the models fail at present.

        Raises:
            HierRouterError: nothing may, and no answer is in hand.
            TimeoutError: the deadline has passed.
        """
        index, terms = play.analyses, play.terms
        dead = {
            model
            for model in terms.models
            if model in play.failed or self._members[model].breaker.wait_s > 0
        }
        able = _without(play.allowed, dead | play.refused | set(play.hand.models))
        possible = able[index]
        if play.hand:
            return await self._after(play, able), dead
        if terms.max_cost is not None:
            possible = await self._prompting.off_loop(play, self._affordable, play, able, dead)
        elif not possible.any():
            raise self._nobody(play, dead)
        return self._in_time(play, able, possible), dead

    async def left(
        self, play: Play, stage: int, possible: NDArray[np.bool_], gone: set[int]
    ) -> Left | None:
        """Who may be asked after each of the possible actions, and how many calls may be made.

        None where that changes nothing in how the router decides.

        Args:
            play: the request.
            stage: where on the route it is.
            possible: 2 M + 1 flags.
            gone: models that are not counted on.
        """
        if not self._router.knows_limits:
            return None
        terms = play.terms
        able = _without(play.allowed, gone | play.refused)
        who = np.zeros((len(possible), len(self._members)), dtype=np.bool_)
        who[:, list(terms.models - gone - play.refused)] = True
        if terms.max_cost is not None:
            for action in self._router.rests.at(stage)[1]:
                if not possible[action]:
                    continue
                left = play.left_usd
                who[action] &= await self._prompting.off_loop(
                    play, play.calls.later, action, able, play.analyses, left
                )
        return Left(who[None], np.array([terms.hops]))

    async def wished(
        self, play: Play, dead: set[int], possible: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """What would be possible if the `dead` models did not fail."""
        index, allowed = play.analyses, play.allowed[play.analyses]
        whole = _without(play.allowed, play.refused)
        fits = whole[index]
        if play.terms.max_cost is not None:
            left = play.left_usd
            fits, _ = await self._prompting.off_loop(
                play, play.calls.affordable, whole, index, left
            )
        asked_for = possible.copy()
        for model in dead:
            pair = [2 * model + ANALYZE, 2 * model + SOLVE]
            asked_for[pair] = allowed[pair] & fits[pair]
        return asked_for

    async def _after(self, play: Play, able: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """With answers in hand: to accept, and to ask those who stay within cost and time."""
        index = play.analyses
        able[:, ANALYZE:-1:2] = False
        possible: NDArray[np.bool_] = able[index].copy()
        if play.terms.max_cost is not None:
            left = play.left_usd
            possible, _ = await self._prompting.off_loop(
                play, play.calls.affordable, able, index, left
            )
        if play.deadline is not None:
            left = play.deadline - asyncio.get_running_loop().time()
            for action in map(int, possible.nonzero()[0]):
                possible[action] = self._members[action // 2].expected_s("solve") <= left
        possible[ACCEPT] = True
        return possible

    def _affordable(self, play: Play, able: NDArray[np.bool_], dead: set[int]) -> NDArray[np.bool_]:
        """Which of the possible actions leave a whole route within `max_cost`.

        `dead` are the models that fail, and that none of these are of.
        """
        index, left = play.analyses, play.left_usd
        fits, _ = play.calls.affordable(able, index, left)
        if fits.any():
            return fits
        # A model that refuses this conversation does so again: it gives no hope.
        willing = _without(play.allowed, play.refused)
        fits, least = play.calls.affordable(willing, index, left)
        if dead and (index or fits.any() or play.route.lost):
            raise self._nobody(play, dead)
        if not dead and play.refused:
            raise self._nobody(play, set(), "every model that hierrouter.max_cost leaves")
        if least == math.inf:
            raise TooLongError("the question is too long for every allowed model")
        lower = "" if play.question.max_tokens is None else ", or lower max_tokens"
        raise TooDearError(
            f"hierrouter.max_cost is {left:.3g} dollars; the cheapest route may cost {least:.3g}: "
            f"raise it{lower}"
        )

    def _in_time(
        self, play: Play, able: NDArray[np.bool_], possible: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which of the possible actions leave time for an answer, going by the latest calls."""
        if play.deadline is None:
            return possible
        left = play.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise TimeoutError
        needed = np.full(len(possible), np.inf)
        for action in map(int, possible.nonzero()[0]):
            needed[action] = self._members[action // 2].expected_s(ROLES[action % 2])
            if action % 2 == ANALYZE:
                needed[action] += self._expected_end(able, play.analyses + 1)
        # The estimates are of other questions: what is quickest is tried whatever they say.
        quick: NDArray[np.bool_] = (needed <= left) | (needed == needed.min())
        return possible & quick

    def _expected_end(self, able: NDArray[np.bool_], index: int) -> float:
        """Expected seconds of the quickest rest of a route."""
        if index >= len(able):
            return math.inf
        quickest = math.inf
        for action in map(int, able[index].nonzero()[0]):
            took = self._members[action // 2].expected_s(ROLES[action % 2])
            if action % 2 == ANALYZE and took < quickest:
                took += self._expected_end(able, index + 1)
            quickest = min(quickest, took)
        return quickest

    def _nobody(
        self, play: Play, dead: set[int], whom: str = "every allowed model"
    ) -> HierRouterError:
        """What to raise where no model is left."""
        if not dead:
            if play.refused <= play.too_long:
                return TooLongError(f"the conversation is too long for {whom}")
            return NotTakenError(
                f"{whom} refuses this conversation: it may be too long, or have turns that a "
                "model's template does not take"
            )
        waits = [self._members[model].breaker.wait_s or RETRY_S for model in dead]
        names = ", ".join(self._members[model].spec.name for model in sorted(dead))
        return NobodyAnswersError(
            f"no model of the pool answers at present ({names})", max(RETRY_S, min(waits))
        )


def _without(allowed: NDArray[np.bool_], models: Collection[int]) -> NDArray[np.bool_]:
    """L x (2 M + 1) flags with the actions of some models taken out."""
    rest = allowed.copy()
    for model in models:
        rest[:, [2 * model + ANALYZE, 2 * model + SOLVE]] = False
    return rest

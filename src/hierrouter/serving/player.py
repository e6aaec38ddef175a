"""Playing a route live: decide, call, look, until an answer is there (section 3 of the paper).

The policy is the recorded world's; what differs is that models are asked now, may fail, and that a
request may limit what it costs, how long it takes and who is asked. All of these are masks over
the same actions: the policy decides among what is possible.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from hierrouter.errors import DamagedFileError, HierRouterError, RefusedError
from hierrouter.learning.actions import ACCEPT, ANALYZE, ROLES, SOLVE, action_name
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import WindowError
from hierrouter.pool.live.member import Bill
from hierrouter.routes.costs import call_cost
from hierrouter.routes.views import state_of, texts_of
from hierrouter.serving.calls import Calls
from hierrouter.serving.events import (
    Accepted,
    BrokenOffError,
    Decision,
    Hop,
    LateError,
    NobodyAnswersError,
    NotTakenError,
    Route,
    Text,
    TooDearError,
    TooLongError,
)
from hierrouter.serving.hand import Answer, Hand
from hierrouter.serving.trim import Trim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from hierrouter.config import PoolConfig
    from hierrouter.learning.router import Router
    from hierrouter.pool.live.backend import Prompt
    from hierrouter.pool.live.fleet import Fleet
    from hierrouter.serving.calls import Question
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.vectors import Vectors

Event = Decision | Text | Hop | Accepted
P = ParamSpec("P")
T = TypeVar("T")
RETRY_S = 1.0
"""After how long it is worth asking again where no model says it itself."""


@dataclass
class _Play:
    """One request under way."""

    question: Question
    terms: Terms
    calls: Calls
    allowed: NDArray[np.bool_]
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


class Player:
    """Plays routes of a router over live models, many at a time."""

    def __init__(self, router: Router, pool: PoolConfig, fleet: Fleet, vectors: Vectors) -> None:
        """Takes a router, its pool as it is served, what answers for it, and its encoder."""
        self.router, self.pool, self.fleet = router, pool, fleet
        self.members = tuple(fleet.members)
        self._vectors = vectors
        tokenizing = any(member.backend.tokenizes for member in self.members)
        self._tokenizing = ThreadPoolExecutor(1, "prompts") if tokenizing else None

    async def close(self) -> None:
        """Frees models and encoder; routes under way fail."""
        await self.fleet.close()
        self._vectors.close()
        if self._tokenizing is not None:
            self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def play(
        self,
        question: Question,
        terms: Terms,
        route: Route,
        *,
        stop: Sequence[str] = (),
        pieces: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """Answers one question.

        Closing the generator ends the call that is under way.

        Args:
            question: what is asked.
            terms: how it may be answered.
            route: a new one; what the request took is kept in it also when it fails.
            stop: texts before which the answer ends.
            pieces: whether the answer is wanted as it comes.

        Yields:
            Each decision, the pieces of the answer, and each finished hop. Where another model may
            be asked after an answer, the one that is returned comes whole, once it is accepted.

        Raises:
            TooDearError, TooLongError, NobodyAnswersError: nothing of an answer was there yet.
            BrokenOffError: it was, and the model failed.
            LateError: the deadline has passed, and no whole answer was there.
        """
        now = asyncio.get_running_loop().time()
        play = _Play(
            question,
            terms,
            Calls(question, self.pool, self.members),
            self._allowed(terms),
            None if terms.deadline_s is None else now + terms.deadline_s,
            pieces,
            Trim(stop),
            route,
        )
        play.calls.check_length()
        try:
            for index in range(terms.hops):
                async with aclosing(self._hop(play, index)) as events:
                    async for event in events:
                        yield event
                if route.returned is not None:
                    return
                if len(route.hops) == index:
                    break  # what is in hand is accepted
                last = route.hops[-1]
                if last.decision.role == "analyze":
                    play.calls.replies.append((last.decision.role, last.completion.reply))
            for event in self._accept(play):
                yield event
        except TimeoutError as error:
            if play.hand:
                for event in self._accept(play):
                    yield event
                return
            line = f"no whole answer within the {terms.deadline_s:g} s of hierrouter.deadline_ms"
            raise LateError(f"{line}; allow more, or fewer hops") from error

    def _allowed(self, terms: Terms) -> NDArray[np.bool_]:
        """Which calls the terms leave at each hop that may be made."""
        allowed = self.router.allowed[: terms.hops].copy()
        allowed[:, ACCEPT] = False
        if terms.hops < self.router.info.hops:
            allowed[-1, ANALYZE::2] = False
        return _without(allowed, set(range(len(self.members))) - terms.models)

    async def _hop(self, play: _Play, index: int) -> AsyncGenerator[Event, None]:
        """One hop: again with another model while the chosen one fails before it says anything.

        Ends without a hop where what is in hand is accepted.
        """
        route = play.route
        # Whether it is known of an answer that it will be returned; else it is held.
        last = not self.router.stages.answered or (index == play.terms.hops - 1 and not play.hand)
        while True:
            started = perf_counter()
            action, decision = await self._decide(play, index)
            decided = perf_counter()
            if decision.fallback:
                route.degraded = True
            if action == 2 * len(self.members):
                return
            yield decision
            member = self.members[action // 2]
            route.asking = member.spec.name
            solves = action % 2 == SOLVE
            said, first = "", 0.0
            completion: Completion | None = None
            prompt: Prompt | None = None
            # Under a limit, what a lost try may have cost is taken off before another is sent.
            bill = Bill() if play.terms.max_cost is None else Bill(1)
            try:
                left = self._left(play)
                prompt = await self._off_loop(
                    play, play.calls.prompt, action, len(play.calls.replies), left
                )
                await self.fleet.ready(member)
                asked = perf_counter()
                calling = member.call(
                    prompt,
                    play.calls.limit(action),
                    decision.role,
                    pieces=solves and ((play.pieces and last) or bool(play.trim.stops)),
                    stop=play.trim.stops if solves else (),
                    deadline=play.deadline,
                    bill=bill,
                )
                async with aclosing(calling) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Completion):
                            completion = piece
                            break
                        first = first or perf_counter()
                        said += piece
                        if solves and (text := play.trim.add(piece)) and last:
                            yield Text(text)
                        if play.trim.stopped:
                            break
            except HierRouterError as error:
                self._note_failure(play, action, error, prompt)
                if play.trim.said and play.pieces and last:
                    raise BrokenOffError(
                        f"model {member.spec.name} broke its answer off"
                    ) from error
                play.trim = Trim(play.trim.stops)
                continue
            finally:
                if prompt is not None:
                    given_up = completion is None and bill.sent and not play.trim.stopped
                    self._note_lost(play, action, prompt, bill.lost, said if given_up else None)
            if completion is None:
                completion = self._cut(play, action, prompt, said, perf_counter() - asked)
            if solves:
                text = "" if said else play.trim.add(completion.reply)
                if (text := text + play.trim.finish()) and last:
                    yield Text(text)
                reason = "stop" if play.trim.stopped else completion.finish_reason
                answer = Answer(len(route.hops), completion, play.trim.said, reason)
                if last:
                    self._return(route, answer)
                else:
                    play.hand.add(action // 2, answer)
                    play.trim = Trim(play.trim.stops)
            spec = member.spec
            # As the model took it, however slowly the pieces were read.
            latency_s = asked - started + completion.latency_s
            hop = Hop(
                decision=decision,
                completion=completion,
                cost_usd=call_cost(spec.rate, completion.tokens_in, completion.tokens_out),
                started_s=started - play.began,
                latency_s=latency_s,
                decided_s=decided - started,
                # On another clock than the model's: a busy loop reads late.
                first_s=min(first - started, latency_s) if first else None,
            )
            route.hops.append(hop)
            route.asking = ""
            yield hop
            return

    def _accept(self, play: _Play) -> Iterator[Event]:
        """Returns the answer in hand that is believed in most."""
        model, *others = play.hand.models
        if others:
            stage, seen = self._stage(play), play.hand.shown(self.router.stages.most_answers)
            belief = self.router.beliefs(play.query[None], play.context[None], stage, seen)
            model = int(belief[0].argmax())
        answer = play.hand[model]
        self._return(play.route, answer)
        play.route.asking = ""
        yield Accepted(self.router.info.models[model], answer.hop)
        if answer.text:
            yield Text(answer.text)

    @staticmethod
    def _return(route: Route, answer: Answer) -> None:
        route.answer, route.finish_reason = answer.text, answer.finish_reason
        route.returned = answer.hop

    async def _decide(self, play: _Play, index: int) -> tuple[int, Decision]:
        """The policy's choice among what is possible now."""
        # An answer is not shown to those who are asked after it: to them the hop is the same.
        index = len(play.calls.replies)
        allowed, terms = play.allowed[index], play.terms
        dead = {
            model
            for model in terms.models
            if model in play.failed or self.members[model].breaker.wait_s > 0
        }
        able = _without(play.allowed, dead | play.refused | set(play.hand.models))
        possible = able[index]
        if play.hand:
            possible = await self._possible_after(play, able, index)
        elif terms.max_cost is not None:
            possible = await self._off_loop(play, self._affordable, play, able, index, dead)
        elif not possible.any():
            raise self._nobody(play, dead)
        seen = None
        if play.hand:
            seen = play.hand.shown(self.router.stages.most_answers)
        else:
            possible = self._in_time(play, able, index, possible)
            play.context = await self._state(play)
        if not index:
            play.query = play.context
        # Every decision sees the bare question, too.
        vectors = (play.query[None], play.context[None])
        stage = self._stage(play)
        spent = np.array([play.route.cost_usd])

        def scores(among: NDArray[np.bool_]) -> NDArray[np.float32]:
            every = self.router.scores(*vectors, stage, spent, play.route.alpha, among, seen)
            row: NDArray[np.float32] = every[0]
            return row

        found = scores(possible)
        action = int(found.argmax())
        if not np.isfinite(found[action]):
            raise DamagedFileError(
                "the router's weights give no decision here; copy the router again or train it anew"
            )
        wished = action
        if dead:
            asked_for = await self._wished(play, index, allowed, dead, possible)
            wished = int(scores(asked_for).argmax())
        order = [int(each) for each in np.argsort(-found) if np.isfinite(found[each])]
        names = self.router.info.models
        accepts = action == 2 * len(names)
        return action, Decision(
            index=len(play.route.hops),
            model="" if accepts else names[action // 2],
            role=ROLES[action % 2],
            chances={action_name(each, names): float(np.exp(found[each])) for each in order},
            fallback=wished // 2 in dead,
        )

    def _stage(self, play: _Play) -> int:
        """Where on the route the next decision is made."""
        models = self.router.info.models
        analysts = [
            models.index(hop.decision.model)
            for hop in play.route.hops
            if hop.decision.role == "analyze"
        ]
        return self.router.stages.of(analysts, play.hand.models)

    async def _possible_after(
        self, play: _Play, able: NDArray[np.bool_], index: int
    ) -> NDArray[np.bool_]:
        """With answers in hand: to accept, and to ask those who stay within cost and time."""
        able[:, ANALYZE:-1:2] = False
        possible: NDArray[np.bool_] = able[index].copy()
        if play.terms.max_cost is not None:
            left = self._left(play)
            possible, _ = await self._off_loop(play, play.calls.affordable, able, index, left)
        if play.deadline is not None:
            left = play.deadline - asyncio.get_running_loop().time()
            for action in map(int, possible.nonzero()[0]):
                possible[action] = self.members[action // 2].expected_s("solve") <= left
        possible[ACCEPT] = True
        return possible

    async def _wished(
        self,
        play: _Play,
        index: int,
        allowed: NDArray[np.bool_],
        dead: set[int],
        possible: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """What would be possible if no model failed."""
        whole = _without(play.allowed, play.refused)
        fits = whole[index]
        if play.terms.max_cost is not None:
            left = self._left(play)
            fits, _ = await self._off_loop(play, play.calls.affordable, whole, index, left)
        asked_for = possible.copy()
        for model in dead:
            pair = [2 * model + ANALYZE, 2 * model + SOLVE]
            asked_for[pair] = allowed[pair] & fits[pair]
        return asked_for

    async def _off_loop(
        self, play: _Play, work: Callable[P, T], *given: P.args, **none: P.kwargs
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

    async def _state(self, play: _Play) -> NDArray[np.float32]:
        info, question = self.router.info, play.question.text
        texts = texts_of(info.view, question, play.calls.replies, self.pool.encoder.max_tokens)
        async with asyncio.timeout_at(play.deadline):
            state: NDArray[np.float32] = state_of(info.view, await self._vectors.of(texts))
        return state

    def _affordable(
        self, play: _Play, able: NDArray[np.bool_], index: int, dead: set[int]
    ) -> NDArray[np.bool_]:
        """Which of the possible actions leave a whole route within `max_cost`.

        `dead` are the models that fail, and that none of these are of.
        """
        left = self._left(play)
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
        self, play: _Play, able: NDArray[np.bool_], index: int, possible: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which of the possible actions leave time for an answer, going by the latest calls."""
        if play.deadline is None:
            return possible
        left = play.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise TimeoutError
        needed = np.full(len(possible), np.inf)
        for action in map(int, possible.nonzero()[0]):
            needed[action] = self.members[action // 2].expected_s(ROLES[action % 2])
            if action % 2 == ANALYZE:
                needed[action] += self._expected_end(able, index + 1)
        # The estimates are of other questions: what is quickest is tried whatever they say.
        quick: NDArray[np.bool_] = (needed <= left) | (needed == needed.min())
        return possible & quick

    def _expected_end(self, able: NDArray[np.bool_], index: int) -> float:
        """Expected seconds of the quickest rest of a route."""
        if index >= len(able):
            return math.inf
        quickest = math.inf
        for action in map(int, able[index].nonzero()[0]):
            took = self.members[action // 2].expected_s(ROLES[action % 2])
            if action % 2 == ANALYZE and took < quickest:
                took += self._expected_end(able, index + 1)
            quickest = min(quickest, took)
        return quickest

    def _left(self, play: _Play) -> float:
        most = play.terms.max_cost
        return math.inf if most is None else most - play.route.cost_usd

    def _nobody(
        self, play: _Play, dead: set[int], whom: str = "every allowed model"
    ) -> HierRouterError:
        """What to raise where no model is left."""
        if not dead:
            if play.refused <= play.too_long:
                return TooLongError(f"the conversation is too long for {whom}")
            return NotTakenError(
                f"{whom} refuses this conversation: it may be too long, or have turns that a "
                "model's template does not take"
            )
        waits = [self.members[model].breaker.wait_s or RETRY_S for model in dead]
        names = ", ".join(self.members[model].spec.name for model in sorted(dead))
        return NobodyAnswersError(
            f"no model of the pool answers at present ({names})", max(RETRY_S, min(waits))
        )

    def _note_failure(
        self, play: _Play, action: int, error: HierRouterError, prompt: Prompt | None
    ) -> None:
        """A call failed: its model is left out from now on."""
        model = action // 2
        # A refusal, or a prompt that cannot be made, says nothing about other questions.
        if prompt is None or isinstance(error, RefusedError):
            play.refused.add(model)
            if isinstance(error, WindowError) or not isinstance(error, RefusedError):
                play.too_long.add(model)
        else:
            play.failed.add(model)
        play.route.degraded = True
        play.route.failures.append(str(error))

    def _note_lost(
        self, play: _Play, action: int, prompt: Prompt, lost: int, given_up: str | None
    ) -> None:
        """Keeps what was paid, or may have been, for no reply.

        A try that failed may have been worked on to its end: it counts as much as a call can cost
        at most. One that was given up (the client left, the time was over) counts what it said.
        """
        rate = self.members[action // 2].spec.rate
        dollars = lost * call_cost(rate, prompt.tokens_in, play.calls.limit(action))
        if given_up is not None:
            cut = self._cut(play, action, prompt, given_up, 0.0)
            dollars += call_cost(rate, cut.tokens_in, cut.tokens_out)
        if dollars:
            model = self.router.info.models[action // 2]
            play.route.lost[model] = play.route.lost.get(model, 0.0) + dollars

    def _cut(self, play: _Play, action: int, prompt: Prompt, said: str, took: float) -> Completion:
        """A reply of which no more is wanted, or to be had; its tokens are counted here."""
        counted = self.members[action // 2].backend.count_tokens(said)
        return Completion(
            reply=said.strip(),
            tokens_in=prompt.tokens_in,
            tokens_out=min(counted, play.calls.limit(action)),
            finish_reason="stop",
            latency_s=took,
            logprob_mean=math.nan,
            logprob_min=math.nan,
        )


def _without(allowed: NDArray[np.bool_], models: Collection[int]) -> NDArray[np.bool_]:
    """L x (2 M + 1) flags with the actions of some models taken out."""
    rest = allowed.copy()
    for model in models:
        rest[:, [2 * model + ANALYZE, 2 * model + SOLVE]] = False
    return rest

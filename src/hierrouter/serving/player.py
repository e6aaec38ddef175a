"""Playing a route live: decide, call, look, until an answer is there (section 3 of the paper).

The policy is the recorded world's; what differs is that models are asked now, may fail, and that a
request may limit what it costs, how long it takes and who is asked. All of these are masks over
the same actions: the policy decides among what is possible.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from hierrouter.errors import DamagedFileError, HierRouterError, RefusedError
from hierrouter.learning.actions import ROLES, SOLVE, action_name, best_of
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import WindowError
from hierrouter.pool.live.member import Bill
from hierrouter.routes.costs import call_cost
from hierrouter.routes.views import state_of, texts_of
from hierrouter.serving.calls import Calls, check_length
from hierrouter.serving.events import (
    Accepted,
    BrokenOffError,
    Decision,
    Failure,
    Hop,
    LateError,
    Route,
    Text,
)
from hierrouter.serving.hand import Answer
from hierrouter.serving.possible import Play, Possible, Prompting
from hierrouter.serving.trim import Trim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

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


class Player:
    """Plays routes of a router over live models, many at a time."""

    def __init__(self, router: Router, pool: PoolConfig, fleet: Fleet, vectors: Vectors) -> None:
        """Takes a router, its pool as it is served, what answers for it, and its encoder."""
        self.router, self.pool, self.fleet = router, pool, fleet
        self.members = tuple(fleet.members)
        self._vectors = vectors
        self._prompting = Prompting(self.members)
        self._possible = Possible(router, self.members, self._prompting)

    async def close(self) -> None:
        """Frees models and encoder; routes under way fail."""
        await self.fleet.close()
        self._vectors.close()
        self._prompting.close()

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
        play = Play(
            question,
            terms,
            Calls(question, self.pool, self.members),
            self._possible.at_first(terms),
            None if terms.deadline_s is None else now + terms.deadline_s,
            pieces,
            Trim(stop),
            route,
        )
        check_length(question, self.pool)
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

    async def _hop(self, play: Play, index: int) -> AsyncGenerator[Event, None]:
        """One hop: again with another model while the chosen one fails before it says anything.

        Ends without a hop where what is in hand is accepted.
        """
        route = play.route
        # Whether it is known of an answer that it will be returned; else it is held.
        last = not self.router.stages.answered or (index == play.terms.hops - 1 and not play.hand)
        while True:
            started = perf_counter()
            action, decision = await self._decide(play)
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
                left = play.left_usd
                prompt = await self._prompting.off_loop(
                    play, play.calls.prompt, action, play.analyses, left
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

    def _accept(self, play: Play) -> Iterator[Event]:
        """Returns the answer in hand that is believed in most."""
        model, *others = play.hand.models
        if others:
            stage, seen = self._stage(play), play.hand.shown(self.router.stages.most_answers)
            belief = self.router.beliefs(play.query[None], play.context[None], stage, seen)
            model = int(best_of(belief)[0])
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

    async def _decide(self, play: Play) -> tuple[int, Decision]:
        """The policy's choice among what is possible now."""
        possible, dead = await self._possible.now(play)
        seen = None
        if play.hand:
            seen = play.hand.shown(self.router.stages.most_answers)
        else:
            play.context = await self._state(play)
        if not play.route.hops:
            play.query = play.context
        # Every decision sees the bare question, too.
        vectors = (play.query[None], play.context[None])
        stage = self._stage(play)
        spent = np.array([play.route.cost_usd])

        async def scores(among: NDArray[np.bool_], gone: set[int]) -> NDArray[np.float32]:
            left = await self._possible.left(play, stage, among, gone)
            alpha = play.route.alpha
            every = self.router.scores(*vectors, stage, spent, alpha, among, seen, left)
            row: NDArray[np.float32] = every[0]
            return row

        found = await scores(possible, dead)
        action = int(best_of(found[None])[0])
        if not np.isfinite(found[action]):
            raise DamagedFileError(
                "the router's weights give no decision here; copy the router again or train it anew"
            )
        wished = action
        if dead:
            asked_for = await self._possible.wished(play, dead, possible)
            wished = int(best_of((await scores(asked_for, set()))[None])[0])
        order = [int(each) for each in np.argsort(-found) if np.isfinite(found[each])]
        names = self.router.info.models
        accepts = action == 2 * len(names)
        return action, Decision(
            index=len(play.route.hops),
            model="" if accepts else names[action // 2],
            role=ROLES[action % 2],
            chances={action_name(each, names): float(np.exp(found[each])) for each in order},
            fallback=wished != action,
        )

    def _stage(self, play: Play) -> int:
        """Where on the route the next decision is made."""
        models = self.router.info.models
        analysts = [
            models.index(hop.decision.model)
            for hop in play.route.hops
            if hop.decision.role == "analyze"
        ]
        return self.router.stages.of(analysts, play.hand.models)

    async def _state(self, play: Play) -> NDArray[np.float32]:
        info, question = self.router.info, play.question.text
        texts = texts_of(info.view, question, play.calls.replies, self.pool.encoder.max_tokens)
        async with asyncio.timeout_at(play.deadline):
            state: NDArray[np.float32] = state_of(info.view, await self._vectors.of(texts))
        return state

    def _note_failure(
        self, play: Play, action: int, error: HierRouterError, prompt: Prompt | None
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
        failure = Failure(
            self.members[model].spec.name, type(error).__name__, error.refused_with, str(error)
        )
        play.route.failures.append(failure)

    def _note_lost(
        self, play: Play, action: int, prompt: Prompt, lost: int, given_up: str | None
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

    def _cut(self, play: Play, action: int, prompt: Prompt, said: str, took: float) -> Completion:
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

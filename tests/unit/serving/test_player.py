"""Routes live: budgets that hold, models that fail, clients that go away, time that runs out."""

from __future__ import annotations

import asyncio
import itertools
import math
from contextlib import aclosing

import numpy as np
import pytest

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.learning.actions import ROLES, SOLVE, best_of
from hierrouter.learning.rests import Left
from hierrouter.learning.stages import stage_of
from hierrouter.pool.live.backend import Turn
from hierrouter.pool.live.member import FAILURES
from hierrouter.routes.views import state_of, texts_of
from hierrouter.serving.calls import Calls, GivenUpError, Question
from hierrouter.serving.events import (
    BrokenOffError,
    Decision,
    Failure,
    Hop,
    LateError,
    NobodyAnswersError,
    NotTakenError,
    Route,
    Text,
    TooDearError,
    TooLongError,
)
from hierrouter.serving.knobs import Knobs, terms_of
from hierrouter.serving.problems import problem_of
from hierrouter.serving.told import hop_object, request_entry

GONE = UnreachableError("the server is gone")


def seeds_that_begin_with(make_router, make_player, play_one, pool, wanted, **knobs):
    """The first arbitrary router whose first decision for the test's question is `wanted`."""
    for seed in range(200):
        router = make_router(pool, seed=seed)
        route, _ = asyncio.run(play_one(make_player(pool, router), **knobs))
        first = route.hops[0].decision
        if (first.model, first.role) == wanted:
            return router
    raise AssertionError(f"no router begins with {wanted}")


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("moves", ["early_exit", "paper"])
def test_max_cost_is_never_exceeded_and_refused_only_where_nothing_is_cheap_enough(
    make_pool, make_router, make_player, play_one, hops, moves
) -> None:
    rng = np.random.default_rng(hops)
    pool = make_pool(hops=hops, max_context_tokens=120)
    answered, refused, long_routes = 0, 0, 0
    # At how many decisions what is wanted is too dear, and what is taken is not the cheapest.
    held_back, not_cheapest = 0, 0

    async def run() -> None:
        nonlocal answered, refused, long_routes, held_back, not_cheapest
        for seed in range(170):
            router = make_router(pool, moves, seed)
            player = make_player(pool, router)
            text = " ".join(rng.choice(["alpha", "beta", "plus", "seven"], rng.integers(1, 30)))
            before = [Turn("user", "earlier words"), Turn("assistant", "and more")]
            max_tokens = int(rng.integers(1, 30)) if rng.random() < 0.5 else None
            question = Question(text, tuple(before[: 2 * (seed % 2)]), max_tokens)
            budget = float(np.exp(rng.uniform(np.log(0.01), np.log(1.0))))
            cheapest = bounds(player, question, moves)[0].min()
            asking = play_one(
                player, text, before=question.before, max_tokens=max_tokens, max_cost=budget
            )
            try:
                route, _ = await asking
            except TooDearError:
                refused += 1
                assert cheapest > budget
                continue
            answered += 1
            long_routes += len(route.hops) > 1
            assert route.cost_usd <= budget
            assert cheapest <= budget
            left = budget
            for at, hop in enumerate(route.hops):
                least, ends = bounds(player, question, moves, route.hops[:at], left)
                scores = await scores_at(player, text, route.hops[:at], ends <= left)
                best = int(best_of(np.where(least <= left, scores, -np.inf)[None])[0])
                assert (hop.decision.model, hop.decision.role) == (
                    "ABC"[best // 2],
                    ROLES[best % 2],
                )
                held_back += best != scores.argmax()
                not_cheapest += best != least.argmin()
                left -= hop.cost_usd

    asyncio.run(run())
    assert answered > 30
    assert refused > 30
    assert hops == 1 or long_routes > 5
    assert held_back > 5
    assert not_cheapest > 5


def bounds(player, question, moves, before=(), left=math.inf):
    """The least that a route with each next action can be bound to cost, by trying every one with
    replies cut away; `before` are the hops that were made, `left` dollars may still be spent. And
    the least of those routes that each model answers."""
    calls = Calls(question, player.pool, player.members)
    hops, at = player.router.info.hops, len(before)
    least = np.full(2 * len(player.members) + 1, np.inf)
    ends = np.full((len(least), len(player.members)), np.inf)
    for length in [hops] if moves == "paper" else range(at + 1, hops + 1):
        for models in itertools.product(range(len(player.members)), repeat=length - at):
            total, extra = 0.0, 0
            calls.replies = [(hop.decision.role, hop.completion.reply) for hop in before]
            for hop, model in enumerate(models, at):
                action = 2 * model + (hop == length - 1)
                if before and hop == at and action % 2 == SOLVE:
                    total = calls.most(action, hop, left)  # what was said before may be cut
                    break
                tokens = calls.prompt(action, hop).tokens_in + extra + calls.limit(action)
                total += player.pool.models[model].rate * tokens / 1000
                calls.replies.append(("analyze", " […] "))
                extra += calls.limit(action) + 16
            first = 2 * models[0] + (length - at == 1)
            least[first] = min(least[first], total)
            ends[first, models[-1]] = min(ends[first, models[-1]], total)
    return least, ends


async def scores_at(player, text, before, later):
    """The router's scores of all actions once these hops were made, with those `later` left."""
    replies = [(hop.decision.role, hop.completion.reply) for hop in before]
    query, context = [
        state_of("paper", await player._vectors.of(texts_of("paper", text, seen, 120)))[None]
        for seen in ([], replies)
    ]
    stage = stage_of(["ABC".index(hop.decision.model) for hop in before], 3)
    spent = np.array([sum(hop.cost_usd for hop in before)])
    left = Left(later[None], np.array([player.router.info.hops]))
    return player.router.scores(query, context, stage, spent, 0.1, left=left)[0]


def test_an_analysis_that_is_too_long_by_then_is_cut_to_what_is_left(
    make_pool, make_player, make_router, told, play_one
) -> None:
    """Its tokens for the next model may be more than its own model counted."""
    pool = make_pool(models=1, rates=[1.0])
    backend = told(words=["word "] * 5)
    player = make_player(pool, make_router(pool), [backend])
    question = Question("What is one plus one?")
    calls = Calls(question, pool, player.members)
    calls.replies = [("analyze", "very " * 400)]
    whole = calls.prompt(SOLVE, 1)
    dollars = 1.0 * (60 + calls.limit(SOLVE)) / 1000
    cut = calls.prompt(SOLVE, 1, dollars)
    assert cut.tokens_in <= 60 < whole.tokens_in
    assert "What is one plus one?" in cut.turns[-1].text
    assert calls.most(SOLVE, 1, dollars) <= dollars
    assert calls.most(SOLVE, 1, 0.001) == math.inf


def test_a_model_that_fails_is_left_out_and_the_policy_decides_again(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = seeds_that_begin_with(make_router, make_player, play_one, pool, ("B", "solve"))
    backends = [told(), told(does=[GONE]), told()]
    route, events = asyncio.run(play_one(make_player(pool, router, backends)))
    decisions = [event for event in events if isinstance(event, Decision)]
    assert decisions[0].model == "B"
    assert not decisions[0].fallback
    assert decisions[1].model != "B"
    assert decisions[1].fallback
    assert not any(name.startswith("B ") for name in decisions[1].chances)
    assert math.isclose(sum(decisions[1].chances.values()), 1, abs_tol=1e-5)
    assert route.degraded
    assert route.failures == [Failure("B", "UnreachableError", None, "the server is gone")]
    assert route.answer == "one two three"


UNPAID = UnreachableError("refused the connection")
UNPAID.unpaid = True


@pytest.mark.parametrize(
    ("failure", "tries", "charged"),
    [(GONE, 3, 3), (UNPAID, 3, 0), (RefusedError("not that"), 1, 0), (("after", 1, GONE), 1, 1)],
)
def test_failed_calls_are_charged_as_much_as_they_can_have_cost(
    make_pool, make_router, make_player, play_one, told, failure, tries, charged
) -> None:
    pool = make_pool(models=1, hops=1, rates=[1.0])
    backend = told(does=[failure] * 3)
    player = make_player(pool, make_router(pool), [backend])
    player.members[0]._retries = 2
    route = Route(0.1)
    with pytest.raises((NobodyAnswersError, NotTakenError, BrokenOffError)):
        asyncio.run(play_one(player, route=route))
    assert backend.calls == tries
    assert route.lost_usd == pytest.approx(charged * (5 + 10) / 1000)


def test_under_a_limit_a_lost_try_is_paid_for_before_another_is_sent(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, hops=1, rates=[1.0])
    bound = (5 + 10) / 1000  # five words of the question, ten of the longest answer

    def ask(failures, max_cost):
        backend = told(does=failures)
        player = make_player(pool, make_router(pool), [backend])
        player.members[0]._retries = 2
        route = Route(0.1)
        try:
            asyncio.run(play_one(player, route=route, pieces=False, max_cost=max_cost))
        except NobodyAnswersError:
            return backend.calls, route, False
        return backend.calls, route, True

    calls, route, answered = ask([GONE], 1.0)
    assert (calls, answered) == (1, False)
    assert route.lost == {"A": pytest.approx(bound)}
    calls, route, answered = ask([UNPAID, UNPAID], bound)
    assert (calls, answered) == (3, True)
    assert route.lost == {}
    assert 0 < route.cost_usd <= bound


def test_without_a_limit_every_lost_try_is_in_the_books(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, hops=1, rates=[1.0])
    player = make_player(pool, make_router(pool), [told(does=[GONE, UNPAID])])
    player.members[0]._retries = 2
    route, _ = asyncio.run(play_one(player))
    assert route.lost == {"A": pytest.approx((5 + 10) / 1000)}
    assert route.cost_usd == pytest.approx((5 + 10 + 5 + 3) / 1000)


def test_what_was_said_before_a_client_left_is_in_the_books(
    make_pool, make_router, make_player, told
) -> None:
    pool = make_pool(models=1, hops=1, rates=[1.0])
    player = make_player(pool, make_router(pool), [told()])
    route = Route(0.1)

    async def run() -> None:
        terms = terms_of(Knobs(), 0.1, player.router.info)
        question = Question("What is one plus one?")
        async with aclosing(player.play(question, terms, route)) as events:
            async for event in events:
                if isinstance(event, Text):
                    break

    asyncio.run(run())
    assert route.lost == {"A": pytest.approx((5 + 1) / 1000)}


def test_waiting_for_the_encoder_ends_at_the_deadline(
    make_pool, make_router, make_player, play_one
) -> None:
    pool = make_pool()
    player = make_player(pool, make_router(pool))
    never = asyncio.Event

    async def of(texts):
        await never().wait()

    player._vectors.of = of
    with pytest.raises(LateError):
        asyncio.run(play_one(player, deadline_ms=1))


def test_a_question_beyond_counting_is_refused_unread(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(max_context_tokens=100)
    backends = [told(), told(), told()]
    for backend in backends:
        backend.prepare = backend.count_tokens = None  # any use of them fails
    player = make_player(pool, make_router(pool), backends)
    player._vectors = None  # nor by the encoder
    with pytest.raises(TooLongError):
        asyncio.run(play_one(player, "x" * 3201))


def test_under_a_limit_a_refusal_is_no_failure_that_may_pass(
    make_pool, make_router, make_player, play_one, told
) -> None:
    """Whoever is told to ask again soon would do so for ever."""
    pool = make_pool(models=2, hops=1, rates=[1.0, 100.0])
    player = make_player(pool, make_router(pool), [told(does=[RefusedError("no")]), told()])
    with pytest.raises(NotTakenError, match=r"max_cost leaves refuses"):
        asyncio.run(play_one(player, max_cost=0.02))


def test_a_refusal_gives_no_hope_beside_a_model_that_fails_and_is_too_dear(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=2, hops=1, rates=[1.0, 1000.0])
    player = make_player(pool, make_router(pool), [told(does=[RefusedError("no")]), told()])
    for _ in range(FAILURES):
        player.members[1].breaker.fail()
    with pytest.raises(TooDearError):
        asyncio.run(play_one(player, max_cost=0.02))


def test_an_analysis_after_which_nobody_could_read_on_is_not_paid_for(
    make_pool, make_router, make_player, play_one, told
) -> None:
    """Windows count in the look-ahead as costs do."""
    pool = make_pool(models=1, hops=2, rates=[1.0], analyze="Analyse.")
    for seed in range(20):
        # 5 words and a limit of 10 fit; with an analysis of up to 5 and its heading they do not.
        backend = told(window=24)
        player = make_player(pool, make_router(pool, seed=seed), [backend])
        route, _ = asyncio.run(play_one(player, max_cost=1.0))
        assert route.path == "A"


def test_what_could_not_be_afforded_anyway_is_no_fallback(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=2, hops=1, rates=[1.0, 1000.0])
    for seed in range(20):
        player = make_player(pool, make_router(pool, seed=seed), [told(), told()])
        for _ in range(FAILURES):
            player.members[1].breaker.fail()
        route, _ = asyncio.run(play_one(player, max_cost=0.02))
        assert route.path == "A"
        assert not route.degraded


def test_the_same_words_for_the_same_weights_are_prepared_once(
    make_pool, make_router, make_player, told
) -> None:
    pool = make_pool(models=2)
    backend = told()
    made = []
    prepare = backend.prepare
    backend.prepare = lambda turns: made.append(turns[-1].text) or prepare(turns)
    player = make_player(pool, make_router(pool), [backend, backend])
    calls = Calls(Question("What is one plus one?"), pool, player.members)
    allowed = np.ones((2, 4), dtype=bool)
    calls.affordable(allowed, 0, 100.0)
    assert len(made) == len(set(made))
    calls.given_up = True
    with pytest.raises(GivenUpError):
        calls.prompt(SOLVE, 0)


def test_a_model_that_is_down_but_not_wanted_changes_nothing(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = seeds_that_begin_with(make_router, make_player, play_one, pool, ("B", "solve"))
    player = make_player(pool, router, [told(), told(), told()])
    for _ in range(3):
        player.members[0].breaker.fail()
    route, events = asyncio.run(play_one(player))
    assert route.path == "B"
    assert not route.degraded
    assert not events[0].fallback


def test_after_several_failures_a_model_is_not_asked_for_a_while(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, rates=[1.0])
    backend = told()
    player = make_player(pool, make_router(pool), [backend])

    async def run() -> None:
        for _ in range(3):
            backend.does.append(GONE)
            with pytest.raises(NobodyAnswersError):
                await play_one(player)
        asked = backend.calls
        with pytest.raises(NobodyAnswersError) as caught:
            await play_one(player)
        assert backend.calls == asked
        assert 9 < caught.value.retry_after_s <= 10
        player.members[0].breaker.succeed()
        route, _ = await play_one(player)
        assert route.answer == "one two three"

    asyncio.run(run())


def test_what_fails_after_its_first_piece_is_told_in_a_stream_and_replaced_in_a_plain_answer(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = seeds_that_begin_with(make_router, make_player, play_one, pool, ("B", "solve"))

    def fresh():
        backends = [told(), told(words=["half", " an"]), told()]
        backends[1].does.append(("after", 1, GONE))
        return make_player(pool, router, backends)

    route = Route(0.1)
    with pytest.raises(BrokenOffError):
        asyncio.run(play_one(fresh(), route=route))
    assert route.lost_usd > 0
    route, events = asyncio.run(play_one(fresh(), pieces=False))
    assert route.answer == "one two three"
    assert [event.text for event in events if isinstance(event, Text)] == ["one two three"]
    assert route.degraded


def test_a_refusal_leaves_the_model_out_of_this_request_only(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=2, rates=[1.0, 1.0])
    backends = [told(window=40), told()]
    player = make_player(pool, make_router(pool), backends)
    long_question = "word " * 60

    async def run() -> None:
        for _ in range(5):
            route, _ = await play_one(player, long_question, max_hops=1)
            assert route.path == "B"
        assert player.members[0].breaker.wait_s == 0
        with pytest.raises(TooLongError, match="too long"):
            await play_one(player, long_question, max_hops=1, models=["A"])
        backends[1].does.append(RefusedError("it says no"))
        with pytest.raises(NotTakenError, match="refuses"):
            await play_one(player, max_hops=1, models=["B"])

    asyncio.run(run())


def test_the_deadline_ends_a_call_that_hangs(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, rates=[1.0])
    backend = told()
    backend.does.append("wait")
    with pytest.raises(LateError, match="deadline_ms"):
        asyncio.run(play_one(make_player(pool, make_router(pool), [backend]), deadline_ms=30))
    assert backend.closed == 1


def test_with_little_time_left_what_has_been_quick_is_asked(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = seeds_that_begin_with(make_router, make_player, play_one, pool, ("B", "solve"))
    player = make_player(pool, router, [told(), told(), told()])
    for member, seconds in zip(player.members, (0.5, 9000.0, 8000.0), strict=True):
        for role in ("solve", "analyze"):
            member._note(role, seconds)
    route, _ = asyncio.run(play_one(player))
    assert route.path == "B"
    route, _ = asyncio.run(play_one(player, deadline_ms=1_000_000))
    assert set(route.path.split(":")) == {"A"}
    # Where all have been too slow, the quickest is tried all the same.
    route, _ = asyncio.run(play_one(player, deadline_ms=400))
    assert route.path == "A"


def test_a_client_that_goes_away_ends_the_call(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, rates=[1.0])
    backend = told()
    backend.does.append("wait")
    player = make_player(pool, make_router(pool), [backend])

    async def run() -> None:
        asking = asyncio.ensure_future(play_one(player))
        await backend.begun.wait()
        assert player.members[0].running == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert backend.closed == 1
        assert player.members[0].running == 0
        route, _ = await play_one(player)
        assert route.answer == "one two three"

    asyncio.run(run())


def test_hops_models_limits_and_stops_are_heeded(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    for seed in range(20):
        player = make_player(pool, make_router(pool, seed=seed), [told(), told(), told()])
        route, _ = asyncio.run(play_one(player, max_hops=1, models=["C"]))
        assert route.path == "C"
        route, _ = asyncio.run(play_one(player, max_tokens=2))
        assert route.answer == "one two"
        route, events = asyncio.run(play_one(player, stop=["two"]))
        assert route.answer == "one"
        assert route.finish_reason == "stop"
        last = [event for event in events if isinstance(event, Hop)][-1]
        assert last.completion.tokens_out == 2


def test_turns_before_the_query_reach_the_model_and_not_the_encoder(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    before = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"))
    backends = [told(), told(), told()]
    player = make_player(pool, make_router(pool), backends)
    plain, _ = asyncio.run(play_one(player, max_hops=1))
    asked, _ = asyncio.run(play_one(player, max_hops=1, before=before))
    chances = [route.hops[0].decision.chances for route in (plain, asked)]
    assert chances[0] == chances[1]
    (prompts,) = [backend.prompts for backend in backends if backend.prompts]
    assert prompts[1].turns[:3] == before
    assert prompts[1].turns[3] == prompts[0].turns[0]


def test_decisions_are_those_of_the_router(make_pool, make_router, make_player, play_one) -> None:
    pool = make_pool(hops=3)
    for seed in range(30):
        router = make_router(pool, seed=seed)
        player = make_player(pool, router)
        route, events = asyncio.run(play_one(player, alpha=0.4))
        (vector,) = asyncio.run(player._vectors.of(["What is one plus one?"]))
        scores = router.scores(vector[None], vector[None], 0, np.zeros(1), 0.4)[0]
        names = [f"{m} {r}" for m in "ABC" for r in ("analyze", "solve")]
        assert next(iter(events[0].chances)) == names[int(scores.argmax())]
        assert all(hop.decision.role == "analyze" for hop in route.hops[:-1])
        assert route.hops[-1].decision.role == "solve"
        assert route.cost_usd == pytest.approx(sum(hop.cost_usd for hop in route.hops))


@pytest.mark.parametrize(("models", "hops"), [("AC", 3), ("ABC", 2), ("AC", 2)])
def test_decisions_heed_who_may_be_asked_later_and_how_often(
    make_pool, make_router, make_player, play_one, models: str, hops: int
) -> None:
    pool = make_pool(hops=3)
    left = Left(np.array([[[name in models for name in "ABC"]]]), np.array([hops]))
    mask = np.array([*np.repeat(left.models[0, 0], 2), True])
    differs = 0
    for seed in range(30):
        router = make_router(pool, seed=seed)
        player = make_player(pool, router)
        route, _ = asyncio.run(play_one(player, max_hops=hops, models=list(models)))
        (vector,) = asyncio.run(player._vectors.of(["What is one plus one?"]))
        ask = vector[None], vector[None], 0, np.zeros(1), 0.1, mask
        first = int(best_of(router.scores(*ask, left=left))[0])
        decision = route.hops[0].decision
        assert (decision.model, decision.role) == ("ABC"[first // 2], ROLES[first % 2])
        whole = Left(np.ones((1, 1, 3), bool), np.array([3]))
        differs += first != int(best_of(router.scores(*ask, left=whole))[0])
    assert differs > 2


def test_another_choice_for_want_of_who_would_have_come_later_is_a_fallback(
    make_pool, make_router, make_player, play_one, told
) -> None:
    """C is down: who would have analysed for it is not asked, and the answer says so."""
    pool = make_pool(hops=2)
    others = 0
    for seed in range(60):
        router = make_router(pool, seed=seed)
        alive, _ = asyncio.run(play_one(make_player(pool, router)))
        player = make_player(pool, router, [told(), told(), told()])
        for _ in range(FAILURES):
            player.members[2].breaker.fail()
        route, _ = asyncio.run(play_one(player))
        first, wanted = route.hops[0].decision, alive.hops[0].decision
        same = (first.model, first.role) == (wanted.model, wanted.role)
        assert first.fallback == (not same)
        assert route.degraded or same
        others += not same and wanted.model != "C"
    assert others > 2


def test_a_first_piece_is_timed_where_there_are_pieces_and_within_the_reply(
    make_pool, make_router, make_player, play_one, told
) -> None:
    """The loop reads the pieces later than the model made them: this one is done at once."""
    pool = make_pool(models=1, rates=[1.0])
    router = make_router(pool, "paper")
    route, _ = asyncio.run(play_one(make_player(pool, router, [told()])))
    analysis, answer = route.hops
    assert analysis.first_s is None
    assert analysis.decided_s < analysis.latency_s
    assert answer.decided_s < answer.first_s <= answer.latency_s
    route, _ = asyncio.run(play_one(make_player(pool, router, [told()]), pieces=False))
    assert [hop.first_s for hop in route.hops] == [None, None]
    assert "first_token_ms" not in hop_object(route.hops[-1], replies=False)


def test_a_deadline_is_a_deadline_also_after_the_first_piece(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, rates=[1.0])
    backend, route = told(), Route(0.1)
    backend.does.append(("after", 1, "wait"))
    player = make_player(pool, make_router(pool), [backend])
    with pytest.raises(LateError) as caught:
        asyncio.run(play_one(player, route=route, deadline_ms=30, max_hops=1))
    problem = problem_of(caught.value)
    assert (problem.status, problem.code) == (504, "deadline_exceeded")
    assert request_entry(route, "one", "openai", 504)["asking"] == "A"


def test_the_model_that_was_asked_in_vain_is_told_and_no_model_of_a_whole_answer(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, rates=[1.0])
    backend, route = told(), Route(0.1)
    backend.does.append(GONE)
    with pytest.raises(NobodyAnswersError):
        asyncio.run(play_one(make_player(pool, make_router(pool), [backend]), route=route))
    assert request_entry(route, "one", "openai", 503)["asking"] == "A"
    route, _ = asyncio.run(play_one(make_player(pool, make_router(pool), [told()])))
    assert "asking" not in request_entry(route, "two", "openai", 200)


def test_max_tokens_is_advised_to_be_lowered_only_where_it_is_given(
    make_pool, make_router, make_player, play_one
) -> None:
    pool = make_pool()
    player = make_player(pool, make_router(pool))
    with pytest.raises(TooDearError, match=r"raise it$"):
        asyncio.run(play_one(player, max_cost=1e-9))
    with pytest.raises(TooDearError, match=r"raise it, or lower max_tokens$"):
        asyncio.run(play_one(player, max_cost=1e-9, max_tokens=9))


def test_an_unexpected_error_is_not_taken_for_a_model_that_fails(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=1, rates=[1.0])
    backend = told()
    backend.does.append(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(play_one(make_player(pool, make_router(pool), [backend])))
    assert not issubclass(ZeroDivisionError, HierRouterError)

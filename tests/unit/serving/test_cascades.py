"""Live routes that may go on after an answer: what is asked, paid, returned and told."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from hierrouter.errors import UnreachableError
from hierrouter.learning.answers import shown
from hierrouter.routes.outcomes import cascade_name
from hierrouter.serving.events import Accepted, Decision, Hop, Text, TooDearError
from hierrouter.serving.told import hop_object, route_headers, route_object

GONE = UnreachableError("the server is gone")
WORDS = (["the", " answer", " is", " 7"], ["Answer:", " 8"], ["Answer:", " 7"])


def route_of(router, make_player, play_one, pool, told, **knobs):
    backends = [told(words=list(words)) for words in WORDS[: len(pool.models)]]
    route, events = asyncio.run(play_one(make_player(pool, router, backends), **knobs))
    return route, events, backends


def cascade(make_router, make_player, play_one, pool, told, path: str, moves="cascade"):
    """The first arbitrary router that goes this way."""
    for seed in range(400):
        router = make_router(pool, moves, seed)
        if route_of(router, make_player, play_one, pool, told)[0].path == path:
            return router
    raise AssertionError(f"no router takes {path}")


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_what_is_returned_was_paid_for_and_told_once(
    make_pool, make_router, make_player, play_one, told, moves: str, hops: int
) -> None:
    pool = make_pool(hops=hops)
    longest, taken = 0, set()
    for seed in range(60):
        router = make_router(pool, moves, seed)
        route, events, backends = route_of(router, make_player, play_one, pool, told)
        roles = [hop.decision.role for hop in route.hops]
        assert roles == sorted(roles)  # analyses, then answers
        assert moves == "cascade" or "analyze" not in roles
        answers = [hop for hop in route.hops if hop.decision.role == "solve"]
        assert len({hop.decision.model for hop in answers}) == len(answers)
        assert sum(backend.calls for backend in backends) == len(route.hops) <= hops
        assert [hop.decision.index for hop in route.hops] == list(range(len(route.hops)))
        returned = route.hops[route.returned]
        assert returned.decision.role == "solve"
        assert route.answer == returned.completion.reply
        assert "".join(event.text for event in events if isinstance(event, Text)) == route.answer
        assert sum(isinstance(event, Hop) for event in events) == len(route.hops)
        assert not any(isinstance(event, Decision) and not event.model for event in events)
        if len(answers) > 1:
            kinds = [type(event) for event in events]
            assert kinds[-2:] == [Accepted, Text]
            assert Text not in kinds[:-1]
            assert events[-2].hop == route.returned
            assert events[-2].model == returned.decision.model
        longest, taken = max(longest, len(answers)), taken | {route.path}
    assert longest == hops
    assert len(taken) > 2


@pytest.mark.parametrize("seed", range(12))
def test_decides_as_on_recorded_answers(
    make_pool, make_router, make_player, play_one, told, seed: int
) -> None:
    """From what the answers show: their log-probabilities, lengths, ends, and who agrees."""
    pool = make_pool(hops=3)
    router = make_router(pool, "escalate", seed)
    player = make_player(pool, router, [told(words=list(words)) for words in WORDS])
    route, _ = asyncio.run(play_one(player))
    vector = player._vectors._encoder.encode(["What is one plus one?"]).astype(np.float32)
    signals = np.array([[-0.1, -0.2, len(words), 1] for words in WORDS])
    said = np.array([0, 1, 0])
    answers: list[int] = []
    while True:
        who = sorted(answers)
        stage = router.stages.of((), who)
        seen = shown(signals[None, who], said[None, who], 3) if who else None
        action = int(router.scores(vector, vector, stage, np.zeros(1), 0.1, None, seen)[0].argmax())
        if action == 6:
            break
        answers.append(action // 2)
    belief = router.beliefs(vector, vector, stage, seen)[0]
    assert route.path == cascade_name((), answers, int(belief.argmax()), "ABC")


def test_who_is_asked_next_does_not_see_the_answer(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = cascade(make_router, make_player, play_one, pool, told, "A!B")
    _, _, backends = route_of(router, make_player, play_one, pool, told)
    alone = cascade(make_router, make_player, play_one, pool, told, "B")
    _, _, others = route_of(alone, make_player, play_one, pool, told)
    assert backends[1].prompts == others[1].prompts


@pytest.mark.parametrize("does", [GONE, ("after", 1, GONE)])
def test_a_failure_after_an_answer_leaves_the_answer(
    make_pool, make_router, make_player, play_one, told, does
) -> None:
    pool = make_pool(models=2)
    router = cascade(make_router, make_player, play_one, pool, told, "A!B")
    backends = [told(words=list(WORDS[0])), told(does=[does] * 9)]
    route, events = asyncio.run(play_one(make_player(pool, router, backends)))
    assert route.path == "A"
    assert route.answer == "the answer is 7"
    assert route.degraded
    assert [event.text for event in events if isinstance(event, Text)] == [route.answer]


def test_a_deadline_after_an_answer_leaves_the_answer(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(models=2)
    router = cascade(make_router, make_player, play_one, pool, told, "A!B")
    backends = [told(words=list(WORDS[0])), told(does=["wait"])]
    player = make_player(pool, router, backends)
    route, events = asyncio.run(play_one(player, deadline_ms=400))
    assert backends[1].calls == backends[1].closed == 1
    assert route.answer == "the answer is 7"
    assert isinstance(events[-2], Accepted)


def test_max_cost_holds_over_all_answers(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool(hops=3)
    cut = refused = 0
    for seed in range(60):
        router = make_router(pool, "cascade", seed)
        free, _, _ = route_of(router, make_player, play_one, pool, told)
        budget = float(np.exp(np.random.default_rng(seed).uniform(np.log(0.01), np.log(1))))
        try:
            route, _, _ = route_of(router, make_player, play_one, pool, told, max_cost=budget)
        except TooDearError:
            refused += 1
            continue
        assert route.cost_usd <= budget
        assert route.answer
        cut += len(route.hops) < len(free.hops)
    assert cut > 2
    assert refused > 2


def test_the_last_hop_that_is_allowed_comes_in_pieces(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = cascade(make_router, make_player, play_one, pool, told, "A!B")
    route, events, _ = route_of(router, make_player, play_one, pool, told, max_hops=1)
    assert route.path == "A"
    assert sum(isinstance(event, Text) for event in events) == 4
    assert not any(isinstance(event, Accepted) for event in events)


def test_stop_sequences_hold_for_each_answer(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    for path, answer in (("A!B", "Answer:"), ("B!A", "the answer is")):
        router = cascade(make_router, make_player, play_one, pool, told, path)
        backends = [told(words=[*words, " and", " more"]) for words in WORDS]
        player = make_player(pool, router, backends)
        route, events = asyncio.run(play_one(player, stop=[" 8", " 7"]))
        if route.returned == 1:
            assert route.answer == answer
        assert route.finish_reason == "stop"
        assert events[-1].text == route.answer


def test_a_route_with_two_answers_is_told(
    make_pool, make_router, make_player, play_one, told
) -> None:
    pool = make_pool()
    router = cascade(make_router, make_player, play_one, pool, told, "A!B=A")
    route, _, _ = route_of(router, make_player, play_one, pool, told)
    player = make_player(pool, router)
    from hierrouter.serving.knobs import Knobs, terms_of

    terms = terms_of(Knobs(replies=True), 0.1, player.router.info)
    identity = {"name": "r", "version": "1", "digest": "d"}
    found = route_object(route, terms, identity, 1.0, ())
    assert found["route"] == "A!B=A"
    assert found["returned"] == 0
    assert "reply" not in found["hops"][0]
    assert found["hops"][1]["reply"] == "Answer: 8"
    assert "reply" not in hop_object(route.hops[1], replies=False)
    headers = route_headers(route, identity, (), route.path, whole=True)
    assert headers["x-hierrouter-hops"] == "2"
    assert headers["x-hierrouter-route"] == "A!B=A"

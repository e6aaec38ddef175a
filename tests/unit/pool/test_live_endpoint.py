"""A server asked live: what it says is passed on, and however it fails is told in one line."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext

import pytest
from tests.upstream import NO_LOGPROBS, Upstream

from hierrouter.config import ModelSpec
from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import Turn
from hierrouter.pool.live.endpoint import EndpointLive

QUESTION = [Turn("system", "Be brief."), Turn("user", "What is one plus one?")]


@pytest.fixture
def upstream():
    with Upstream() as running:
        yield running


def spec_of(url, **endpoint):
    settings = {"url": url, "timeout_s": 30, **endpoint}
    return ModelSpec(name="m", model="small", backend="openai", base_rate=1, endpoint=settings)


def ask(url, limit=10, pieces=True, stop=(), logprobs=False, **endpoint):
    async def run():
        backend = EndpointLive(spec_of(url, **endpoint), logprobs)
        await backend.start()
        try:
            prompt = backend.prepare(QUESTION)
            stream = backend.stream(prompt, limit, pieces=pieces, stop=stop)
            return [piece async for piece in stream], prompt
        finally:
            await backend.close()

    return asyncio.run(run())


def test_a_stream_is_passed_on_piece_by_piece_with_the_servers_own_counts(upstream) -> None:
    (*pieces, completion), prompt = ask(upstream.url)
    assert "".join(pieces) == "one two three four"
    assert (completion.reply, completion.finish_reason) == ("one two three four", "stop")
    assert (completion.tokens_in, completion.tokens_out) == (7, 4)
    assert completion.tokens_in <= prompt.tokens_in
    body = upstream.asked[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 10, True)


def test_a_whole_reply_is_asked_for_where_no_pieces_are_wanted(upstream) -> None:
    (completion,), _ = ask(upstream.url, pieces=False, stop=("END",))
    assert completion.reply == "one two three four"
    assert "stream" not in upstream.asked[0]
    assert upstream.asked[0]["stop"] == ["END"]


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        ("refuse", UnreachableError, "500: .*broken inside"),
        ("busy", UnreachableError, "429"),
        ("gateway", UnreachableError, "504"),
        ("long", RefusedError, "too long"),
        # That the name of the model stands in what is said is no sign that it is not there.
        ("quoting", RefusedError, "small: cannot take"),
        ("foreign", HierRouterError, "404"),
        ("garbage", HierRouterError, "no chat completion"),
        ("login", HierRouterError, "no chat completion"),
    ],
)
def test_failures_before_the_first_piece(upstream, behaviour, error, words, pieces) -> None:
    upstream.behaviour["small"] = behaviour
    with pytest.raises(error, match=words) as caught:
        ask(upstream.url, pieces=pieces)
    assert type(caught.value) is error
    assert str(caught.value).startswith("model m: http://127.0.0.1:")
    assert "\n" not in str(caught.value)
    if behaviour == "busy":
        assert caught.value.retry_after_s == 1
    # A server that refuses has worked on nothing; one that breaks, or whose answer is none, may.
    statuses = {"refuse": 500, "busy": 429, "gateway": 504, "foreign": 404, "garbage": None}
    if behaviour in statuses:
        assert caught.value.refused_with == statuses[behaviour]
    assert caught.value.unpaid is (behaviour not in ("refuse", "gateway", "garbage", "login"))


@pytest.mark.parametrize(
    ("behaviour", "words"), [("cut", "cut|answer"), ("error", "out of memory")]
)
def test_failures_after_some_pieces(upstream, behaviour, words) -> None:
    upstream.behaviour["small"] = behaviour

    async def run():
        backend = EndpointLive(spec_of(upstream.url))
        await backend.start()
        said: list[object] = []

        async def listen():
            async for piece in backend.stream(backend.prepare(QUESTION), 10):
                said.append(piece)

        try:
            with pytest.raises(UnreachableError, match=words):
                await listen()
        finally:
            await backend.close()
        return said

    assert "".join(asyncio.run(run())) == "one two"


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize("count", ["Infinity", "-1", "1" + "0" * 400, '"many"', "null", "[]"])
def test_counts_that_are_none_are_garbage(upstream, count, pieces) -> None:
    upstream.count = count
    with pytest.raises(HierRouterError, match="no chat completion"):
        ask(upstream.url, pieces=pieces)


@pytest.mark.parametrize("pieces", [True, False])
def test_a_reply_that_a_filter_cut_is_known_by_it(upstream, pieces) -> None:
    upstream.behaviour["small"] = "filtered"
    assert ask(upstream.url, pieces=pieces)[0][-1].finish_reason == "content_filter"


def test_a_server_that_never_stops_is_cut_off(upstream) -> None:
    upstream.behaviour["small"] = "endless"
    with pytest.raises(UnreachableError, match="more than it was asked for"):
        ask(upstream.url, limit=3)
    assert upstream.given_up.acquire(timeout=30)


def test_a_server_that_says_too_much_at_once_is_cut_off(upstream) -> None:
    upstream.behaviour["small"] = "wide"
    with pytest.raises(HierRouterError, match="too long"):
        ask(upstream.url, limit=1000)


@pytest.mark.parametrize("pieces", [True, False])
def test_a_reply_without_usage_is_priced_by_its_bounds(upstream, capfd, pieces) -> None:
    upstream.behaviour["small"] = "uncounted"
    (*_, completion), prompt = ask(upstream.url, pieces=pieces)
    assert isinstance(completion, Completion)
    assert completion.reply == "one two three four"
    assert (completion.tokens_in, completion.tokens_out) == (prompt.tokens_in, 10)
    assert "without `usage`" in capfd.readouterr().err


@pytest.mark.parametrize("pieces", [True, False])
def test_a_server_that_counts_more_than_it_should_is_bounded_by_what_it_counts(
    upstream, capfd, pieces
) -> None:
    upstream.count = "5000"

    async def run():
        backend = EndpointLive(spec_of(upstream.url))
        await backend.start()
        try:
            before = backend.prepare(QUESTION)
            *_, said = [piece async for piece in backend.stream(before, 10, pieces=pieces)]
            return before, said, backend.prepare(QUESTION)
        finally:
            await backend.close()

    before, completion, after = asyncio.run(run())
    assert completion.tokens_out == 5000
    counted = completion.tokens_in + completion.tokens_out
    assert before.tokens_in + 10 < counted == after.tokens_in + 10
    assert "counted 5007 tokens where at most" in capfd.readouterr().err


def test_what_many_calls_at_once_count_too_much_is_added_once(upstream) -> None:
    upstream.count = "5000"

    async def run():
        backend = EndpointLive(spec_of(upstream.url))
        await backend.start()
        try:
            prompts = [backend.prepare(QUESTION) for _ in range(5)]

            async def whole(prompt):
                return [piece async for piece in backend.stream(prompt, 10, pieces=False)]

            await asyncio.gather(*(whole(prompt) for prompt in prompts))
            return prompts[0].tokens_in, backend.prepare(QUESTION).tokens_in
        finally:
            await backend.close()

    before, after = asyncio.run(run())
    assert after == 5007 - 10 > before


def test_a_count_beyond_reason_is_garbage(upstream) -> None:
    upstream.count = "999999999"
    with pytest.raises(HierRouterError, match="usage of 1000000006 tokens"):
        ask(upstream.url)


@pytest.mark.parametrize("pieces", [True, False])
def test_the_newer_name_of_the_limit_is_learned_in_the_call_that_met_it(upstream, pieces) -> None:
    upstream.behaviour["small"] = "newer"
    (*_, completion), _ = ask(upstream.url, pieces=pieces)
    assert completion.reply == "one two three four"
    first, second = upstream.asked
    assert (first["max_tokens"], second["max_completion_tokens"]) == (10, 10)
    assert "max_tokens" not in second


@pytest.mark.parametrize("pieces", [True, False])
def test_log_probabilities_are_asked_for_only_where_they_are_looked_at(
    upstream, capfd, pieces
) -> None:
    (*_, seen), _ = ask(upstream.url, pieces=pieces, logprobs=True)
    (*_, unseen), _ = ask(upstream.url, pieces=pieces)
    assert (seen.logprob_mean, seen.logprob_min) == pytest.approx((-0.25, -0.4))
    assert math.isnan(unseen.logprob_mean)
    assert [body.get("logprobs") for body in upstream.asked] == [True, None]
    assert "log-probabilities" not in capfd.readouterr().err


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize(
    ("behaviour", "told"), [("shy", ...), *(("ok", odd) for odd in NO_LOGPROBS)]
)
def test_a_server_that_tells_no_log_probabilities_answers_all_the_same_and_is_named_once(
    upstream, capfd, pieces, behaviour, told
) -> None:
    upstream.behaviour["small"], upstream.logprobs = behaviour, told

    async def run():
        backend = EndpointLive(spec_of(upstream.url), logprobs=True)
        await backend.start()
        try:
            for _ in range(2):
                stream = backend.stream(backend.prepare(QUESTION), 10, pieces=pieces)
                *_, completion = [piece async for piece in stream]
                assert completion.reply == "one two three four"
                assert math.isnan(completion.logprob_mean)
                assert math.isnan(completion.logprob_min)
        finally:
            await backend.close()

    asyncio.run(run())
    assert capfd.readouterr().err.count("tells no log-probabilities") == 1
    wanted = ["logprobs" in body for body in upstream.asked]
    assert wanted == ([True, False, False] if behaviour == "shy" else [True, True])


def test_a_refusal_that_quotes_a_question_is_no_reason_to_ask_for_less(upstream) -> None:
    async def run() -> None:
        backend = EndpointLive(spec_of(upstream.url), logprobs=True)
        await backend.start()
        try:
            asked = Turn("user", "What are logprobs, and max_completion_tokens?")
            for behaviour in ("quoting", "ok"):
                upstream.behaviour["small"] = behaviour
                with pytest.raises(RefusedError) if behaviour == "quoting" else nullcontext():
                    async for _piece in backend.stream(backend.prepare([asked]), 10):
                        pass
        finally:
            await backend.close()

    asyncio.run(run())
    assert upstream.asked[-1].keys() >= {"logprobs", "max_tokens"}


def test_a_server_that_is_not_there(upstream) -> None:
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        ask("http://127.0.0.1:9/v1")
    assert caught.value.unpaid


def test_a_server_that_hangs_is_given_up_after_its_time(upstream) -> None:
    upstream.behaviour["small"] = "hang"
    with pytest.raises(UnreachableError, match=r"within 0\.05 s") as caught:
        ask(upstream.url, timeout_s=0.05)
    assert not caught.value.unpaid


def test_closing_the_stream_ends_the_servers_work(upstream) -> None:
    upstream.behaviour["small"] = "endless"

    async def run() -> None:
        backend = EndpointLive(spec_of(upstream.url))
        await backend.start()
        stream = backend.stream(backend.prepare(QUESTION), 10)
        assert (await anext(stream)).startswith("again ")
        await stream.aclose()
        assert await asyncio.to_thread(upstream.given_up.acquire, timeout=30)
        await backend.close()

    asyncio.run(run())


def test_the_key_is_sent_and_never_told(upstream, monkeypatch) -> None:
    monkeypatch.setenv("SMALL_KEY", "secret-of-mine")
    ask(upstream.url, api_key_env="SMALL_KEY")
    assert upstream.headers[0]["Authorization"] == "Bearer secret-of-mine"
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-server")
    ask(upstream.url)
    assert "Authorization" not in upstream.headers[1]


def test_connections_are_kept(upstream) -> None:
    async def run() -> None:
        backend = EndpointLive(spec_of(upstream.url))
        await backend.start()
        for _ in range(3):
            async for _piece in backend.stream(backend.prepare(QUESTION), 10):
                pass
        held = backend._session.connector._conns
        assert sum(len(connections) for connections in held.values()) == 1
        await backend.close()

    asyncio.run(run())

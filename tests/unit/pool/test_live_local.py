"""Models on this machine, live: the same replies as recorded, many callers, clean ends."""

from __future__ import annotations

import asyncio

import pytest
from tests.precision import sums_in_bfloat16

from hierrouter.errors import RefusedError
from hierrouter.pool import openvino_convert
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import Turn
from hierrouter.pool.live.openvino import OpenVINOLive
from hierrouter.pool.live.transformers import TransformersLive
from hierrouter.pool.openvino_backend import OpenVINOBackend
from hierrouter.pool.transformers_backend import TransformersBackend

MESSAGES = ["Hi", "What is twelve plus thirteen?", "Tell me about the sea. " * 3, "And?"]
KINDS = ["openvino", "transformers"]


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    openvino_convert.convert(tiny, folder)
    return folder


@pytest.fixture
def live(request, tiny, converted):
    """The live backend of a kind, and the one that records."""
    if request.param == "openvino":
        return OpenVINOLive(converted, "tiny"), OpenVINOBackend(converted, "tiny")
    recording = TransformersBackend(tiny, "tiny", 4096, "float32")
    return TransformersLive(tiny, "tiny", "float32"), recording


def started(backend, work):
    async def run():
        await backend.start()
        try:
            return await asyncio.wait_for(work(), 120)
        finally:
            await backend.close()

    return asyncio.run(run())


def rounding(backend) -> float:
    """How far log-probabilities may lie apart where prompts are batched with others."""
    return 1e-2 if isinstance(backend, OpenVINOLive) and sums_in_bfloat16() else 1e-3


async def reply_of(backend, message, limit, pieces=True):
    prompt = backend.prepare([Turn("user", message)])
    return [said async for said in backend.stream(prompt, limit, pieces=pieces)]


@pytest.mark.parametrize("live", KINDS, indirect=True)
def test_many_callers_get_the_recorded_replies_piece_by_piece(live) -> None:
    backend, recording = live
    limits = [12, 20, 31, 7]
    rendered = [recording.render(message) for message in MESSAGES]
    expected = recording.generate(rendered, limits)

    async def all_at_once():
        asking = (reply_of(backend, *each) for each in zip(MESSAGES, limits, strict=True))
        return await asyncio.gather(*asking)

    for (*pieces, last), known in zip(started(backend, all_at_once), expected, strict=True):
        assert isinstance(last, Completion)
        assert last.reply == known.reply
        assert "".join(pieces).strip() == known.reply
        assert len(pieces) > 1
        assert (last.tokens_in, last.tokens_out) == (known.tokens_in, known.tokens_out)
        assert last.finish_reason == known.finish_reason
        assert last.logprob_mean == pytest.approx(known.logprob_mean, abs=rounding(backend))


@pytest.mark.parametrize("live", KINDS, indirect=True)
def test_a_whole_reply_comes_alone_where_no_pieces_are_wanted(live) -> None:
    backend, _ = live
    (only,) = started(backend, lambda: reply_of(backend, "Hi", 9, pieces=False))
    assert only.tokens_out == 9


@pytest.mark.parametrize("live", KINDS, indirect=True)
def test_a_caller_who_goes_away_makes_room(live) -> None:
    """The reply ends long before its limit, and the others are not disturbed."""
    backend, recording = live
    (expected,) = recording.generate([recording.render("Hi")], [30])

    async def work():
        stream = backend.stream(backend.prepare([Turn("user", "And?")]), 400)
        assert isinstance(await anext(stream), str)
        other = asyncio.ensure_future(reply_of(backend, "Hi", 30))
        await stream.aclose()
        *_, last = await other
        assert last.reply == expected.reply
        for _ in range(3):
            *_, last = await reply_of(backend, "Hi", 30)
            assert last.reply == expected.reply

    started(backend, work)


@pytest.mark.parametrize("live", KINDS, indirect=True)
def test_it_starts_again_after_it_was_closed(live) -> None:
    backend, _ = live
    first = started(backend, lambda: reply_of(backend, "Hi", 5))
    assert started(backend, lambda: reply_of(backend, "Hi", 5))[:-1] == first[:-1]


@pytest.mark.parametrize("live", KINDS, indirect=True)
def test_what_does_not_fit_into_the_window_is_refused(live) -> None:
    backend, _ = live
    prompt = backend.prepare([Turn("user", "x" * 500)])
    with pytest.raises(RefusedError, match="window"):
        backend.require_window(prompt, 100)
    backend.require_window(backend.prepare([Turn("user", "x")]), 100)


def test_the_turns_before_are_in_the_prompt(tiny) -> None:
    backend = TransformersLive(tiny, "tiny", "float32")
    turns = [Turn("system", "Be brief."), Turn("user", "A"), Turn("assistant", "B")]
    short = backend.prepare([Turn("user", "C")])
    whole = backend.prepare([*turns, Turn("user", "C")])
    text = backend._checkpoint.tokenizer.decode(whole.ids)
    assert text.startswith("<s>[system] Be brief.[user] A[assistant] B[user] C [assistant]")
    assert whole.tokens_in == len(whole.ids) > short.tokens_in


def test_a_template_that_refuses_a_conversation_is_told(save_tiny, tmp_path) -> None:
    template = "{{ raise_exception('only one turn') if messages | length > 1 else 'x' }}"
    backend = TransformersLive(save_tiny(tmp_path, template), "tiny", "float32")
    with pytest.raises(RefusedError, match="only one turn"):
        backend.prepare([Turn("user", "A"), Turn("user", "B")])


def test_after_its_engine_ended_one_of_those_who_wait_starts_it_anew(tiny) -> None:
    backend = TransformersLive(tiny, "tiny", "float32")
    begin, begun = backend._begin, []

    def beginning():
        begun.append(1)
        begin()

    async def work():
        before = await reply_of(backend, "Hi", 5)
        await asyncio.to_thread(backend._manager.stop, block=True, hard_stop=True)
        backend._begin = beginning
        after = await asyncio.gather(*(reply_of(backend, "Hi", 5) for _ in range(4)))
        assert begun == [1]
        assert {each[-1].reply for each in after} == {before[-1].reply}

    started(backend, work)

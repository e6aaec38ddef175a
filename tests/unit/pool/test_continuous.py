"""transformers' continuous batching, on a processor here: the same replies, and a clean end."""

import threading

import pytest
import torch
from transformers import AutoModelForCausalLM

from hierrouter.pool.continuous import paging, run_continuously
from hierrouter.pool.rolling import RollingDecoder
from hierrouter.pool.rows import Row

STOPS = frozenset({1, 34, 57})
PROMPTS = [
    [7, 8, 9, *((3 * i + 5 * j) % 200 + 2 for j in range(1 + i * 7 % 11))] for i in range(14)
]


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


def pages(model, blocks):
    """Few and small pages: by default they fill the memory."""
    settings = paging(model)
    settings.num_blocks, settings.page_size, settings.max_batch_tokens = blocks, 16, 64
    return settings


def rows():
    return [Row(i, prompt, 1 + i * 5 % 17) for i, prompt in enumerate(PROMPTS)]


def test_replies_limits_and_logprobs_are_those_of_the_rolling_batches(model):
    here, there = rows(), rows()
    waiting, told = list(here), []
    run_continuously(model, STOPS, waiting, told.append, pages(model, 40))
    assert waiting == []
    assert sorted(row.position for row in told) == list(range(len(PROMPTS)))
    RollingDecoder(model, STOPS, 1, 100_000, True).run(list(there), 14, lambda _: None)
    for one, other in zip(here, there, strict=True):
        assert one.new == other.new
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.took > 0
    assert {row.new[-1] in STOPS for row in here} == {True, False}
    assert model.config._attn_implementation == "sdpa"


def test_what_the_engine_refuses_is_left_waiting_and_said(model, capfd):
    """A prompt longer than all pages together cannot be held."""
    too_long = Row(0, [5] * 100, 4)
    waiting = [too_long, Row(1, [5, 6], 4)]
    run_continuously(model, STOPS, waiting, lambda _: None, pages(model, 3))
    assert too_long in waiting
    assert "continuous batching failed (" in capfd.readouterr().err


def test_a_failure_of_the_recorder_ends_the_engine(model):
    before = threading.active_count()

    def fail(_):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_continuously(model, STOPS, rows(), fail, pages(model, 40))
    assert threading.active_count() == before

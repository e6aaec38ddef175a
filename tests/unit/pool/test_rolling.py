"""Rows that join and leave between stretches: the same replies, and no token too many."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    MistralConfig,
    MistralForCausalLM,
)

from hierrouter.errors import HierRouterError
from hierrouter.pool.rolling import HEADROOM, RollingDecoder, can_roll
from hierrouter.pool.rows import Row
from hierrouter.pool.transformers_backend import TransformersBackend

STOPS = frozenset({1, 34, 57})
"""The end token and two that the tiny model likes, so that replies end early, here and there."""
PREFIX = [7, 8, 9, 10, 11]
PROMPTS = [
    [*PREFIX, *((3 * i + 5 * j) % 200 + 2 for j in range(1 + i * 7 % 11))] for i in range(24)
]
LIMITS = [1 + i * 5 % 17 for i in range(24)]


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64).eval()


def alone(model, prompt, limit):
    """Reference: `generate` for one prompt, its end tokens and log-probabilities."""
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=limit,
            eos_token_id=sorted(STOPS),
            pad_token_id=1,
            output_logits=True,
            return_dict_in_generate=True,
        ),
    )
    logprobs = [float(logits.log_softmax(-1).max()) for logits in output.logits]
    return output.sequences[0, len(prompt) :].tolist(), logprobs


@pytest.fixture(scope="module")
def expected(model):
    replies = [alone(model, *each) for each in zip(PROMPTS, LIMITS, strict=True)]
    # Replies of both kinds, else these tests show little.
    ended = sum(tokens[-1] in STOPS for tokens, _ in replies)
    assert 5 < ended < 20
    return replies


class Watch:
    """Shape (rows, new columns, columns with the cached) of every forward pass of a model."""

    def __init__(self, model, most_rows=1000):
        self.shapes = []
        self._most_rows = most_rows
        self._hook = model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _, args, kwargs):
        rows, columns = kwargs["input_ids"].shape
        cached = kwargs["past_key_values"].get_seq_length()
        self.shapes.append((rows, columns, cached + columns))
        if rows > self._most_rows:
            raise torch.OutOfMemoryError("no room")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._hook.remove()


def rows_of(prompts=PROMPTS, limits=LIMITS):
    return [Row(i, p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]


def run(model, rows, batch_tokens=100_000, roll=True):
    waiting, ended = list(rows), []
    decoder = RollingDecoder(model, STOPS, 1, batch_tokens, roll)
    assert decoder.run(waiting, len(rows), ended.append) == 0
    assert waiting == []
    assert sorted(row.position for row in ended) == list(range(len(rows)))


def check(rows, expected):
    for row, (tokens, logprobs) in zip(rows, expected, strict=True):
        assert row.new == tokens
        assert row.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert row.took >= 0


@pytest.mark.parametrize("batch_tokens", [1, 300, 1500, 100_000])
def test_replies_are_those_of_each_prompt_alone(model, expected, batch_tokens):
    rows = rows_of()
    run(model, rows, batch_tokens)
    check(rows, expected)


def test_no_row_is_decoded_beyond_its_end(model, expected):
    """With few rows each leaves at once: a decoded token for every new one but the first."""
    rows = rows_of()[:12]
    with Watch(model) as watch:
        run(model, rows)
    decoded = sum(rows for rows, columns, _ in watch.shapes if columns == 1)
    assert decoded == sum(len(tokens) - 1 for tokens, _ in expected[:12])


def test_what_all_prompts_begin_with_is_read_once(model):
    prompts = [[*PREFIX, 20 + i, 30 + i] for i in range(6)]
    with Watch(model) as watch:
        run(model, rows_of(prompts, [1] * 6))
    assert watch.shapes == [(1, 5, 5), (6, 2, 7)]


def test_a_prompt_that_all_others_begin_with_keeps_a_token_to_read(model):
    prompts = [PREFIX, [*PREFIX, 20], [*PREFIX, 21, 22]]
    rows = rows_of(prompts, [6] * 3)
    run(model, rows)
    check(rows, [alone(model, prompt, 6) for prompt in prompts])


def test_the_batch_stays_in_its_bound_and_rows_set_aside_go_on_later(model):
    """Rows join with room for some new tokens; where most need more, some have to wait."""
    prompts = [[i + 2, 3, 4] for i in range(9)]
    limits = [HEADROOM * 3] * 9
    bound = 9 * (3 + HEADROOM)
    decoder = RollingDecoder(model, frozenset({1}), 1, bound, True)
    rows, ended = rows_of(prompts, limits), []
    with Watch(model) as watch:
        assert decoder.run(list(rows), 9, ended.append) == 0
    assert max(rows for rows, columns, _ in watch.shapes if columns == 1) == 9
    assert max(rows * held for rows, _, held in watch.shapes if rows > 1) <= bound
    assert sum(rows for rows, columns, _ in watch.shapes if columns > 1) > 9
    for row, prompt in zip(rows, prompts, strict=True):
        reference = model.generate(
            input_ids=torch.tensor([prompt]),
            generation_config=GenerationConfig(
                do_sample=False, max_new_tokens=limits[0], eos_token_id=1, pad_token_id=1
            ),
        )
        assert row.new == reference[0, 3:].tolist()


def test_a_full_memory_halves_the_rows_and_loses_nothing(tiny, expected):
    made = TransformersBackend(tiny, "tiny", 100_000, "float32")
    prompts, told = [f"{i} {'word ' * (i % 5)}" for i in range(12)], []
    whole = made.generate(prompts, [9] * 12)
    with Watch(made._model, most_rows=3) as watch:
        parts = made.generate(prompts, [9] * 12, lambda position, _: told.append(position))
    assert [each.reply for each in parts] == [each.reply for each in whole]
    assert sorted(told) == list(range(12))
    refused = [rows for rows, _, _ in watch.shapes if rows > 3]
    assert refused == [12, 6]


def test_a_prompt_that_fits_no_memory_alone_is_one_clear_line(tiny):
    made = TransformersBackend(tiny, "tiny", 100_000, "float32")
    made.generate(["Hi"], [1])
    with Watch(made._model, most_rows=0), pytest.raises(HierRouterError) as caught:
        made.generate(["Hi", "Hello"], [4, 4])
    assert str(caught.value) == (
        "model tiny: one prompt of 5 tokens does not fit into the accelerator's memory; lower "
        "pool.prompts.max_context_tokens"
    )


def test_a_sliding_window_is_decoded_in_whole_batches(model):
    assert can_roll(model)
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=6,
        initializer_range=0.5,
        eos_token_id=1,
    )
    sliding = MistralForCausalLM(config).double().eval()
    assert not can_roll(sliding)
    rows = rows_of()
    with Watch(sliding) as watch:
        run(sliding, rows, batch_tokens=200, roll=False)
    check(rows, [alone(sliding, *each) for each in zip(PROMPTS, LIMITS, strict=True)])
    assert len({rows for rows, _, _ in watch.shapes}) > 1

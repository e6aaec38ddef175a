"""Local generation: batches, padding, limits, end tokens and log-probabilities."""

import json
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hierrouter.config import ModelSpec
from hierrouter.errors import HierRouterError
from hierrouter.pool.transformers_backend import TransformersBackend
from hierrouter.pool.weights import prepare

MESSAGES = ["Hi", "What is twelve plus thirteen?", "Tell me about the sea and its tides. " * 3]


def backend(folder, batch_tokens=100_000):
    return TransformersBackend(folder, "tiny", batch_tokens, "float32")


def greedy(folder, prompt, steps, special):
    """Reference: one plain forward a token, without cache, padding or generate()."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = tokenizer(prompt, add_special_tokens=special)["input_ids"]
    chosen, logprobs = [], []
    with torch.inference_mode():
        for _ in range(steps):
            logits = model(torch.tensor([tokens + chosen])).logits[0, -1].log_softmax(-1)
            chosen.append(int(logits.argmax()))
            logprobs.append(float(logits.max()))
    return tokens, chosen, logprobs


def test_a_padded_batch_is_the_plain_argmax_of_each_row(tiny):
    made = backend(tiny)
    prompts = [made.render(message) for message in MESSAGES]
    for prompt, completion in zip(prompts, made.generate(prompts, [12] * 3), strict=True):
        tokens, chosen, logprobs = greedy(tiny, prompt, 12, special=False)
        count = completion.tokens_out
        assert completion.tokens_in == len(tokens)
        text = AutoTokenizer.from_pretrained(tiny).decode(chosen[:count], skip_special_tokens=True)
        assert completion.reply == text.strip()
        assert completion.logprob_mean == pytest.approx(sum(logprobs[:count]) / count, abs=1e-4)
        assert completion.logprob_min == pytest.approx(min(logprobs[:count]), abs=1e-4)


def test_rows_of_one_batch_keep_their_own_limits(tiny):
    made = backend(tiny)
    prompts = [made.render(message) for message in MESSAGES]
    limits = [3, 20, 9]
    together = made.generate(prompts, limits)
    assert [c.tokens_out for c in together] == limits
    assert {c.finish_reason for c in together} == {"length"}
    for prompt, limit, completion in zip(prompts, limits, together, strict=True):
        alone = made.generate([prompt], [limit])[0]
        assert alone.reply == completion.reply
        assert alone.logprob_mean == pytest.approx(completion.logprob_mean, abs=1e-4)


def test_batch_size_changes_no_reply_and_no_order(tiny):
    messages = [f"{i} {'word ' * (i * 7 % 11)}" for i in range(12)]
    limits = [5 + i % 4 for i in range(12)]
    whole, single = backend(tiny), backend(tiny, batch_tokens=1)
    told = {}
    one = whole.generate(messages, limits)
    other = single.generate(messages, limits, told.__setitem__)
    assert [(c.reply, c.tokens_out) for c in one] == [(c.reply, c.tokens_out) for c in other]
    assert told == dict(enumerate(other))


def test_every_end_token_of_the_checkpoint_ends_a_reply(save_tiny, tiny, tmp_path):
    """The fifth token of the reply is made an end token: the reply then ends with it."""
    prompt = backend(tiny).render(MESSAGES[1])
    _, chosen, logprobs = greedy(tiny, prompt, 8, special=False)
    position = next(i for i in range(2, 8) if chosen[i] not in chosen[:i])
    folder = save_tiny(tmp_path, eos_token_id=[1, chosen[position]])
    made = backend(folder)
    # A longer neighbour keeps the batch going after this row has ended.
    completion = made.generate([prompt, made.render(MESSAGES[2])], [30, 30])[0]
    assert completion.finish_reason == "stop"
    assert completion.tokens_out == position + 1
    assert completion.logprob_mean == pytest.approx(sum(logprobs[: position + 1]) / (position + 1))


def test_an_end_token_at_the_limit_is_a_stop(save_tiny, tiny, tmp_path):
    prompt = backend(tiny).render(MESSAGES[1])
    _, chosen, _ = greedy(tiny, prompt, 1, special=False)
    folder = save_tiny(tmp_path, eos_token_id=[1, chosen[0]])
    completion = backend(folder).generate([prompt], [1])[0]
    assert (completion.finish_reason, completion.tokens_out) == ("stop", 1)


def test_sampling_settings_of_the_checkpoint_change_nothing_and_warn_nobody(
    save_tiny, tiny, tmp_path, capfd
):
    prompt = backend(tiny).render(MESSAGES[1])
    plain = backend(tiny).generate([prompt], [20])[0]
    folder = save_tiny(tmp_path)
    settings = json.loads((folder / "generation_config.json").read_text())
    sampling = {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "top_k": 3}
    settings |= sampling | {"repetition_penalty": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = backend(folder).generate([prompt], [20])[0]
    assert (made.reply, made.logprob_mean) == (plain.reply, plain.logprob_mean)
    assert capfd.readouterr() == ("", "")


def test_the_chat_template_is_applied_and_its_absence_respected(save_tiny, tiny, tmp_path):
    assert backend(tiny).render("Hi") == "<s>[user] Hi [assistant]"
    plain = backend(save_tiny(tmp_path, template=None))
    assert plain.render("Hi") == "Hi"


def test_tokens_are_counted_without_special_tokens(tiny):
    assert backend(tiny).count_tokens("abc") == 3


def test_a_prompt_beyond_the_window_is_refused_before_any_weights_are_read(tiny):
    """The tiny model has 512 positions and its tokens are bytes."""
    made = backend(tiny)
    assert made.generate(["x" * 508], [4])[0].tokens_in == 508
    made.close()
    with pytest.raises(HierRouterError) as caught:
        made.generate(["Hi", "x" * 509], [4, 4])
    assert str(caught.value) == (
        "model tiny: a prompt of 509 tokens and a reply of 4 do not fit into its window of 512 "
        "tokens; lower pool.prompts.max_context_tokens, or the model's limits, by 1"
    )
    assert made._model is None


def state_window(folder, stated):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": stated}))


def test_a_model_that_states_no_window_has_none(save_tiny, tmp_path):
    state_window(save_tiny(tmp_path), -1)
    backend(tmp_path).require_window(100_000, 1000)


def test_a_configuration_with_a_wrong_value_is_one_clear_line(save_tiny, tmp_path):
    state_window(save_tiny(tmp_path), "many")
    with pytest.raises(HierRouterError, match="model tiny: no usable tokenizer in") as caught:
        backend(tmp_path).generate(["Hi"], [4])
    assert "\n" not in str(caught.value)


def test_no_prompts_load_no_model(tmp_path):
    assert backend(tmp_path / "nothing").generate([], []) == []


def test_a_closed_backend_answers_again(tiny):
    made = backend(tiny)
    first = made.generate(["Hi"], [4])[0].reply
    made.close()
    assert made.generate(["Hi"], [4])[0].reply == first


@pytest.mark.parametrize(
    ("missing", "what"), [("tokenizer.json", "tokenizer"), ("model.safetensors", "model")]
)
def test_an_incomplete_folder_is_one_clear_line(save_tiny, tmp_path, missing, what):
    folder = save_tiny(tmp_path)
    for path in [*folder.glob("tokenizer*")] if what == "tokenizer" else [folder / missing]:
        path.unlink()
    with pytest.raises(HierRouterError, match=f"model tiny: no usable {what} in") as caught:
        backend(folder).generate(["Hi"], [4])
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_one_clear_line(save_tiny, tmp_path):
    weights = save_tiny(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(HierRouterError, match="no usable model in") as caught:
        backend(tmp_path).generate(["Hi"], [4])
    assert "\n" not in str(caught.value)


@pytest.mark.real_model
def test_a_real_model_answers_alike_alone_and_in_a_batch():
    spec = ModelSpec(name="smol", model="HuggingFaceTB/SmolLM2-135M-Instruct", base_rate=1)
    made = backend(prepare(spec).folder)
    messages = [
        "What is the capital of France?",
        "What is 12 plus 13?\nReply with one line only.",
        "Name three animals that live in the sea, and say one thing about each of them.",
    ]
    prompts = [made.render(message) for message in messages]
    assert all("You are a helpful AI assistant named SmolLM" in prompt for prompt in prompts)
    together = made.generate(prompts, [24] * 3)
    assert together[0].reply == "The capital of France is Paris."
    assert together[0].finish_reason == "stop"
    for prompt, completion in zip(prompts, together, strict=True):
        alone = made.generate([prompt], [24])[0]
        assert alone.reply == completion.reply
        assert alone.logprob_mean == pytest.approx(completion.logprob_mean, abs=1e-3)

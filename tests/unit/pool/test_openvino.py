"""OpenVINO: the converted model computes what the checkpoint does, and batches end row by row."""

import json
import os
import subprocess
import sys

import numpy as np
import openvino as ov
import openvino_genai
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hierrouter.config import ModelSpec
from hierrouter.errors import HierRouterError
from hierrouter.pool import openvino_convert
from hierrouter.pool.openvino_backend import OpenVINOBackend, _next
from hierrouter.pool.openvino_pipeline import STEP_TOKENS
from hierrouter.pool.weights import prepare_openvino

MESSAGES = ["Hi", "What is twelve plus thirteen?", "Tell me about the sea and its tides. " * 3]


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    openvino_convert.convert(tiny, folder)
    return folder


def logits_of(folder, tokens):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].numpy()


def test_before_its_weights_are_compressed_the_model_is_the_checkpoint(tiny):
    """Two calls, the second on the state that the first left: each token sees those before it."""
    config = AutoConfig.from_pretrained(tiny)
    model = openvino_convert._traced(tiny, config)
    openvino_convert._keep_past_as_state(model, *openvino_convert._shape(config))
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = request.create_infer_request()
    tokens = [5, 90, 17, 201, 8, 44, 61]
    made = []
    for part in (tokens[:4], tokens[4:]):
        before = sum(len(each) for each in made)
        request.infer(
            {
                "input_ids": np.array([part]),
                "attention_mask": np.ones((1, before + len(part)), dtype=np.int64),
                "position_ids": np.arange(before, before + len(part))[None],
                "beam_idx": np.array([0]),
            }
        )
        made.append(request.get_tensor("logits").data[0].copy())
    assert np.concatenate(made) == pytest.approx(logits_of(tiny, tokens), abs=1e-3)


def test_int8_weights_stay_near_the_checkpoint(tiny, converted):
    made = OpenVINOBackend(converted, "tiny")
    prompt = made.render(MESSAGES[1])
    completion = made.generate([prompt], [1])[0]
    tokens = made._checkpoint.encode([prompt])[0]
    expected = torch.tensor(logits_of(tiny, tokens)[-1]).log_softmax(-1)
    assert completion.tokens_in == len(tokens)
    assert completion.logprob_mean == completion.logprob_min
    assert completion.logprob_mean == pytest.approx(float(expected.max()), abs=0.1)


def test_rows_of_one_batch_keep_order_and_limits(converted):
    made = OpenVINOBackend(converted, "tiny")
    prompts = [made.render(message) for message in MESSAGES]
    limits, told = [3, 20, 9], {}
    together = made.generate(prompts, limits, told.__setitem__)
    assert [c.tokens_out for c in together] == limits
    assert {c.finish_reason for c in together} == {"length"}
    assert told == dict(enumerate(together))
    alone = [made.generate([p], [n])[0] for p, n in zip(prompts, limits, strict=True)]
    assert [c.reply for c in alone] == [c.reply for c in together]


def test_what_prompts_begin_with_is_held_once(converted):
    """Questions that are asked in three ways, in turn with others, as recordings do."""
    questions = [f"Tell me about {letter}, please. " * 8 for letter in "abcdef"]

    def most_held(endings):
        made = OpenVINOBackend(converted, "tiny")
        prompts = [made.render(q + end) for end in endings for q in questions]
        made.generate(prompts, [60] * len(prompts))
        return made._pipeline.get_metrics().max_cache_usage

    assert most_held(["Why?", "Be short.", "Guess."]) < 2 * most_held(["Why?"])


def test_a_prompt_waits_for_the_work_of_one_that_begins_alike():
    encoded = [[7] * 40 + [1], [8] * 40, [7] * 40 + [2], [9] * STEP_TOKENS, [5] * 40]
    waiting = sorted(range(5), key=encoded.__getitem__, reverse=True)
    taken = []
    while waiting:
        taken.append(_next(waiting, encoded, 64))
    assert taken == [[4, 0], [2, 1], [3]]
    waiting = [4, 1, 0]
    assert (_next(waiting, encoded, 2), waiting) == ([0, 1], [4])
    assert _next(waiting, encoded, 0) == []


def numbers(folder):
    """A backend whose replies are its token ids."""
    made = OpenVINOBackend(folder, "tiny")
    made._checkpoint.decode = lambda tokens: " ".join(map(str, tokens))
    return made


def test_an_end_token_ends_a_reply_and_is_counted(save_tiny, converted, tmp_path):
    prompt = numbers(converted).render(MESSAGES[1])
    whole = numbers(converted).generate([prompt], [12])[0].reply.split()
    position = next(i for i in range(2, 12) if whole[i] not in whole[:i])
    ending = int(whole[position])
    folder = tmp_path / "ending"
    folder.mkdir()
    openvino_convert.convert(save_tiny(tmp_path / "tiny", eos_token_id=[1, ending]), folder)
    completion = numbers(folder).generate([prompt], [12])[0]
    assert (completion.finish_reason, completion.tokens_out) == ("stop", position + 1)
    assert completion.reply.split() == whole[: position + 1]
    at_the_limit = numbers(folder).generate([prompt], [position + 1])[0]
    assert at_the_limit.finish_reason == "stop"


def test_sampling_settings_of_the_checkpoint_change_nothing(save_tiny, converted, tmp_path):
    prompt = OpenVINOBackend(converted, "tiny").render(MESSAGES[1])
    plain = OpenVINOBackend(converted, "tiny").generate([prompt], [20])[0]
    source = save_tiny(tmp_path / "source")
    settings = json.loads((source / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 0.3, "repetition_penalty": 5.0}
    (source / "generation_config.json").write_text(json.dumps(settings))
    folder = tmp_path / "made"
    folder.mkdir()
    openvino_convert.convert(source, folder)
    made = OpenVINOBackend(folder, "tiny").generate([prompt], [20])[0]
    assert (made.reply, made.logprob_mean) == (plain.reply, plain.logprob_mean)


def test_a_prompt_beyond_the_window_is_refused(converted):
    made = OpenVINOBackend(converted, "tiny")
    with pytest.raises(HierRouterError, match="do not fit into its window of 512"):
        made.generate(["x" * 505], [20])


def test_nothing_asked_is_nothing_loaded(tmp_path):
    assert OpenVINOBackend(tmp_path, "none").generate([], []) == []


def test_a_broken_call_leaves_nothing_for_the_next(converted, capfd):
    made = OpenVINOBackend(converted, "tiny")
    prompts = [made.render(message) for message in MESSAGES]

    def stop(position, completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.generate(prompts, [3, 20, 9], stop)
    assert "leaked" not in "".join(capfd.readouterr())
    assert [c.tokens_out for c in made.generate(prompts, [4, 5, 6])] == [4, 5, 6]


def test_a_failure_of_openvino_is_one_line_and_the_next_call_works(converted, monkeypatch):
    made = OpenVINOBackend(converted, "tiny")
    prompts = [made.render(message) for message in MESSAGES]

    def fail(self):
        raise RuntimeError("Exception from src/inference.cpp:12\nno memory\n")

    with monkeypatch.context() as broken:
        broken.setattr(openvino_genai.ContinuousBatchingPipeline, "step", fail)
        with pytest.raises(
            HierRouterError, match=r"model tiny: OpenVINO failed.*no memory"
        ) as failure:
            made.generate(prompts, [3, 20, 9])
    assert "\n" not in str(failure.value)
    assert [c.tokens_out for c in made.generate(prompts, [4, 5, 6])] == [4, 5, 6]


def test_conversion_happens_once_and_leaves_no_half(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path))
    spec = ModelSpec(name="m", model=str(tiny), base_rate=1, backend="openvino")
    first = prepare_openvino(spec)
    assert "converting" in capfd.readouterr().err
    assert prepare_openvino(spec) == first
    assert capfd.readouterr().err == ""
    assert [path for path in (tmp_path / "openvino").iterdir() if path.name[:4] == ".tmp"] == []


def test_converting_reports_to_nobody(tiny, tmp_path):
    """OpenVINO's tools send statistics and leave a note of it in the home folder, if they can."""
    code = (
        "from hierrouter.config import ModelSpec\n"
        "from hierrouter.pool.weights import prepare_openvino\n"
        f"spec = ModelSpec(name='m', model={str(tiny)!r}, base_rate=1, backend='openvino')\n"
        "prepare_openvino(spec)\n"
    )
    hushed = {name: value for name, value in os.environ.items() if name != "CI"}
    places = {"HOME": str(tmp_path), "HIERROUTER_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env={**hushed, **places}, check=True)
    assert list((tmp_path / "cache" / "openvino").glob("[!.]*"))
    assert not (tmp_path / "intel").exists()


def test_a_model_that_cannot_be_converted_names_the_way_out(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "home"))

    def fail(*_):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino_convert, "convert", fail)
    spec = ModelSpec(name="m", model=str(tiny), base_rate=1, backend="openvino")
    with pytest.raises(HierRouterError, match=r"no such operation.*backend to transformers"):
        prepare_openvino(spec)
    assert list((tmp_path / "home" / "openvino").glob("tiny*")) == []

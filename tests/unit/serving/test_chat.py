"""What a chat completion request is understood as, and what is refused, naming the culprit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.routers import arbitrary_info, arbitrary_policy

from hierrouter.pool.live.backend import Turn
from hierrouter.serving.chat import parse_chat
from hierrouter.serving.knobs import KnobError, alpha_note, presets
from hierrouter.serving.problems import RequestError, problem_of


def info_of(policy: str = "decomposed", **said: Any):
    """What a router of two models and two hops says of itself."""
    return arbitrary_info(("A", "B"), 2, arbitrary_policy(8, 2, 2, policy=policy), **said)


INFO = info_of()
PRESETS = presets("hierrouter", INFO, 0.1)
HELLO = [{"role": "user", "content": "Hello?"}]


def parse(**fields):
    body = {"model": "hierrouter", "messages": HELLO, **fields}
    return parse_chat(json.dumps(body).encode(), PRESETS, INFO)


def refused(**fields):
    with pytest.raises((RequestError, KnobError)) as caught:
        parse(**fields)
    return problem_of(caught.value)


def test_a_plain_question() -> None:
    asked = parse()
    assert asked.question.text == "Hello?"
    assert asked.question.before == ()
    assert asked.question.max_tokens is None
    assert not asked.stream
    assert asked.terms.alpha == 0.1
    assert asked.terms.hops == 2
    assert asked.terms.models == {0, 1}
    assert asked.unheeded == ()


def test_turns_before_the_last_are_context() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "!"}],
        },
        {"role": "assistant", "content": "Two", "refusal": None},
        {"role": "user", "content": "Three?", "name": "ann"},
    ]
    asked = parse(messages=messages)
    assert asked.question.text == "Three?"
    assert asked.question.before == (
        Turn("system", "Be brief."),
        Turn("user", "One!"),
        Turn("assistant", "Two"),
    )


@pytest.mark.parametrize(("name", "alpha"), [("hierrouter-cheap", 1.0), ("hierrouter-best", 0.0)])
def test_presets_set_alpha_and_a_knob_overrules_them(name, alpha) -> None:
    assert parse(model=name).terms.alpha == alpha
    assert parse(model=name, hierrouter={"alpha": 0.3}).terms.alpha == 0.3


def test_every_alpha_is_taken_and_the_papers_policy_decides_at_one_that_it_knows() -> None:
    assert parse(hierrouter={"alpha": 7}).terms.alpha == 7
    body = json.dumps({"model": "hierrouter", "messages": HELLO, "hierrouter": {"alpha": 7}})
    assert parse_chat(body.encode(), PRESETS, info_of("mlp")).terms.alpha == 1


def test_an_alpha_out_of_what_was_trained_for_is_noted_with_what_is_used() -> None:
    assert alpha_note(INFO, 0.5) == ""
    assert alpha_note(INFO, 7).endswith("trained for alpha 0 to 1; 7 is out of that")
    assert alpha_note(info_of("mlp"), 7).endswith("7 is out of that, and 1 is used")


def test_knobs_are_taken() -> None:
    knobs = {"max_cost": 0.01, "max_hops": 1, "models": ["B"], "deadline_ms": 1500}
    terms = parse(hierrouter={**knobs, "replies": True, "progress": True}).terms
    assert (terms.max_cost, terms.hops, terms.models) == (0.01, 1, {1})
    assert terms.deadline_s == 1.5
    assert terms.replies
    assert terms.progress


def test_limits_stops_and_streams() -> None:
    asked = parse(
        max_tokens=9,
        max_completion_tokens=7,
        stop="END",
        seed=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert asked.question.max_tokens == 7
    assert asked.stop == ("END",)
    assert asked.stream
    assert asked.usage
    assert parse(stop=["a", "b"]).stop == ("a", "b")


def test_what_asks_for_nothing_passes_and_what_is_not_heeded_is_told() -> None:
    asked = parse(
        temperature=0.7,
        top_p=1,
        n=1,
        tools=[],
        tool_choice="auto",
        response_format={"type": "text"},
        logprobs=False,
        frequency_penalty=0,
        user="ann",
        metadata={"a": "b"},
        reasoning_effort="low",
        logit_bias=None,
    )
    assert asked.unheeded == ("temperature", "reasoning_effort")
    assert parse(temperature=0).unheeded == ()


@pytest.mark.parametrize(
    ("fields", "parameter", "words"),
    [
        ({"n": 2}, "n", "n is not offered other than as 1; leave it out"),
        ({"n": True}, "n", "not offered"),
        ({"tools": [{"type": "function"}]}, "tools", "not offered"),
        ({"logprobs": True}, "logprobs", "not offered"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not offered"),
        ({"presence_penalty": 1}, "presence_penalty", "not offered"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not offered"),
        ({"modalities": ["text", "audio"]}, "modalities", "not offered"),
        ({"mesages": []}, "mesages", "not known"),
        ({"messages": []}, "messages", "messages is empty; give at least one"),
        ({"messages": "Hello"}, "messages", "messages has to be a list, not 'Hello'"),
        ({"messages": [{"role": "user"}]}, "messages", "empty"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages", "last"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0", "tools"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [1], "content": None}, *HELLO]},
            "messages.0",
            "tools",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages.0",
            "image_url",
        ),
        ({"max_tokens": 0}, "max_tokens", "max_tokens has to be at least 1, not 0"),
        ({"max_tokens": "many"}, "max_tokens", "has to be a whole number, not 'many'"),
        ({"stop": [str(i) for i in range(17)]}, "stop", "16"),
        ({"stream": "perhaps"}, "stream", "stream has to be true or false, not 'perhaps'"),
        (
            {"stream_options": {"include_usge": True}},
            "stream_options",
            "stream_options.include_usge is not known; leave it out",
        ),
        ({"stop": 5}, "stop", "stop has to be a text or a list, not 5"),
        ({"stop": ["a", 5]}, "stop", "stop.1 has to be a text, not 5"),
        ({"hierrouter": {"alpha": -1}}, "hierrouter.alpha", "has to be at least 0, not -1"),
        ({"hierrouter": {"alpha": 1e40}}, "hierrouter.alpha", "has to be at most 1e+06, not 1e+40"),
        ({"hierrouter": {"alpha": "low"}}, "hierrouter.alpha", "has to be a number, not 'low'"),
        ({"hierrouter": {"alpa": 1}}, "hierrouter.alpa", "max_cost"),
        ({"hierrouter": {"max_hops": 3}}, "hierrouter.max_hops", "at most 2"),
        ({"hierrouter": {"max_hops": 0}}, "hierrouter.max_hops", "at least 1"),
        ({"hierrouter": {"max_cost": 0}}, "hierrouter.max_cost", "has to be greater than 0"),
        ({"hierrouter": {"models": ["C"]}}, "hierrouter.models", "A, B"),
        ({"hierrouter": {"models": []}}, "hierrouter.models", "is empty; give at least one"),
        ({"hierrouter": {"models": ["A", 3]}}, "hierrouter.models.1", "a text, not 3"),
        ({"hierrouter": {"progress": 1}}, "hierrouter.progress", "true or false, not 1"),
        ({"hierrouter": {"deadline_ms": 1.5}}, "hierrouter.deadline_ms", "a whole number, not 1.5"),
        ({"hierrouter": "cheap"}, "hierrouter", "an object, not 'cheap'; its settings are alpha"),
    ],
)
def test_refusals_name_the_culprit(fields, parameter, words) -> None:
    problem = refused(**fields)
    assert problem.status == 400
    assert problem.parameter == parameter
    assert words in problem.message
    error = problem.body()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] in ("invalid_value", "unsupported", "unknown_parameter")
    for word in ("Input", "valid ", "validation", "dictionary", "Knobs"):
        assert word not in problem.message


def test_what_is_missing_is_told_so() -> None:
    with pytest.raises(RequestError, match="messages is missing"):
        parse_chat(b'{"model": "hierrouter"}', PRESETS, INFO)


def test_an_unknown_model_is_not_found() -> None:
    problem = refused(model="gpt-4")
    assert (problem.status, problem.code) == (404, "model_not_found")
    assert "hierrouter-cheap" in problem.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"a": NaN}', b"\xff\xfe"])
def test_no_json_is_told(body) -> None:
    with pytest.raises(RequestError) as caught:
        parse_chat(body, PRESETS, INFO)
    assert problem_of(caught.value).status == 400
    assert "\n" not in str(caught.value)


def test_moves_of_the_paper_always_make_all_hops() -> None:
    info = info_of(moves="paper")
    body = json.dumps({"model": "hierrouter", "messages": HELLO, "hierrouter": {"max_hops": 1}})
    with pytest.raises(KnobError, match="always make 2"):
        parse_chat(body.encode(), PRESETS, info)

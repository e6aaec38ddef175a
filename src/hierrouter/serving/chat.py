"""OpenAI's chat completions: what a request asks for, and what an answer looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hierrouter.pool.live.backend import Turn
from hierrouter.serving.calls import Question
from hierrouter.serving.knobs import Knobs, knob_error, terms_of
from hierrouter.serving.problems import RequestError
from hierrouter.serving.wording import wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hierrouter.learning.router import RouterInfo
    from hierrouter.pool.live.backend import Speaker
    from hierrouter.serving.knobs import Terms

MOST_STOPS = 16
"""Stop sequences of one request."""


class TextPart(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class Message(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="allow")

    role: str
    """`system`, `developer`, `user` or `assistant`."""
    content: str | list[TextPart] | None = None
    """Its text, or parts of type `text`."""


class StreamOptions(BaseModel):
    """What a stream holds beside the answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    """Whether the last chunk tells the token counts."""
    include_obfuscation: bool | None = None
    """Whether pieces are padded to one length; they never are."""


class ChatRequest(BaseModel):
    """A request for a chat completion, as far as it is heeded."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str
    """The router's name, or one of its presets."""
    messages: Annotated[list[Message], Field(min_length=1)]
    """The conversation. Its last turn, the user's, is the query; those before it are context."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events."""
    stream_options: StreamOptions | None = None
    """What a stream holds beside the answer."""
    stop: str | list[str] | None = None
    """Texts before which the answer ends."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most new tokens of the answer; a model's own limit is never exceeded."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""
    seed: int | None = None
    """Replies are greedy, so that the same request gets the same answer with any seed."""
    hierrouter: Knobs | None = None
    """How the request is to be routed."""


UNHEEDED = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "reasoning_effort", "verbosity", "best_of"}
)
"""Settings that change how a reply is drawn. A greedy reply is given whatever they say; the answer
tells which of them were not heeded."""
WITHOUT_EFFECT = frozenset(
    {
        *("metadata", "store", "user", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "parallel_tool_calls"),
    }
)
"""What says nothing about the answer."""
ONLY: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "logit_bias": ({},),
}
"""What is known and not offered, with the values that ask for nothing."""


@dataclass(frozen=True)
class Asked:
    """A request, understood and checked."""

    question: Question
    terms: Terms
    model: str
    """The name by which the router was asked."""
    stream: bool
    usage: bool
    """Whether the last chunk of a stream tells the token counts."""
    stop: tuple[str, ...]
    unheeded: tuple[str, ...]
    """Settings that were given and do nothing."""


def parse_chat(body: bytes, presets: Mapping[str, float], info: RouterInfo) -> Asked:
    """Reads a request.

    Args:
        body: JSON.
        presets: the alpha of each name under which the router is asked.
        info: the router.

    Raises:
        RequestError: it is no chat completion request, or asks for what is not offered.
        KnobError: a setting of the routing cannot be followed.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _wrong(error) from error
    if request.model not in presets:
        raise RequestError(
            f"there is no model {request.model!r}; there are {', '.join(presets)}",
            "model",
            404,
            "model_not_found",
        )
    limits = [each for each in (request.max_tokens, request.max_completion_tokens) if each]
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > MOST_STOPS:
        raise _refused(f"stop holds {len(stops)} texts; at most {MOST_STOPS} do", "stop")
    return Asked(
        question=_question(request.messages, min(limits, default=None)),
        terms=terms_of(request.hierrouter or Knobs(), presets[request.model], info),
        model=request.model,
        stream=bool(request.stream),
        usage=bool(request.stream_options and request.stream_options.include_usage),
        stop=tuple(stop for stop in stops if stop),
        unheeded=_unheeded(request.model_extra or {}),
    )


def _wrong(error: ValidationError) -> Exception:
    """What to raise where a request cannot be read."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        return RequestError(f"the body is no JSON ({first['msg']})", None)
    if first["loc"][:1] == ("hierrouter",):
        within = [each for each in errors if each["loc"][:1] == ("hierrouter",)]
        return knob_error([{**each, "loc": each["loc"][1:]} for each in within])
    where, told = wrong(errors)
    name = str(where[0]) if where else None
    return _refused(f"{'.'.join(map(str, where)) or 'the body'} {told}", name)


def _refused(text: str, parameter: str | None) -> RequestError:
    """What to raise where a field has a wrong value."""
    return RequestError(text, parameter, code="invalid_value" if parameter else None)


def _question(messages: list[Message], max_tokens: int | None) -> Question:
    turns = [_turn(message, number) for number, message in enumerate(messages)]
    last = turns[-1]
    if last.speaker != "user":
        raise _refused(
            f"the last message is the {last.speaker}'s; the query has to come last, as the user's",
            "messages",
        )
    if not last.text.strip():
        raise _refused("the last message is empty; it is the query", "messages")
    return Question(last.text, tuple(turns[:-1]), max_tokens)


def _turn(message: Message, number: int) -> Turn:
    speakers: dict[str, Speaker] = {
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
    }
    where = f"messages.{number}"
    if message.role not in speakers:
        raise _refused(
            f"{where}.role is {message.role!r}; there are {', '.join(speakers)}: tools are not "
            "offered",
            where,
        )
    if (message.model_extra or {}).get("tool_calls"):
        raise _refused(f"{where}.tool_calls: tools are not offered", where)
    content = message.content
    if content is None:
        content = ""
    if not isinstance(content, str):
        for part in content:
            if part.type != "text" or part.text is None:
                raise _refused(
                    f"{where}.content holds a part of type {part.type!r}; only text is understood",
                    where,
                )
        content = "".join(part.text or "" for part in content)
    return Turn(speakers[message.role], content)


def _unheeded(others: Mapping[str, Any]) -> tuple[str, ...]:
    """What of the settings that have no field here was given and does nothing."""
    unheeded = []
    for name, value in others.items():
        if value is None or name in WITHOUT_EFFECT:
            continue
        if name in UNHEEDED:
            harmless = {"temperature": 0, "top_p": 1}
            if value != harmless.get(name):
                unheeded.append(name)
        elif name in ONLY:
            if not any(_same(value, each) for each in ONLY[name]):
                told = " or ".join(json.dumps(each) for each in ONLY[name])
                line = f"{name} is not offered other than as {told}; leave it out"
                raise RequestError(line, name, code="unsupported")
        else:
            raise RequestError(f"{name} is not known; leave it out", name, code="unknown_parameter")
    return tuple(unheeded)


def _same(value: Any, other: Any) -> bool:
    """Whether two values of JSON are the same: for Python, `true` is 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)

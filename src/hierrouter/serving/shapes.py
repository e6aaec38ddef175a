"""What answers look like, for `/openapi.json`.

Nothing is built from these, which would take time; a test holds real answers against them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hierrouter.pool.prompts import Role  # noqa: TC001


class Shape(BaseModel):
    """Has these fields and no others."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class RouterIdentity(Shape):
    """Which router answered."""

    name: str
    version: str
    """In MLflow, or the begin of the digest."""
    digest: str
    """SHA-256 of its weights."""


class HopTold(Shape):
    """One call to a model."""

    index: int
    """From 0."""
    model: str
    role: Role
    scores: dict[str, float]
    """The policy's probability of each choice that was open, greatest first."""
    fallback: bool
    """Whether a model that fails would have been chosen."""
    tokens_in: int
    tokens_out: int
    finish_reason: Literal["stop", "length", "content_filter"]
    cost_usd: float
    latency_ms: float
    """From the decision's begin to the reply's end."""
    decision_ms: float
    """The part of `latency_ms` that the decision took."""
    first_token_ms: float = 0
    """From the decision's begin to the reply's first piece, where it came in pieces."""
    reply: str = ""
    """The text, where `replies` asks for it and it is not the answer."""


class RouteTold(Shape):
    """How an answer came about."""

    router: RouterIdentity
    route: str
    """The models in order. `A:B`: A analyses, B answers. `A!B`: A answers, then B; the last answer
    is returned, or in `A!B=A` that of A."""
    alpha: float
    """What was decided at."""
    cost_usd: float
    """Of everything that was called."""
    relative_cost: float
    """In cost units of the router."""
    degraded: bool
    """Whether a failure changed the route."""
    hops: list[HopTold]
    returned: int
    """The index of the hop whose answer it is."""
    lost_usd: float = 0
    """The part of `cost_usd` of calls that gave no reply, where there were any."""
    max_cost: float = 0
    """As asked for."""
    unheeded: list[str] = []
    """Settings of the request that do nothing."""


class Said(Shape):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(Shape):
    """The only one."""

    index: int
    message: Said
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter"]


class Usage(Shape):
    """Tokens over all hops."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(Shape):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    hierrouter: RouteTold


class RouterTold(Shape):
    """What there is to choose from under a name."""

    router: RouterIdentity
    alpha: float
    """Of this name."""
    alpha_range: list[float]
    """The least and the greatest that the router was trained for."""
    models: list[str]
    hops: int
    """The most."""
    moves: str
    cost_unit_usd: float


class ModelTold(Shape):
    """A name under which the router is asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    hierrouter: RouterTold


class ModelList(Shape):
    """All of these names."""

    object: Literal["list"]
    data: list[ModelTold]


class Prediction(Shape):
    """The answer to one query of KServe's v1."""

    answer: str
    route: str
    cost_usd: float
    relative_cost: float
    detail: RouteTold


class Predictions(Shape):
    """The answers of KServe's v1, in the order of the queries."""

    predictions: list[Prediction]


class ErrorTold(Shape):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    """The culprit's name."""
    code: str | None
    """One of a few words for programs."""


class OpenAIError(Shape):
    """A failure, as OpenAI's interface tells it."""

    error: ErrorTold


class KServeError(Shape):
    """A failure, as KServe's protocols tell it."""

    error: str


SHAPES: tuple[type[Shape], ...] = (
    ChatCompletion,
    ModelTold,
    ModelList,
    Predictions,
    OpenAIError,
    KServeError,
)


def schemas() -> dict[str, Any]:
    """All of them by name, as JSON schemas."""
    made: dict[str, Any] = {}
    for shape in SHAPES:
        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        made |= schema.pop("$defs", {})
        made[shape.__name__] = schema
    return made

"""What a request may set of the routing: `extra_body={"hierrouter": {…}}`, and model presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from hierrouter.learning.router import RouterInfo

CHEAP, BEST = "-cheap", "-best"
"""What is added to the router's name for clients that can send nothing but a model's name."""


class Knobs(BaseModel):
    """How one request is to be routed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Quality given up for one cost unit saved; brought into the range that the router was trained
    for. Not given: the preset's or the server's."""
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Most dollars that all calls of this request may cost by the pool's rates; never exceeded."""
    max_hops: Annotated[int, Field(ge=1)] | None = None
    """Most model calls, at most the router's L."""
    models: Annotated[list[str], Field(min_length=1)] | None = None
    """The only pool models that may be called, by name."""
    deadline_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = None
    """Milliseconds until the whole answer has to be there; after that the request fails."""
    replies: bool = False
    """Whether the texts of earlier hops are told as well."""
    progress: bool = False
    """With `stream`, whether each decision and each finished hop is an event of its own."""


class KnobError(HierRouterError):
    """A setting of a request that cannot be followed."""

    def __init__(self, parameter: str, text: str) -> None:
        """Takes the setting's name, such as "max_hops", and what is wrong with it."""
        self.parameter = ".".join(part for part in ("hierrouter", parameter) if part)
        super().__init__(f"{self.parameter} {text}")


@dataclass(frozen=True)
class Terms:
    """The terms of one request, every setting filled in and checked against the router."""

    alpha: float
    """In the router's range."""
    max_cost: float | None
    """Dollars."""
    hops: int
    """Most model calls."""
    models: frozenset[int]
    """Numbers of the models that may be called."""
    deadline_s: float | None
    """Seconds from the request's arrival."""
    replies: bool = False
    """Whether earlier hops' texts are told."""
    progress: bool = False
    """Whether decisions and hops are told as they come."""


def presets(name: str, info: RouterInfo, alpha: float) -> dict[str, float]:
    """The alpha of each name under which a router is asked.

    Args:
        name: what the router is called.
        info: the router.
        alpha: of the plain name; brought into the router's range.
    """
    low, high = info.alpha_range
    return {
        name: min(max(alpha, low), high),
        f"{name}{CHEAP}": high,
        f"{name}{BEST}": low,
    }


def terms_of(knobs: Knobs, preset_alpha: float, info: RouterInfo) -> Terms:
    """What a request's knobs mean for a router.

    Args:
        knobs: of the request.
        preset_alpha: of the name by which the router was asked.
        info: the router.

    Raises:
        KnobError: a model is not in the pool, or the hops are not to be had.
    """
    low, high = info.alpha_range
    alpha = preset_alpha if knobs.alpha is None else knobs.alpha
    hops = info.hops if knobs.max_hops is None else knobs.max_hops
    if hops > info.hops:
        raise KnobError("max_hops", f"is {hops}; this router makes at most {info.hops}")
    if hops < info.hops and info.moves == "paper":
        raise KnobError("max_hops", f"is {hops}; this router's moves always make {info.hops}")
    numbers = {model: number for number, model in enumerate(info.models)}
    for model in knobs.models or ():
        if model not in numbers:
            raise KnobError("models", f"names {model}; the pool has {', '.join(numbers)}")
    return Terms(
        alpha=min(max(alpha, low), high),
        max_cost=knobs.max_cost,
        hops=hops,
        models=frozenset(numbers[model] for model in knobs.models or numbers),
        deadline_s=None if knobs.deadline_ms is None else knobs.deadline_ms / 1000,
        replies=knobs.replies,
        progress=knobs.progress,
    )


def parse_knobs(raw: Any) -> Knobs:
    """Reads `hierrouter` of a request.

    Raises:
        KnobError: a setting is unknown or has a wrong value.
    """
    if raw is None:
        return Knobs()
    try:
        return Knobs.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(Knobs.model_fields)
            raise KnobError(where, f"is no setting; there are {known}") from error
        raise KnobError(where, f"is wrong: {first['msg']}") from error

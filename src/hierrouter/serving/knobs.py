"""What a request may set of the routing: `extra_body={"hierrouter": {…}}`, and model presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hierrouter.config import MOST_ALPHA
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.serving.wording import wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.learning.router import RouterInfo

CHEAP, BEST = "-cheap", "-best"
"""What is added to the router's name for clients that can send nothing but a model's name."""


class Knobs(BaseModel):
    """How one request is to be routed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    alpha: Annotated[float, Field(ge=0, le=MOST_ALPHA, allow_inf_nan=False)] | None = None
    """Quality given up for one cost unit saved. A router of the policy `mlp` decides at the nearest
    alpha that it was trained for. Not given: the preset's or the server's."""
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
    """What is decided at."""
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
        alpha: of the plain name.
    """
    low, high = info.alpha_range
    return {
        name: info.alpha_of(alpha),
        f"{name}{CHEAP}": high,
        f"{name}{BEST}": low,
    }


def require_alpha(alpha: float) -> None:
    """Refuses an `--alpha` that no request could name either.

    Raises:
        ConfigError: it is negative, too great or no number.
    """
    if not 0 <= alpha <= MOST_ALPHA:
        raise ConfigError(f"--alpha is {alpha:g}; give a number from 0 to {MOST_ALPHA:,}")


def alpha_note(info: RouterInfo, alpha: float) -> str:
    """What to say where an alpha is out of what a router was trained for; nothing where it is not.

    Args:
        info: the router.
        alpha: that is asked for.
    """
    low, high = info.alpha_range
    if low <= alpha <= high:
        return ""
    used = info.alpha_of(alpha)
    return (
        f"note: this router was trained for alpha {low:g} to {high:g}; {alpha:g} is out of that"
        + ("" if used == alpha else f", and {used:g} is used")
    )


def terms_of(knobs: Knobs, preset_alpha: float, info: RouterInfo) -> Terms:
    """What a request's knobs mean for a router.

    Args:
        knobs: of the request.
        preset_alpha: of the name by which the router was asked.
        info: the router.

    Raises:
        KnobError: a model is not in the pool, or the hops are not to be had.
    """
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
        alpha=info.alpha_of(alpha),
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
        raise knob_error(error.errors()) from error


def knob_error(errors: Sequence[Any]) -> KnobError:
    """What is wrong with a request's settings.

    Args:
        errors: as pydantic tells them of `Knobs`.
    """
    place, told = wrong(errors)
    where, known = ".".join(map(str, place)), ", ".join(Knobs.model_fields)
    if errors[0]["type"] == "extra_forbidden":
        return KnobError(where, f"is no setting; there are {known}")
    return KnobError(where, told if place else f"{told}; its settings are {known}")

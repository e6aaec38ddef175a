"""What a call takes before anything like it was recorded: rough, from limits and model sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hierrouter.pool.open import choose_kind
from hierrouter.pool.prompts import limit_for

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec
    from hierrouter.pool.prompts import Role

Pace = Literal["cpu", "openvino", "cuda"]

USED = 0.6
"""Share of a reply's token limit that is used in the mean; the rest ends earlier."""
PROMPT = 160
"""Tokens of an ordinary question with its instruction."""
SPEED: dict[Pace, tuple[float, float]] = {
    "cpu": (12.0, 60.0),
    "openvino": (80.0, 240.0),
    "cuda": (4000.0, 60000.0),
}
"""(written, read) tokens a second in batches, for a model of one billion parameters: two cores
without bfloat16 instructions, with transformers and with OpenVINO, and one data-centre GPU. Divide
by the model's size."""
LOADING = (5.0, 5.0)
"""Seconds that loading a model takes, and more for each billion parameters."""


def call_seconds(spec: ModelSpec, role: Role, depth: int, task: str) -> float:
    """The time of one call within a batch on a processor, in seconds.

    Args:
        spec: the model.
        role: what it is asked for.
        depth: number of calls up to and including this one; earlier replies stand in the prompt.
        task: the query's task.
    """
    written = USED * limit_for(spec, role, task)
    prompt = PROMPT + (depth - 1) * USED * spec.limits.analyze
    return token_seconds(spec, prompt, written, "cpu")


def token_seconds(spec: ModelSpec, tokens_in: float, tokens_out: float, pace: Pace) -> float:
    """The time of reading and writing so many tokens in batches, within a factor of two or so.

    Args:
        spec: the model; a scripted one takes no time.
        tokens_in: tokens of the prompts.
        tokens_out: tokens of the replies.
        pace: what runs the model.
    """
    if spec.backend == "scripted":
        return 0.0
    write, read = SPEED[pace]
    return _size(spec) * (tokens_out / write + tokens_in / read)


def loading_seconds(spec: ModelSpec) -> float:
    """The time of loading a model once; what others serve is loaded already."""
    if spec.backend in ("scripted", "openai"):
        return 0.0
    return LOADING[0] + LOADING[1] * _size(spec)


def pace_of(spec: ModelSpec) -> Pace:
    """What would run a model here; a server is taken to have a GPU."""
    if spec.backend in ("openai", "scripted"):
        return "cuda"
    # Asked first: a machine that only plans need not have OpenVINO.
    if spec.backend == "openvino" or spec.dtype == "int8" or choose_kind(spec) == "openvino":
        return "openvino"
    from hierrouter.pool.devices import choose_device

    return "cuda" if choose_device() == "cuda" else "cpu"


def _size(spec: ModelSpec) -> float:
    """Billions of parameters; where only a rate is stated, by the rate of the paper's Table 2."""
    return spec.billion_parameters or 1000 * spec.rate

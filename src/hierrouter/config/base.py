"""What every part of the configuration is made of: its kinds of value, and its mistakes."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

BENCHMARK_TASKS = ("gsm8k", "math", "mbpp", "arc_easy", "arc_challenge", "mmlu")
"""The paper's six benchmarks (section 4)."""

ALPHA_GRID = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The alphas at which routers are chosen and reported."""

MOST_ALPHA = 1_000_000
"""The greatest alpha: any saving outweighs any quality. Far beyond it scores are no numbers."""

MOST_HOPS = 4
"""The greatest L."""

NAME_PATTERN = r"^[A-Za-z0-9._-]+$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
Alpha = Annotated[float, Field(ge=0, le=MOST_ALPHA)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
MetricName = Literal["accuracy", "token_f1", "token_f1_multiset"]
View = Literal["paper", "two_part"]
AnswerKind = Literal["letter", "number", "math", "unit_tests", "text"]
Recipe = Literal["one_hop", "router_ppo_paper"]
OwnMetric = Literal["exact_match", "token_f1", "letter", "number", "math", "unit_tests"]


class KeyedError(ValueError):
    """A broken rule over several keys, to be reported at one of them."""

    def __init__(self, keys: tuple[str, ...], text: str) -> None:
        """Takes the path from the section that has the rule to the culprit, and what is wrong."""
        super().__init__(text)
        self.keys = keys


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def nearest(word: str, known: set[str]) -> str:
    """A hint at the known word that was meant, or at all of them."""
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(sorted(known))})"

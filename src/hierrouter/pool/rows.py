"""A prompt on its way to a reply, and what looks on while `generate` decodes several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(slots=True)
class Row:
    """One prompt on its way to a reply; what it has so far survives that it is set aside."""

    position: int
    prompt: list[int]
    limit: int
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Natural logarithms, one for each of `new`."""
    started: float | None = None
    """When it was first read, on `time.perf_counter`'s clock."""
    ended: float | None = None
    """When its end was told, on the same clock."""

    @property
    def tokens(self) -> list[int]:
        """Prompt and reply so far."""
        return self.prompt + self.new

    @property
    def left(self) -> int:
        """New tokens that it may still have."""
        return self.limit - len(self.new)

    @property
    def took(self) -> float:
        """Seconds from first reading it to its end."""
        return (self.ended or 0.0) - (self.started or 0.0)


class ChosenLogprobs:
    """Notes each step's log-probability of the greedy choice, one number a row.

    Keeping the scores themselves would take rows x vocabulary floats a step: 2 GB for 24 replies
    of 160 tokens.
    """

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leaves `scores` (rows x vocabulary, float32) as they are."""
        self.steps.append(scores.amax(dim=-1) - scores.logsumexp(dim=-1))
        return scores


class EnoughEnded:
    """Ends a call of `generate` when enough rows have met an end token or their own limit."""

    def __init__(self, width: int, limits: torch.Tensor, stops: torch.Tensor, enough: int) -> None:
        self._ends = limits + width
        self._stops = stops
        self._enough = enough
        self._ended = torch.zeros_like(limits, dtype=torch.bool)

    def __call__(self, tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """True for every row when it is time, else for none."""
        self._ended |= torch.isin(tokens[:, -1], self._stops) | (self._ends <= tokens.shape[1])
        return (self._ended.sum() >= self._enough).expand(len(tokens))

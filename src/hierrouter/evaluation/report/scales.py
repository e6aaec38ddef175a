"""Axes: from values to places in a picture, and where their ticks stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDE, NARROW = 640, 340
"""Widths that every picture is drawn in: for a desk and for a phone, so that its writing can be
read on both."""


@dataclass(frozen=True)
class Tick:
    """A value of an axis and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """A straight axis from `low` at `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands; one beyond an end stands at that end."""
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def axis(low: float, high: float, start: float, end: float) -> tuple[Scale, list[Tick]]:
    """A scale that begins and ends at a tick, and its ticks."""
    values = round_values(low, high)
    scale = Scale(values[0], values[-1], start, end)
    return scale, [Tick(scale(value), f"{value:g}".replace("-", "−")) for value in values]


def round_values(low: float, high: float) -> list[float]:
    """Two to eight round values that enclose [low, high]."""
    span = max(high - low, 1e-3)
    step = 10 ** np.floor(np.log10(span / 4))
    step *= next(k for k in (1, 2, 2.5, 5, 10) if span / (step * k) <= 6)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [float(f"{value * step:.6g}") for value in np.arange(first, last + 1)]

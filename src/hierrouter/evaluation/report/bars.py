"""Bars and differences as shares of a cell's width, so that they fit wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierrouter.evaluation.report.plane import kind_of
from hierrouter.evaluation.report.scales import Scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hierrouter.evaluation.statistics.intervals import Interval


@dataclass(frozen=True)
class Bar:
    """One policy in one task; lengths are percents of the cell."""

    name: str
    kind: str
    value: Interval
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One difference; places are percents of the cell."""

    name: str
    value: Interval
    mean: float
    low: float
    high: float
    zero: float
    """Where no difference stands."""


def task_bars(judged: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[Bar]]:
    """Each task's quality of some policies, from 0 to 1.

    Args:
        judged: the content of metrics.json, or a part of it with the same numbers.
        names: the policies.
    """
    scale = Scale(0.0, 1.0, 0.0, 100.0)
    found = {}
    for task in judged["policies"]["router"]["tasks"]:
        values = {name: judged["policies"][name]["tasks"][task]["quality"] for name in names}
        found[task] = [
            Bar(
                name,
                kind_of(name, corrected=False) or "oracle",
                value,
                *(scale(value[end]) for end in ("mean", "low", "high")),
            )
            for name, value in values.items()
        ]
    return found


def differences(values: Mapping[str, Interval]) -> list[Difference]:
    """Differences on one scale, which holds all intervals and zero.

    Args:
        values: by name.
    """
    ends = [abs(value[end]) for value in values.values() for end in ("mean", "low", "high")]
    most = max([*ends, 0.01])
    scale = Scale(-most, most, 2.0, 98.0)
    return [
        Difference(
            name, value, scale(value["mean"]), scale(value["low"]), scale(value["high"]), scale(0.0)
        )
        for name, value in values.items()
    ]

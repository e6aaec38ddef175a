"""Learning curves: the reward of training's rollouts, seed by seed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.report.scales import Tick, axis
from hierrouter.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LEFT, RIGHT, TOP, BOTTOM = 44, 62, 12, 42
HEIGHT = 240
MEASURE = "rollout_reward"
LINE = 13.0
"""Least distance between two names at the ends of lines."""
MOST_NAMED = 8
"""Of more lines than this only the two are named that end best and worst."""

Curve = list[tuple[float, float]]
"""Transitions seen so far, and the mean reward of the episodes among them."""


@dataclass(frozen=True)
class Line:
    """One seed's curve."""

    name: str
    points: str
    x: float
    y: float
    """Where its name stands."""
    style: int
    """How it is dashed."""
    named: bool


@dataclass(frozen=True)
class Learning:
    """All that the template draws."""

    width: int
    height: int
    lines: list[Line]
    across: list[Tick]
    up: list[Tick]


def read_curves(folders: Mapping[str, Path]) -> dict[str, Curve]:
    """The learning curves of routers; those without one are left out.

    Args:
        folders: of routers, by what they are called.
    """
    found = {}
    for name, folder in folders.items():
        try:
            entries = read_json(folder / "learning_curve.json")
            curve = [
                (float(entry["transitions"]), float(entry["metrics"][MEASURE]))
                for entry in entries
                if MEASURE in entry["metrics"]
            ]
        except (HierRouterError, OSError, KeyError, TypeError, ValueError):
            continue
        if len(curve) > 1:
            found[name] = curve
    return found


def learning(curves: Mapping[str, Curve], width: int) -> Learning | None:
    """Lays out the picture.

    Args:
        curves: by name.
        width: of the picture, in pixels.

    Returns:
        None where there is no curve.
    """
    if not curves:
        return None
    flat = [point for curve in curves.values() for point in curve]
    x, across = axis(0.0, max(at for at, _ in flat), LEFT, width - RIGHT)
    rewards = [reward for _, reward in flat]
    y, up = axis(min(rewards), max(rewards), HEIGHT - BOTTOM, TOP)
    ends = {name: y(curve[-1][1]) for name, curve in curves.items()}
    named = sorted(curves, key=lambda name: -curves[name][-1][1])
    if len(named) > MOST_NAMED:
        named = [named[0], named[-1]]
    places = _apart({name: ends[name] for name in named})
    lines = [
        Line(
            name,
            " ".join(f"{x(at)},{y(reward)}" for at, reward in curve),
            x(curve[-1][0]) + 5,
            places.get(name, ends[name]) + 4,
            number % 5,
            name in places,
        )
        for number, (name, curve) in enumerate(curves.items())
    ]
    return Learning(width, HEIGHT, lines, across, up)


def told(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """The curves in numbers: reward at the beginning, at the end and at best."""
    return [
        {
            "name": name,
            "transitions": int(curve[-1][0]),
            "first": curve[0][1],
            "last": curve[-1][1],
            "best": max(reward for _, reward in curve),
        }
        for name, curve in curves.items()
    ]


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """The heights, moved where two names would cover each other, and none below the field.

    They come from the top down.
    """
    found = dict(heights)
    for before, after in itertools.pairwise(found):
        found[after] = max(found[after], found[before] + LINE)
    for above, name in enumerate(reversed(found)):
        found[name] = min(found[name], HEIGHT - BOTTOM - above * LINE)
    return found

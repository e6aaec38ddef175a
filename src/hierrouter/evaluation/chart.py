"""Where things stand in the report's picture: quality against relative cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 480, 340
"""Of the picture, in its own units; small, so that its writing can be read on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40
"""Margins around the plotted field."""
FAR = 1.5
"""A reference dearer than this times everything else is named beside the picture, not drawn."""


@dataclass(frozen=True)
class Mark:
    """One point: a policy, or one alpha of a policy."""

    kind: str
    """`router`, `oracle`, `single`, `path`, `reference`, `random` or `best`."""
    x: float
    y: float
    title: str
    """What is shown when pointed at."""
    headline: bool = True
    """Whether it stands at the headline alpha."""


@dataclass(frozen=True)
class Label:
    """A number beside a point (or several numbers where points coincide)."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A value of an axis and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """All that the template draws."""

    marks: list[Mark]
    lines: dict[str, str]
    """The polylines of router and oracle over alpha."""
    labels: list[Label]
    legend: list[tuple[int, str, str]]
    """Number, kind and name of the labelled policies."""
    across: list[Tick]
    up: list[Tick]
    beyond: list[str]
    """Policies too dear to be drawn, in words."""


def kind_of(name: str) -> str:
    """Which sort of mark a policy gets."""
    family = name.split(":")[0]
    if family in ("router", "oracle", "single", "path", "reference", "random"):
        return family
    return "best"


def chart(metrics: dict[str, Any]) -> Chart:
    """Lays out the picture.

    Args:
        metrics: the content of metrics.json.
    """
    headline = metrics["alpha"]
    points: dict[str, list[dict[str, float]]] = {}
    for name, curve in metrics["curves"].items():
        whole = name in ("router", "oracle")
        points[name] = [at for at in curve if whole or at["alpha"] == headline]
    near = [
        at["relative_cost"]
        for name, curve in points.items()
        if kind_of(name) != "reference"
        for at in curve
    ]
    limit = FAR * max(near) if max(near) > 0 else np.inf
    beyond = [
        f"{name} (quality {curve[0]['quality']:.2f}, relative cost {curve[0]['relative_cost']:.1f})"
        for name, curve in points.items()
        if curve[0]["relative_cost"] > limit
    ]
    points = {name: curve for name, curve in points.items() if curve[0]["relative_cost"] <= limit}
    flat = [at for curve in points.values() for at in curve]
    across = _ticks(0.0, max([at["relative_cost"] for at in flat]) or 1.0)
    up = _ticks(min(at["quality"] for at in flat), max(at["quality"] for at in flat))

    def place(at: dict[str, float]) -> tuple[float, float]:
        x = (at["relative_cost"] - across[0]) / (across[-1] - across[0])
        y = (at["quality"] - up[0]) / (up[-1] - up[0])
        return (
            round(LEFT + x * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM), 1),
        )

    marks: list[Mark] = []
    legend: list[tuple[int, str, str]] = []
    numbers: dict[tuple[float, float], list[int]] = {}
    # Paths first: what matters more is drawn over what matters less.
    order = ("path", "reference", "random", "single", "best", "oracle", "router")
    for name in sorted(points, key=lambda name: order.index(kind_of(name))):
        kind = kind_of(name)
        for at in points[name]:
            title = f"{name}: quality {at['quality']:.3f}, relative cost {at['relative_cost']:.3f}"
            if kind in ("router", "oracle"):
                title += f", alpha {at['alpha']:g}"
            marks.append(Mark(kind, *place(at), title, at["alpha"] == headline))
    for name in points:
        kind = kind_of(name)
        if kind not in ("path", "router", "oracle"):
            legend.append((len(legend) + 1, kind, name))
            numbers.setdefault(place(points[name][0]), []).append(len(legend))
    return Chart(
        marks=marks,
        lines={
            name: " ".join("{},{}".format(*place(at)) for at in points[name])
            for name in ("oracle", "router")
            if name in points
        },
        labels=_labels(numbers, [(mark.x, mark.y) for mark in marks if mark.kind != "path"]),
        legend=legend,
        across=[Tick(place({"relative_cost": v, "quality": up[0]})[0], f"{v:g}") for v in across],
        up=[Tick(place({"relative_cost": 0, "quality": v})[1], f"{v:g}") for v in up],
        beyond=beyond,
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that enclose [low, high]."""
    span = max(high - low, 1e-3)
    step = 10 ** np.floor(np.log10(span / 4))
    step *= next(k for k in (1, 2, 2.5, 5, 10) if span / (step * k) <= 6)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [float(f"{value * step:.6g}") for value in np.arange(first, last + 1)]


def _labels(
    numbers: dict[tuple[float, float], list[int]], marks: list[tuple[float, float]]
) -> list[Label]:
    """Puts each number where it covers neither a mark nor another number, if there is room."""
    taken = list(marks)
    found = []
    for (x, y), which in numbers.items():
        text = ", ".join(map(str, which))
        half = 3.5 * len(text)
        spots = [(side * (half + 8), rise) for rise in (4, -8, 16) for side in (1, -1)]
        spots += [(0, -9), (0, 19), (half + 20, 4), (-half - 20, 4), (0, -22), (0, 32)]

        def crowded(
            spot: tuple[float, float], x: float = x, y: float = y, half: float = half
        ) -> tuple[bool, int]:
            at_x, at_y = x + spot[0], y + spot[1] - 4
            inside = at_x - half > LEFT and at_x + half < WIDTH and TOP < at_y < HEIGHT - BOTTOM
            hits = sum(abs(at_x - a) < half + 6 and abs(at_y - b) < 9 for a, b in taken)
            return not inside, hits

        best = min(spots, key=crowded)
        found.append(Label(round(x + best[0], 1), round(y + best[1], 1), text))
        taken.append((x + best[0], y + best[1] - 4))
    return found

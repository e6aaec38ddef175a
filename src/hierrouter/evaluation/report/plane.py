"""The trade-off plane: quality against relative cost, laid out for a template to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hierrouter.evaluation.report.scales import Scale, Tick, axis
from hierrouter.evaluation.report.shapes import shape
from hierrouter.evaluation.tradeoff.hull import hull

LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 42
"""Margins around the plotted field."""
FAR = 1.3
"""What is dearer than this times the dearest of `CORE` is named beside the picture, not drawn."""
CURVES = ("oracle", "ridge", "knn", "one_hop", "router")
"""Kinds that are drawn at every alpha, in this order: what matters more lies above."""
CORE = (*CURVES, "single", "best")
"""Kinds that the picture is as wide as."""
UNNAMED = ("path", "cascade")
"""Kinds with many members, which get no number."""
MOST_SINGLES = 15
"""Of more single models than this only those get a number that a mix at random is made of."""
ORDER = ("path", "cascade", "random", "reference", "recipe", "single", "best", *CURVES)


Point = dict[str, float]
"""What a policy got at one alpha: `alpha`, `relative_cost`, `quality`."""


@dataclass(frozen=True)
class Mark:
    """One point: a policy, or one alpha of a policy."""

    kind: str
    x: float
    y: float
    title: str
    """What is shown when pointed at."""
    headline: bool = True
    """Whether it stands at the headline alpha."""

    @property
    def shape(self) -> str:
        """Its outline."""
        return shape(self.kind, self.x, self.y, 1.0 if self.headline else 0.6)


@dataclass(frozen=True)
class Label:
    """A number beside a point (or several numbers where points coincide)."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Named:
    """A line of the legend."""

    number: int
    kind: str
    name: str


@dataclass(frozen=True)
class Plane:
    """All that the template draws."""

    width: int
    height: int
    marks: list[Mark]
    lines: dict[str, str]
    """By kind: points of a polyline; `zero_router` and `fixed_paths` are hulls."""
    whiskers: list[tuple[float, float, float, float]]
    """The router's intervals at the headline, as lines."""
    labels: list[Label]
    legend: list[Named]
    across: list[Tick]
    up: list[Tick]
    beyond: list[str]
    """Policies too dear to be drawn, in words."""
    unnamed: frozenset[str]
    """Kinds of which some are drawn without a number."""


def kind_of(name: str, corrected: bool) -> str | None:
    """Which sort of mark a policy gets; none: it is not drawn.

    Args:
        name: of the policy.
        corrected: whether there is an oracle without luck, which is then drawn instead.
    """
    family = name.split(":")[0]
    if family in ("oracle", "oracle_corrected"):
        return "oracle" if (family == "oracle_corrected") == corrected else None
    if family in ORDER:
        return family
    return "recipe" if family == "router_ppo_paper" else "best"


def plane(judged: dict[str, Any], width: int) -> Plane:
    """Lays out the picture.

    Args:
        judged: the content of metrics.json, or a part of it with the same numbers.
        width: of the picture, in pixels.
    """
    height = round(width * (0.66 if width > 400 else 0.95))
    kinds = _kinds(judged)
    points, far = _points(judged, kinds)
    hulls = _hulls(judged)
    flat = [at for curve in points.values() for at in curve]
    x, across = axis(0.0, max(at["relative_cost"] for at in flat) or 1.0, LEFT, width - RIGHT)
    qualities = [at["quality"] for at in flat] + [up for hull in hulls.values() for _, up in hull]
    y, up = axis(min(qualities), max(qualities), height - BOTTOM, TOP)
    marks = _marks(judged, points, kinds, x, y)
    unnamed = _unnamed(points, kinds)
    legend = [
        Named(number, kinds[name], name)
        for number, name in enumerate(
            sorted((name for name in points if name not in unnamed), key=_router_first), 1
        )
    ]
    numbers: dict[tuple[float, float], list[int]] = {}
    for each in legend:
        at = _headline(points[each.name], judged["alpha"])
        numbers.setdefault((x(at["relative_cost"]), y(at["quality"])), []).append(each.number)
    taken = [(mark.x, mark.y) for mark in marks if mark.kind not in UNNAMED]
    lines = {name: _within(hull, x.high) for name, hull in hulls.items()}
    for name in sorted(points, key=lambda name: ORDER.index(kinds[name])):
        if kinds[name] in CURVES:
            lines[kinds[name]] = [(at["relative_cost"], at["quality"]) for at in points[name]]
    return Plane(
        width=width,
        height=height,
        marks=marks,
        lines={
            name: " ".join(f"{x(cost)},{y(quality)}" for cost, quality in line)
            for name, line in lines.items()
        },
        whiskers=_whiskers(judged["policies"]["router"], x, y),
        labels=_labels(numbers, taken, width, height),
        legend=legend,
        across=across,
        up=up,
        beyond=_beyond(far, judged),
        unnamed=frozenset(kinds[name] for name in unnamed),
    )


def _kinds(judged: dict[str, Any]) -> dict[str, str]:
    """The sort of mark of every policy that is drawn."""
    corrected = "oracle_corrected" in judged["policies"]
    named = {name: kind_of(name, corrected) for name in judged["curves"]}
    return {name: kind for name, kind in named.items() if kind is not None}


def _points(
    judged: dict[str, Any], kinds: dict[str, str]
) -> tuple[dict[str, list[Point]], list[str]]:
    """Where each policy stands, and the names of those too dear to be drawn."""
    points = {
        name: judged["curves"][name]
        if kind in CURVES
        else [_headline(judged["curves"][name], judged["alpha"])]
        for name, kind in kinds.items()
    }
    dearest = max(
        at["relative_cost"] for name in points if kinds[name] in CORE for at in points[name]
    )
    limit = FAR * dearest if dearest > 0 else np.inf
    far = [name for name, curve in points.items() if curve[0]["relative_cost"] > limit]
    return {name: curve for name, curve in points.items() if name not in far}, far


def _headline(curve: list[Point], alpha: float) -> Point:
    return next((at for at in curve if at["alpha"] == alpha), curve[0])


def _unnamed(points: dict[str, list[Point]], kinds: dict[str, str]) -> set[str]:
    """Whose marks get no number, so that the others' can be read."""
    found = {name for name in points if kinds[name] in UNNAMED}
    singles = [name for name in points if kinds[name] == "single"]
    if len(singles) > MOST_SINGLES:
        at = [points[name][0] for name in singles]
        mixed = hull([each["relative_cost"] for each in at], [each["quality"] for each in at])
        found |= {*singles} - {singles[vertex] for vertex in mixed.points}
    return found


def _router_first(name: str) -> bool:
    return name != "router"


def _marks(
    judged: dict[str, Any],
    points: dict[str, list[Point]],
    kinds: dict[str, str],
    x: Scale,
    y: Scale,
) -> list[Mark]:
    marks = []
    for name in sorted(points, key=lambda name: ORDER.index(kinds[name])):
        for at in points[name]:
            words = f"{name}: quality {at['quality']:.3f}, relative cost {at['relative_cost']:.3f}"
            if kinds[name] in CURVES:
                words += f", alpha {at['alpha']:g}"
            here = at["alpha"] == judged["alpha"] or kinds[name] not in CURVES
            marks.append(Mark(kinds[name], x(at["relative_cost"]), y(at["quality"]), words, here))
    return marks


def _hulls(judged: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """The hull of the single models, and that of all fixed routes where it is another."""
    hulls = judged["tradeoff"]["hulls"]
    found = {
        name: list(zip(hulls[name]["relative_cost"], hulls[name]["quality"], strict=True))
        for name in ("zero_router", "fixed_paths")
        if name in hulls
    }
    if found.get("fixed_paths") == found["zero_router"]:
        del found["fixed_paths"]
    return found


def _within(line: list[tuple[float, float]], limit: float) -> list[tuple[float, float]]:
    """A line up to where it leaves the picture."""
    inside = [point for point in line if point[0] <= limit]
    if inside and len(inside) < len(line):
        end = np.interp(limit, [cost for cost, _ in line], [quality for _, quality in line])
        inside.append((limit, float(end)))
    return inside


def _whiskers(
    router: dict[str, Any], x: Scale, y: Scale
) -> list[tuple[float, float, float, float]]:
    cost, quality = router["relative_cost"], router["quality"]
    at = (x(cost["mean"]), y(quality["mean"]))
    return [
        (x(cost["low"]), at[1], x(cost["high"]), at[1]),
        (at[0], y(quality["low"]), at[0], y(quality["high"])),
    ]


def _beyond(far: list[str], judged: dict[str, Any]) -> list[str]:
    """What is not drawn: the named ones by name, the others by how many they are."""
    told = []
    for name in far:
        if not name.startswith(UNNAMED):
            entry = judged["policies"][name]
            quality, cost = entry["quality"]["mean"], entry["relative_cost"]["mean"]
            told.append(f"{name} (quality {quality:.2f}, relative cost {cost:.1f})")
    if others := sum(name.startswith(UNNAMED) for name in far):
        told.append(f"{others} paths or cascades")
    return told


def _labels(
    numbers: dict[tuple[float, float], list[int]],
    marks: list[tuple[float, float]],
    width: int,
    height: int,
) -> list[Label]:
    """Puts each number where it covers neither a mark nor another number, if there is room."""
    taken = [(x, y, 7.0) for x, y in marks]
    found = []
    for (x, y), which in numbers.items():
        text = ", ".join(map(str, which))
        half = 3.5 * len(text)
        spots = [(side * (half + 9), rise) for rise in (4, -9, 17) for side in (1, -1)]
        spots += [(0, -10), (0, 20), (half + 21, 4), (-half - 21, 4), (0, -23), (0, 33)]

        def crowded(
            spot: tuple[float, float], x: float = x, y: float = y, half: float = half
        ) -> tuple[bool, int]:
            at_x, at_y = x + spot[0], y + spot[1] - 4
            inside = at_x - half > LEFT and at_x + half < width and TOP < at_y < height - BOTTOM
            hits = sum(abs(at_x - a) < half + reach and abs(at_y - b) < 10 for a, b, reach in taken)
            return not inside, hits

        best = min(spots, key=crowded)
        found.append(Label(round(x + best[0], 1), round(y + best[1], 1), text))
        taken.append((x + best[0], y + best[1] - 4, max(half, 7.0)))
    return found

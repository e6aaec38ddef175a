"""Routes as a Sankey diagram: from each task to the first call, and on to the last."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierrouter.evaluation.report.words import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BAND, GAP, TOP, NODE = 22.0, 20.0, 26.0, 9.0
"""Height of a task (its queries are all as high together), room for a name above it, room for the
headings, and how thick nodes are."""
SLOT = 34.0
"""Least height of a call's node with its two lines of writing."""
LETTER = 6.4
"""About as wide as a letter."""
ENDS = {":": "analyses", "!": "is checked", "": "answers"}
"""What a call does, by what follows its name in a route."""
HEADINGS = ("task", "first call", "second call", "third call")

Place = tuple[int, str, str]
"""Column, name, and what is done there."""


@dataclass(frozen=True)
class Node:
    """A task, or a model in one place of the routes."""

    x: float
    y: float
    height: float
    lines: tuple[str, ...]
    """What is written beside it."""
    title: str
    style: int
    """Number of its colour; 0: of a task."""


@dataclass(frozen=True)
class Link:
    """A share of a task's queries, on its way from one column to the next."""

    shape: str
    title: str
    style: int


@dataclass(frozen=True)
class Sankey:
    """All that the template draws."""

    width: int
    height: float
    nodes: list[Node]
    links: list[Link]
    headings: list[tuple[float, str]]


def steps(route: str) -> list[tuple[str, str]]:
    """The calls of a route: the model, and what it is called for.

    Args:
        route: such as `A`, `A:B` or `A!B`; in `A!B=A` A's answer is the one that is returned.
    """
    calls, _, returned = route.partition("=")
    found = [(name, ENDS[after]) for name, after in re.findall(r"([^:!]+)([:!]?)", calls)]
    if not returned:
        return found
    return [
        (name, does if does == ENDS[":"] else ENDS["" if name == returned else "!"])
        for name, does in found
    ]


def sankey(routes: Mapping[str, Mapping[str, float]], models: Sequence[str], width: int) -> Sankey:
    """Lays out the picture. Every task is as high as any other: widths are shares of its queries.

    Args:
        routes: by task: the share of its queries that takes each route.
        models: of the pool, which gives their order and colours.
        width: of the picture, in pixels.
    """
    rank = {name: position for position, name in enumerate(models)}
    flows = [
        (task, share, [(0, task, ""), *((k + 1, *step) for k, step in enumerate(steps(route)))])
        for task, shares in routes.items()
        for route, share in sorted(shares.items(), key=lambda item: _order(item[0], rank))
    ]
    weight: dict[Place, float] = {}
    for _, share, places in flows:
        for place in places:
            weight[place] = weight.get(place, 0.0) + share
    columns = 1 + max(place[0] for place in weight)
    x = _columns(columns, width)
    top = _stack(weight, columns, rank, len(routes))
    height = max(top[place] + max(weight[place] * BAND, _slot(place)) for place in weight) + 4
    used_in, used_out = dict.fromkeys(weight, 0.0), dict.fromkeys(weight, 0.0)
    links = []
    for task, share, places in flows:
        for here, there in itertools.pairwise(places):
            a = top[here] + used_out[here]
            b = top[there] + used_in[there]
            used_out[here] += share * BAND
            used_in[there] += share * BAND
            shape = _ribbon(x[here[0]] + NODE, a, x[there[0]], b, share * BAND)
            words = f"{task}: {percent(share)} " + " → ".join(f"{n} {d}" for _, n, d in places[1:])
            links.append(Link(shape, words, _style(places[1], rank)))
    room = [
        int((after - here - NODE - 8) / LETTER) for here, after in itertools.pairwise([*x, width])
    ]
    nodes = []
    for place, total in weight.items():
        column, name, does = place
        said = percent(total / len(routes))
        lines = (name,) if column == 0 else (name, f"{does} {said}")
        nodes.append(
            Node(
                x[column],
                round(top[place], 1),
                round(max(total * BAND, 1.0), 1),
                tuple(shortened(line, room[column]) for line in lines),
                name if column == 0 else f"{name} {does}: {said} of all",
                0 if column == 0 else _style(place, rank),
            )
        )
    headings = [(x[k], HEADINGS[k] if k < len(HEADINGS) else f"call {k}") for k in range(columns)]
    return Sankey(width, round(height, 1), nodes, links, headings)


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters, without its middle where it is longer."""
    if len(text) <= most:
        return text
    kept = max(most - 1, 2)
    return f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def _order(route: str, rank: Mapping[str, int]) -> tuple[tuple[int, str], ...]:
    return tuple((rank.get(name, 99), does) for name, does in steps(route))


def _style(place: Place, rank: Mapping[str, int]) -> int:
    return 1 + rank.get(place[1], 0) % 6


def _slot(place: Place) -> float:
    return SLOT if place[0] else 0.0


def _columns(count: int, width: int) -> list[float]:
    """Where columns begin; the last leaves room for what is written beside it."""
    last = width - (0.36 if count > 2 else 0.42) * width
    return [round(last * k / (count - 1), 1) for k in range(count)]


def _stack(
    weight: Mapping[Place, float], columns: int, rank: Mapping[str, int], tasks: int
) -> dict[Place, float]:
    """The upper ends of all nodes: tasks in their order, models in that of the pool."""
    whole = tasks * (BAND + GAP)
    found: dict[Place, float] = {}
    for column in range(columns):
        here = [place for place in weight if place[0] == column]
        if column:
            here.sort(key=lambda place: (rank.get(place[1], 99), place[2]))
        heights = [max(weight[place] * BAND, _slot(place)) for place in here]
        gap = GAP if column == 0 else 8.0
        at = TOP + GAP
        if column:  # in the middle of what it comes from
            at += max(0.0, (whole - GAP - sum(heights) - gap * (len(here) - 1)) / 2)
        for place, height in zip(here, heights, strict=True):
            found[place] = at
            at += height + gap
    return found


def _ribbon(x0: float, y0: float, x1: float, y1: float, height: float) -> str:
    """A band between two heights that begins and ends level."""
    middle = (x0 + x1) / 2
    return (
        f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        f"v{height:.1f}C{middle:.1f} {y1 + height:.1f} {middle:.1f} {y0 + height:.1f} "
        f"{x0:.1f} {y0 + height:.1f}z"
    )

"""Quality against cost as a curve: the non-decreasing convex hull of points, and the area under it.

As in RouterBench (Hu et al., 2024). Two policies can be mixed: each query goes to one of them by
the throw of a coin, which gives any point on the line between theirs. So what a set of policies can
reach is the upper hull of their points; that it does not fall is because nobody must spend more.
The hull of the single models is RouterBench's zero router: what mixing at random gets, without
looking at the query. A router is worth something where its hull lies above that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Hull:
    """The non-decreasing upper hull of points, cheapest first.

    Costs and qualities both rise from vertex to vertex, by less quality for each cost unit.
    """

    cost: NDArray[np.float64]
    """V costs, relative or in dollars."""
    quality: NDArray[np.float64]
    """V qualities."""
    points: NDArray[np.int64]
    """V indices: which of the given points each vertex is."""

    def at(self, cost: ArrayLike) -> NDArray[np.float64]:
        """The quality that a mix of the points reaches at each cost.

        Between vertices a line. Beyond the dearest vertex flat: what is left is not spent. Below
        the cheapest a line to 0 at no cost, which is to answer only a share of the queries; below a
        cheapest vertex that is free, its quality.
        """
        at = np.asarray(cost, dtype=np.float64)
        inside = np.interp(at, self.cost, self.quality)
        first = self.cost[0]
        if first <= 0:
            return np.asarray(inside)
        return np.asarray(np.where(at < first, self.quality[0] * at / first, inside))

    def cost_of(self, quality: float) -> float | None:
        """The least cost at which a mix reaches a quality; none where no mix reaches it.

        Never less than the cost of the cheapest vertex: every query is to be answered.
        """
        if quality > self.quality[-1]:
            return None
        return float(np.interp(quality, self.quality, self.cost))


def hull(cost: ArrayLike, quality: ArrayLike) -> Hull:
    """The non-decreasing convex hull of P points (Andrew's monotone chain, 1979).

    It begins at the cheapest point (of equally cheap ones the best) and ends at the best (of
    equally good ones the cheapest). A point that is as dear and no better than another, that lies
    below the line between two others, or on it, is no vertex; of equal points the first is.

    Args:
        cost: P costs, at least 0.
        quality: P qualities.

    Raises:
        ValueError: no points, other numbers of costs and qualities, a negative cost, or a value
            that is not finite.
    """
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"a hull needs as many costs as qualities, not {x.shape} and {y.shape}")
    if not (np.isfinite(x) & np.isfinite(y) & (x >= 0)).all():
        raise ValueError("costs and qualities of a hull are finite, and costs not negative")
    kept: list[int] = []
    for point in np.lexsort((-y, x)):  # by cost, then best first; stable
        if kept and y[point] <= y[kept[-1]]:
            continue  # no better for as much or more
        if kept and x[point] == x[kept[-1]]:
            continue
        while len(kept) > 1 and _below(x, y, kept[-2], kept[-1], point):
            kept.pop()
        kept.append(int(point))
    chosen = np.array(kept, dtype=np.int64)
    return Hull(x[chosen], y[chosen], chosen)


def _below(
    x: NDArray[np.float64], y: NDArray[np.float64], left: int, middle: int, right: int
) -> bool:
    """Whether the middle point lies on the line between the others, or below it."""
    rise = (y[middle] - y[left]) * (x[right] - x[left])
    return bool(rise <= (y[right] - y[left]) * (x[middle] - x[left]))


def weights(cost: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """What share each of P points has in the area under the line through them: AIQ without luck.

    A hull drops the points that came out badly, and so takes the lucky: its area is too high, and
    that of resamples higher still. Here all points given are kept, joined in the order of their
    cost, so that the area is a weighted mean of their qualities, with weights that no quality has a
    part in. Which points are given must have been chosen on other queries.

    Args:
        cost: P costs, at least 0. Points of the same cost are mixed evenly.
        low: the least cost of the range.
        high: the greatest.

    Returns:
        P weights; AIQ is their product with the P qualities. They sum to 1, or to less where the
        range begins below the cheapest point (see `Hull.at`).
    """
    near = np.round(np.asarray(cost, dtype=np.float64), 12)
    at, place, count = np.unique(near, return_inverse=True, return_counts=True)
    every = np.arange(len(at))
    one = np.eye(len(at), dtype=np.float64)
    shares = [
        aiq(Hull(np.asarray(at, np.float64), one[point], every), low, high) for point in every
    ]
    return np.asarray((np.array(shares) / count)[place])


def aiq(curve: Hull, low: float, high: float) -> float:
    """Average improvement in quality: the area under the hull over a range of cost, divided by it.

    AIQ = integral from low to high of `curve.at(c)` dc / (high - low), exactly; where the range has
    no width, `curve.at(low)`. Curves are comparable over the same range only. In the range's part
    below a curve's cheapest point and beyond its dearest, `Hull.at` says what counts.

    Args:
        curve: a hull.
        low: the least cost, at least 0.
        high: the greatest cost, at least `low`.

    Raises:
        ValueError: not 0 <= low <= high.
    """
    if not 0 <= low <= high:
        raise ValueError(f"the range of cost goes from {low} to {high}")
    if low == high:
        return float(curve.at(low))
    inside = curve.cost[(curve.cost > low) & (curve.cost < high)]
    at = np.concatenate([[low], inside, [high]])
    quality = curve.at(at)
    return float(np.sum((quality[1:] + quality[:-1]) / 2 * np.diff(at)) / (high - low))

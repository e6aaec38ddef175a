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


def cost_range(*costs: ArrayLike) -> tuple[float, float]:
    """The range over which curves are compared: from their cheapest point to their dearest.

    Args:
        costs: of the points of every curve that is compared, so that all have the same range.
    """
    every = np.concatenate([np.asarray(each, dtype=np.float64).ravel() for each in costs])
    return float(every.min()), float(every.max())


def aiq(curve: Hull, low: float, high: float) -> float:
    """Average improvement in quality: the area under the hull over a range of cost, divided by it.

    AIQ = integral from low to high of `curve.at(c)` dc / (high - low), exactly; where the range has
    no width, `curve.at(low)`. Curves are comparable over the same range only (`cost_range` of all
    of them). In the range's part below a curve's cheapest point and beyond its dearest, `Hull.at`
    says what counts.

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


def resampled_aiq(
    cost: NDArray[np.float64], quality: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """AIQ of the hull of every resample, for its interval, or for that of a difference.

    The hull of resampled points is chosen among them anew each time, so with many points of about
    the same quality the mean over resamples lies above what was measured: the hull takes the lucky.

    Args:
        cost: B x P mean costs; row b is one resample.
        quality: B x P mean qualities of the same policies in the same resamples.
        low: the least cost of the range, the same for all resamples.
        high: the greatest cost.

    Returns:
        B values. Two curves' rows of the same resamples may be subtracted.
    """
    # The wide tails of few seeds can take a mean cost under 0.
    rows = zip(np.maximum(cost, 0.0), quality, strict=True)
    return np.array([aiq(hull(x, y), low, high) for x, y in rows])

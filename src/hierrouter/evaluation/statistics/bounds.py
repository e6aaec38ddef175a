"""One-sided bounds of a mean difference that hold where a query is rarely, but then badly, lost.

A cheaper router typically saves a little on most queries and loses a few outright. Where none of
the few is among the test queries, their bootstrap knows of no loss at all, and its bound is too
good. Here the values get company: the worst one that there could be, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.evaluation.statistics.intervals import Means

EDGE = 1e-6
"""How near to the worst value a bound is sought, as a share of the range."""


def least_mean(values: NDArray[np.float64], worst: float, confidence: float) -> float:
    """A lower bound of the mean of which N values are a sample.

    The bound of Learned-Miller and Thomas (2019): the values and `worst` get weights that are
    uniform over all that add up to 1 (those of the Bayesian bootstrap), and the bound is the
    quantile of the weighted mean. Of values that are one of two, the lower being the worst, it is
    the exact binomial bound (Clopper and Pearson, 1934).

    Such weights are exponentials divided by their sum, so the weighted mean is below a number where
    a sum of multiples of exponentials is below 0. That chance is computed, not drawn (the
    saddlepoint formula of Lugannani and Rice, 1980), for a bound may be of any confidence.

    Args:
        values: N, at least one; each as probable as any other to be drawn.
        worst: the least that a value could be; at most the least of `values`.
        confidence: of the bound, over .5.
    """
    points = np.append(values, worst)
    span = float(points.max()) - worst
    if span <= 0:
        return float(worst)

    def excess(bound: float) -> float:
        return _chance_below_zero(points - bound) - (1 - confidence)

    nearest, farthest = worst + EDGE * span, worst + (1 - EDGE) * span
    if excess(nearest) >= 0:
        return float(worst)
    return float(brentq(excess, nearest, farthest, xtol=1e-12 * span))


def _chance_below_zero(factors: NDArray[np.float64]) -> float:
    """The chance that sum_i factors_i E_i < 0, E_i independent standard exponentials.

    Some factors are below 0 and some above.
    """
    # The cumulant generating function, -sum log(1 - t factors), lives between these.
    low, high = (1 - 1e-12) / factors.min(), (1 - 1e-12) / factors.max()
    at = brentq(lambda t: (factors / (1 - t * factors)).sum(), low, high, xtol=1e-14 * (high - low))
    root = np.sign(at) * np.sqrt(max(2 * np.log1p(-at * factors).sum(), 0.0))
    if abs(root) < 1e-4:
        return 0.5  # the formula is 0 / 0 here, and no bound is sought here
    scaled = at * np.sqrt(((factors / (1 - at * factors)) ** 2).sum())
    return float(norm.cdf(root) + norm.pdf(root) * (1 / root - 1 / scaled))


def guarded(
    means: Means,
    queries: int,
    worst: NDArray[np.float64],
    best: NDArray[np.float64],
    confidence: float,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bounds of K means, of resamples over seeds and queries.

    As in `least_mean` one more query has the worst value (for the upper bound: the best). It has
    the weight w, which is that of one of N + 1: each resampled mean m becomes
    (1 - w) m + w worst, w drawn anew from the beta distribution (1, N).

    Args:
        means: K, and B x K resampled ones.
        queries: N, which they are means over.
        worst: K values, the least that a query could have.
        best: K values, the most.
        confidence: of each bound.
        seed: of the weights.

    Returns:
        K lower bounds and K upper bounds.
    """
    draws = np.random.default_rng([seed, queries]).beta(1, queries, (len(means.resampled), 1))
    lower = np.quantile((1 - draws) * means.resampled + draws * worst, 1 - confidence, axis=0)
    upper = np.quantile((1 - draws) * means.resampled + draws * best, confidence, axis=0)
    return np.asarray(lower), np.asarray(upper)


def extremes(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The worst and the best that a query could give.

    In quality an answer that is right for one and wrong for the other, in cost the furthest that
    was seen on any query, in reward both at once.

    Args:
        values: S x N x 3K differences: of quality, relative cost and reward, K times.

    Returns:
        3K values each.
    """
    quality, cost, reward = (values[:, :, start::3] for start in range(3))
    dearer = quality - reward
    worst, best = np.empty((2, values.shape[2]))
    worst[0::3], best[0::3] = -1.0, 1.0
    worst[1::3], best[1::3] = _least(cost), -_least(-cost)
    worst[2::3], best[2::3] = -1.0 + _least(-dearer), 1.0 - _least(dearer)
    return worst, best


def _least(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least of each of K columns, at most 0, by S x N x K values."""
    return np.asarray(np.minimum(values.min(axis=(0, 1)), 0.0))

"""What a router does, beside how well it does: spread, agreement, calibration, regret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BINS = 10
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Usage:
    """How the queries spread over R routes."""

    entropy: float
    """Of the shares, divided by log R: 0 one route, 1 all alike; 0 where R is 1."""
    top_share: float
    """Of the most used route; 1 is a collapsed router."""
    effective: float
    """exp of the entropy: as many routes used alike would have the same (Hill, 1973)."""
    used: int
    """Routes taken at least once."""


@dataclass(frozen=True)
class Agreement:
    """Whether S trained routers take the same routes."""

    share: float | None
    """Mean over pairs of seeds: share of queries on which both take the same; none with one seed.
    """
    kappa: float | None
    """The same corrected for chance (Fleiss, 1971): 1 always the same, 0 as much as routers that
    draw from the same shares without looking; none with one seed, or where all take one route."""


@dataclass(frozen=True)
class Calibration:
    """Whether predictions mean what they say."""

    error: float
    """Expected calibration error: mean over queries of |mean realised - mean predicted| of the
    query's bin."""
    slope: float | None
    """Of realised on predicted (least squares): 1 is right, under 1 too sure of differences, 0
    knows nothing; none where all predictions are the same."""
    intercept: float | None
    """Of the same line, at a prediction of 0."""
    bins: tuple[tuple[int, float, float], ...]
    """Of each bin: queries, mean predicted, mean realised; from the lowest prediction."""


@dataclass(frozen=True)
class Regret:
    """Reward that the oracle gets beyond the router, per query."""

    mean: float
    none: float
    """Share of queries without regret."""
    quantiles: dict[float, float]
    """By quantile."""


def usage(shares: NDArray[np.float64], possible: int | None = None) -> Usage:
    """Entropy and collapse from the shares of routes.

    Args:
        shares: R shares, or counts, of all routes that could be taken.
        possible: how many could be, where that is more than R; none: R.

    Raises:
        ValueError: negative, or all 0.
    """
    values = np.asarray(shares, dtype=np.float64)
    if not len(values) or (values < 0).any() or values.sum() <= 0:
        raise ValueError("shares of routes are not negative and not all 0")
    values = values / values.sum()
    taken = values[values > 0]
    entropy = float(-(taken * np.log(taken)).sum()) + 0.0
    routes = len(values) if possible is None else possible
    scaled = entropy / np.log(routes) if routes > 1 else 0.0
    return Usage(float(scaled), float(values.max()), float(np.exp(entropy)), len(taken))


def agreement(taken: NDArray[np.int64], routes: int) -> Agreement:
    """How alike S seeds route, in share and corrected for chance.

    With n_ir of S seeds taking route r for query i: P_i = sum_r n_ir (n_ir - 1) / (S (S - 1)),
    share = mean of P_i, chance = sum_r (share of all choices that are r)^2,
    kappa = (share - chance) / (1 - chance).

    Args:
        taken: S x N columns of routes.
        routes: R.
    """
    seeds, queries = taken.shape
    if seeds < 2:
        return Agreement(None, None)
    cells = (np.arange(queries) * routes + taken).ravel()
    counts = np.bincount(cells, minlength=queries * routes).reshape(queries, routes)
    share = float((counts * (counts - 1)).sum() / (queries * seeds * (seeds - 1)))
    chance = float(((counts.sum(axis=0) / (queries * seeds)) ** 2).sum())
    if chance >= 1 - 1e-12:
        return Agreement(share, None)
    return Agreement(share, (share - chance) / (1 - chance))


def calibration(
    predicted: NDArray[np.float64], realised: NDArray[np.float64], bins: int = BINS
) -> Calibration:
    """Predicted against realised rewards or qualities of what was taken.

    Bins hold equally many queries (by up to one), in the order of the prediction (Nixon et al.,
    2019; the error of Naeini, Cooper and Hauskrecht, 2015). Queries with the same prediction get
    the mean of what was realised among them, so that the order in which they come does not matter.
    With few queries a bin the error is above 0 by chance alone.

    Args:
        predicted: N.
        realised: N, in the same units.
        bins: how many; fewer where there are fewer queries.

    Raises:
        ValueError: no queries, or not as many predictions.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(realised, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"calibration needs as many predictions as outcomes: {x.shape}, {y.shape}")
    _, tied = np.unique(x, return_inverse=True)
    smooth = (np.bincount(tied, y) / np.bincount(tied))[tied]
    order = np.argsort(x, kind="stable")
    found = [
        (len(part), float(x[part].mean()), float(smooth[part].mean()))
        for part in np.array_split(order, min(bins, len(x)))
    ]
    error = sum(count * abs(got - said) for count, said, got in found) / len(x)
    spread = x - x.mean()
    if (spread**2).sum() <= 1e-24 * len(x):
        return Calibration(float(error), None, None, tuple(found))
    slope = float((spread * y).sum() / (spread**2).sum())
    return Calibration(float(error), slope, float(y.mean() - slope * x.mean()), tuple(found))


def regret(
    reward: NDArray[np.float64],
    best: NDArray[np.float64],
    quantiles: Sequence[float] = QUANTILES,
) -> Regret:
    """What the oracle gets beyond the router, query by query.

    The oracle's luck is in it (`luck.py`): even the best router has some regret.

    Args:
        reward: N rewards of the router.
        best: N rewards of the oracle at the same alpha.
        quantiles: to be given.
    """
    missed = np.asarray(best, dtype=np.float64) - reward
    return Regret(
        float(missed.mean()),
        float((missed <= 1e-12).mean()),
        {float(q): float(np.quantile(missed, q)) for q in quantiles},
    )

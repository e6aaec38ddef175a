"""Intervals of means over training seeds and test queries, both of which are chance.

A bootstrap over queries alone says how sure one trained router's numbers are, not how sure those of
the recipe are that trained it: another seed gives another router. Here both are drawn with
replacement, crossed: a resample draws queries (as `intervals.Bootstrap` does, the same for every
policy) and seeds. Three things would make plain crossed draws wrong, and are put right:

- Few seeds: drawing S of S has only (S - 1) / S of their variance, and the spread of five values
  is itself uncertain. The seeds' part is scaled by sqrt(S / (S - 1)) and divided by the root of a
  chi-square over its S - 1 degrees of freedom, as in Student's t (1908).
- Queries: the same factor within each stratum, sqrt(n / (n - 1)).
- What seeds and queries do together (seeds that differ query by query) is part of both spreads
  already, and drawing both counts it three times (Owen, The pigeonhole bootstrap, 2007). It is
  estimated (two-way analysis of variance, as in Searle, Casella and McCulloch, Variance
  Components, 1992) and taken out of the seeds' part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.statistics.intervals import Means
from hierrouter.files import sha256_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.evaluation.statistics.intervals import Bootstrap


CROSS_FITTED = 1.2
"""How much wider the queries' part is where each query is judged by what other folds made: these
are judged, too, by what it had a part in. Measured (`benchmarks/cross_fitted_coverage.py`)."""


@dataclass(frozen=True)
class Parts:
    """Where the variance of K means over S seeds and N queries comes from.

    Each is an estimate of a variance of the mean, in squared units of the values. `seeds` and
    `queries` both hold `both`.
    """

    seeds: NDArray[np.float64]
    """K: the variance of the S means over queries, divided by S; 0 with a single seed."""
    queries: NDArray[np.float64]
    """K: the variance of the means over seeds within each stratum, divided by its queries."""
    both: NDArray[np.float64]
    """K: the variance of what neither seed nor query explains, divided by S times the queries."""

    @property
    def seeds_alone(self) -> NDArray[np.float64]:
        """K: what more queries would not remove, at least 0."""
        return np.maximum(self.seeds - self.both, 0.0)

    @property
    def total(self) -> NDArray[np.float64]:
        """K: the variance of the mean."""
        return np.asarray(self.seeds_alone + self.queries)


@dataclass(frozen=True)
class Comparison:
    """What resamples say of one mean, or of one difference of means."""

    mean: float
    low: float
    """Lower end of the two-sided interval."""
    high: float
    """Upper end of the two-sided interval."""
    at_least: float
    """One-sided lower bound, at the same confidence."""
    at_most: float
    """One-sided upper bound, at the same confidence."""
    p: float
    """Two-sided p-value of "the mean is 0"."""


@dataclass(frozen=True)
class Crossed:
    """Resamples of S training seeds and N test queries, the same for whatever is averaged.

    With a single seed nothing is said of other seeds: the resamples are those of the queries.
    """

    bootstrap: Bootstrap
    """How queries are drawn; its number of resamples, B, and its seed hold here too."""
    seeds: int
    """S, the training seeds."""
    widened: float = 1.0
    """What the queries' part is multiplied by: above 1 where what is judged was made from queries
    that are judged as well (`CROSS_FITTED`)."""

    def overall(self, values: NDArray[np.float64]) -> Means:
        """Means over all seeds and queries.

        Differences are not linear in here, since what is taken out of the seeds' part depends on
        the column: for the interval of a difference give its own column (see `difference`).

        Args:
            values: S x N x K columns.

        Returns:
            K means, and B x K resampled ones.
        """
        self._check(values)
        parts = variance_parts(values, self.bootstrap)
        resampled = values.mean(axis=(0, 1)) + self._seeds_part(values.mean(axis=1), parts)
        for name, rows in self.bootstrap.strata.items():
            share = len(rows) / values.shape[1]
            resampled += share * self._queries_part(name, values[:, rows])
        return Means(values.mean(axis=(0, 1)), resampled)

    def parts(self, values: NDArray[np.float64]) -> Parts:
        """Where the variance of `overall` comes from: that of `variance_parts`, widened."""
        self._check(values)
        parts = variance_parts(values, self.bootstrap)
        return replace(parts, queries=self.widened**2 * parts.queries)

    def by_task(
        self,
        values: NDArray[np.float64],
        worst: NDArray[np.float64],
        best: NDArray[np.float64],
    ) -> dict[str, Means]:
        """Means within each task, from its own queries.

        A task with a single query gets the whole range, as in `Bootstrap.by_task`.

        Args:
            values: S x N x K columns.
            worst: K values, the least favourable that each column can have.
            best: K values, the most favourable.

        Returns:
            By task, K means and B x K resampled ones.
        """
        self._check(values)
        means = {}
        for task, rows in self.bootstrap.rows.items():
            chosen = values[:, rows]
            measured = chosen.mean(axis=(0, 1))
            if len(rows) > 1:
                parts = _parts(chosen, [np.arange(len(rows))])
                resampled = measured + self._seeds_part(chosen.mean(axis=1), parts)
                means[task] = Means(measured, resampled + self._queries_part(f"/{task}", chosen))
            else:
                ends = np.stack([worst, best])
                means[task] = Means(measured, ends[np.arange(self.bootstrap.resamples) % 2])
        return means

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        """B x S weights of the seeds; a column's part is these times its S centred means."""
        counts = np.concatenate(list(self.bootstrap.weights("seeds", self.seeds)))
        free = self.seeds - 1
        stream = np.random.default_rng(int(sha256_text(f"{self.bootstrap.seed}spread"), 16))
        spread = np.sqrt(stream.chisquare(free, len(counts)) / free)
        return np.asarray(counts / self.seeds * np.sqrt(self.seeds / free) / spread[:, None])

    def _seeds_part(self, means: NDArray[np.float64], parts: Parts) -> NDArray[np.float64]:
        """How far the drawn seeds move each mean, B x K; S x K means over queries."""
        if self.seeds == 1:
            return np.zeros((self.bootstrap.resamples, means.shape[1]))
        kept = np.sqrt(parts.seeds_alone / np.where(parts.seeds > 0, parts.seeds, 1.0))
        return np.asarray(self._draws @ (means - means.mean(axis=0)) * kept)

    def _queries_part(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the drawn queries of a stratum move its mean, B x K; S x n x K values."""
        over_seeds = values.mean(axis=0)
        centred, count = over_seeds - over_seeds.mean(axis=0), len(over_seeds)
        blocks = [drawn @ centred / count for drawn in self.bootstrap.weights(name, count)]
        scale = self.widened * np.sqrt(count / max(count - 1, 1))
        return np.asarray(np.concatenate(blocks) * scale)

    def _check(self, values: NDArray[np.float64]) -> None:
        expected = (self.seeds, len(self.bootstrap.tasks))
        if values.ndim != 3 or values.shape[:2] != expected:
            raise ValueError(f"values have shape {values.shape}, not {expected} and columns")


def variance_parts(values: NDArray[np.float64], bootstrap: Bootstrap) -> Parts:
    """Estimates what seeds, queries and both together add to the variance of K means.

    Unbiased where seeds and queries are drawn at random, the queries within the bootstrap's strata:
    with D the values, dots for means and n of N queries in stratum h,
    seeds = sum_s (D_s. - D..)^2 / (S (S - 1)); per stratum
    queries = sum_i (D_.i - D..)^2 / (n (n - 1)) and
    both = sum_si (D_si - D_s. - D_.i + D..)^2 / (S (S - 1) n (n - 1)), each times (n / N)^2.

    Args:
        values: S x N x K columns.
        bootstrap: whose strata.
    """
    return _parts(values, list(bootstrap.strata.values()))


def _parts(values: NDArray[np.float64], strata: list[NDArray[np.int64]]) -> Parts:
    seeds, total, columns = values.shape
    queries, both = np.zeros(columns), np.zeros(columns)
    for rows in strata:
        chosen, count = values[:, rows], len(rows)
        if count == 1:
            continue  # one query shows no spread
        over_seeds, over_queries = chosen.mean(axis=0), chosen.mean(axis=1)
        mean = over_seeds.mean(axis=0)
        square = (count / total) ** 2 / (count * (count - 1))
        queries += square * ((over_seeds - mean) ** 2).sum(axis=0)
        if seeds > 1:
            rest = chosen - over_seeds - over_queries[:, None] + mean
            both += square * (rest**2).sum(axis=(0, 1)) / (seeds * (seeds - 1))
    if seeds == 1:
        return Parts(np.zeros(columns), queries, both)
    return Parts(values.mean(axis=1).var(axis=0, ddof=1) / seeds, queries, both)


def difference(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """One policy minus another, seed by seed and query by query.

    Args:
        mine: S x N values, or N (or 1 x N) of a policy without seeds.
        theirs: the same of the other policy. Where both have seeds these are paired by number.

    Returns:
        S x N x 1, a column for `Crossed`.

    Raises:
        ValueError: other queries, or other numbers of seeds.
    """
    one, other = np.atleast_2d(mine), np.atleast_2d(theirs)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"{one.shape[1]} queries cannot be paired with {other.shape[1]}")
    if len(one) != len(other) and 1 not in (len(one), len(other)):
        raise ValueError(f"{len(one)} seeds cannot be paired with {len(other)}")
    return np.asarray((one - other)[:, :, None])


def compare(means: Means, confidence: float) -> list[Comparison]:
    """Interval, one-sided bounds and p-value of each of K means, from their resamples.

    p = 2 min(1 + resamples <= 0, 1 + resamples >= 0) / (B + 1), at most 1. The ones count what was
    measured as a resample of its own (Davison and Hinkley, Bootstrap Methods, 1997), so p is never
    0. A p under 1 - confidence and an interval without 0 are the same, but for one resample.

    Args:
        means: of differences.
        confidence: of the interval, and of each bound.
    """
    resampled, count = means.resampled, len(means.resampled)
    low, high = means.ends(confidence)
    bounds = np.quantile(resampled, [1 - confidence, confidence], axis=0)
    # Sums in another order differ in the last digits: what should be 0 may stand beside it.
    near = 1e-12
    tails = np.minimum((resampled <= near).sum(axis=0), (resampled >= -near).sum(axis=0))
    p = np.minimum(2 * (1 + tails) / (count + 1), 1.0)
    columns = zip(means.measured, low, high, *bounds, p, strict=True)
    return [Comparison(*(float(value) for value in column)) for column in columns]

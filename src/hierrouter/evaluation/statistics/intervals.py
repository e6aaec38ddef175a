"""Paired bootstrap intervals over test queries, resampled within each task.

Resampling within a task of n queries gives intervals that are too narrow by sqrt((n - 1) / n), of
no width at all where n is 1. So tasks with few test queries are resampled together, as one stratum:
what tells them apart then counts as chance, and the interval of the whole is rather too wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from hierrouter.files import sha256_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SMALL = 10
"""Tasks with fewer test queries than this are resampled together."""
CHUNK = 2_000_000
"""Most resampling weights held at once (16 MB)."""


class Interval(TypedDict):
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Means:
    """Means of K columns over the queries: as measured, and in each of B resamples."""

    measured: NDArray[np.float64]
    """K."""
    resampled: NDArray[np.float64]
    """B x K. Row b of every `Means` of one `Bootstrap` is the same resample: rows are paired."""

    def ends(self, confidence: float) -> NDArray[np.float64]:
        """The percentile interval of each column, 2 x K."""
        tail = (1 - confidence) / 2
        return np.asarray(np.quantile(self.resampled, [tail, 1 - tail], axis=0))


def intervals(means: Means, confidence: float) -> list[Interval]:
    """The percentile interval of each of K columns."""
    low, high = means.ends(confidence)
    return [
        Interval(mean=_plain(m), low=_plain(a), high=_plain(b))
        for m, a, b in zip(means.measured, low, high, strict=True)
    ]


def clip(interval: Interval, low: float, high: float) -> Interval:
    """Keeps an interval within what there can be; with few seeds Student's wide tails leave it."""
    interval["low"] = float(np.clip(interval["low"], low, high))
    interval["high"] = float(np.clip(interval["high"], low, high))
    return interval


def _plain(value: float) -> float:
    """A float whose last digits, which depend on the order of summing, are gone."""
    return float(f"{round(float(value), 15):.12g}") + 0.0


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of the test queries, the same for whatever is averaged over them.

    Within each task of at least `SMALL` queries as many are drawn with replacement as it has; the
    queries of all smaller tasks are drawn from together. So every resample has the same number of
    queries of each larger task. The resamples follow from the seed and the tasks alone: policies
    averaged in different calls are still paired.
    """

    tasks: NDArray[np.str_]
    """N task names."""
    resamples: int
    """B."""
    seed: int

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Row numbers of each task's queries, tasks in alphabetical order."""
        return {str(task): np.flatnonzero(self.tasks == task) for task in np.unique(self.tasks)}

    @cached_property
    def pooled(self) -> NDArray[np.int64]:
        """Row numbers of the queries of all small tasks; may be empty."""
        small = [rows for rows in self.rows.values() if len(rows) < SMALL]
        return np.sort(np.concatenate(small)) if small else np.zeros(0, dtype=np.int64)

    @cached_property
    def strata(self) -> dict[str, NDArray[np.int64]]:
        """Row numbers of what is drawn from together, by the name of its stream of draws."""
        strata = {f"/{task}": rows for task, rows in self.rows.items() if len(rows) >= SMALL}
        if len(self.pooled):
            strata[""] = self.pooled  # no task's stream: their names start with a slash
        return strata

    def weights(self, stream_name: str, count: int) -> Iterator[NDArray[np.float64]]:
        """How often each of `count` queries is drawn: blocks of (resamples, count)."""
        # A stream for each task: its draws do not depend on which other tasks there are before.
        stream = np.random.default_rng(int(sha256_text(f"{self.seed}{stream_name}"), 16))
        block = max(1, CHUNK // count)
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            drawn = stream.integers(count, size=(size, count))
            drawn += np.arange(size)[:, None] * count
            tally = np.bincount(drawn.ravel(), minlength=size * count)
            yield tally.reshape(size, count).astype(np.float64)

    def by_task(
        self,
        values: NDArray[np.float64],
        worst: NDArray[np.float64],
        best: NDArray[np.float64],
    ) -> dict[str, Means]:
        """Means within each task, each resampled from its own queries.

        One query says nothing of what another would give. A task with a single one gets the worst
        and the best value that there can be, in turn, for its resamples: the whole range.

        Args:
            values: N x K columns.
            worst: K values, the least favourable that each column can have.
            best: K values, the most favourable.
        """
        means = {}
        for task, rows in self.rows.items():
            if len(rows) > 1:
                means[task] = self._means(f"/{task}", values[rows])
            else:
                ends = np.stack([worst, best])
                means[task] = Means(values[rows[0]], ends[np.arange(self.resamples) % 2])
        return means

    def overall(self, values: NDArray[np.float64], by_task: dict[str, Means]) -> Means:
        """Means over all queries, put together from the strata.

        Args:
            values: N x K columns.
            by_task: their means within each task, which the larger tasks contribute.
        """
        parts = [
            (len(rows), by_task[name[1:]] if name else self._means(name, values[rows]))
            for name, rows in self.strata.items()
        ]
        total = len(self.tasks)
        return Means(
            np.asarray(sum(count / total * means.measured for count, means in parts)),
            np.asarray(sum(count / total * means.resampled for count, means in parts)),
        )

    def _means(self, stream_name: str, values: NDArray[np.float64]) -> Means:
        chosen = np.ascontiguousarray(values)
        count = len(chosen)
        blocks = [weights @ chosen / count for weights in self.weights(stream_name, count)]
        return Means(chosen.mean(axis=0), np.concatenate(blocks))

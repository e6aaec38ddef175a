"""Paired bootstrap intervals over test queries, resampled within each task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from hierrouter.files import sha256_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

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


def _plain(value: float) -> float:
    """A float whose last digits, which depend on the order of summing, are gone."""
    return float(f"{round(float(value), 15):.12g}") + 0.0


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of the test queries, the same for whatever is averaged over them.

    Within each task as many queries are drawn with replacement as it has, so every resample has
    the same number of queries of each task. The resamples follow from the seed and the tasks
    alone: policies averaged in different calls are still paired.
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

    def weights(self, task: str) -> Iterator[NDArray[np.float64]]:
        """How often each query of a task is drawn: blocks of (resamples, queries of the task)."""
        count = len(self.rows[task])
        # A stream for each task: its draws do not depend on which other tasks there are before.
        stream = np.random.default_rng(int(sha256_text(f"{self.seed}/{task}"), 16))
        block = max(1, CHUNK // count)
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            drawn = stream.integers(count, size=(size, count))
            drawn += np.arange(size)[:, None] * count
            tally = np.bincount(drawn.ravel(), minlength=size * count)
            yield tally.reshape(size, count).astype(np.float64)

    def by_task(self, values: NDArray[np.float64]) -> dict[str, Means]:
        """Means within each task of the columns of `values`, N x K."""
        means = {}
        for task, rows in self.rows.items():
            chosen = np.ascontiguousarray(values[rows])
            blocks = [weights @ chosen / len(rows) for weights in self.weights(task)]
            means[task] = Means(chosen.mean(axis=0), np.concatenate(blocks))
        return means

    def overall(self, by_task: dict[str, Means]) -> Means:
        """Means over all queries, put together from those within each task."""
        share = {task: len(rows) / len(self.tasks) for task, rows in self.rows.items()}
        return Means(
            np.asarray(sum(share[task] * means.measured for task, means in by_task.items())),
            np.asarray(sum(share[task] * means.resampled for task, means in by_task.items())),
        )

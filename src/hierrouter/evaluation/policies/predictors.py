"""Baselines that predict every route's outcome from the query's embedding, and take the best.

`knn` averages the outcomes of the nearest training queries, `ridge` regresses them on the
embedding. Each has one number to tune. At every alpha the training queries choose it: the value
with which the routes taken, each query predicted without its part of them, get the highest reward.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import RouteTable

NEIGHBOURS = (5, 10, 20, 40, 80, 160)
"""Values of k."""
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Weights of the squared coefficients, the embeddings brought to a mean square of 1."""
TIE = 1e-6
"""Predicted rewards closer than this are equal: predictions have the seven digits of float32."""


class Choice(NamedTuple):
    """What predictions come to, for T test queries."""

    value: float
    """Of what is tuned."""
    taken: NDArray[np.int64]
    """T columns of routes."""
    predicted: NDArray[np.float64]
    """T rewards, predicted of these routes."""


@dataclass(frozen=True)
class Predictions:
    """Predicted outcomes of R routes, for each of V values of what is tuned."""

    values: tuple[float, ...]
    """V values."""
    fitted: NDArray[np.float32]
    """V x N x 2R: qualities, then costs in dollars, of the training queries, each predicted without
    its part of them."""
    test: NDArray[np.float32]
    """V x T x 2R, of the test queries."""

    def choose(self, train: RouteTable, alpha: float, unit: float) -> Choice:
        """The best value on the training queries, and the routes that it takes for the test ones.

        Args:
            train: what the routes gave for the N training queries.
            alpha: quality given up for one cost unit saved.
            unit: dollars in one cost unit.
        """
        realised = train.reward(alpha, unit)
        rows = np.arange(len(realised))
        gained = [realised[rows, _best(fitted, alpha, unit)[0]].mean() for fitted in self.fitted]
        chosen = int(np.argmax(gained))
        return Choice(self.values[chosen], *_best(self.test[chosen], alpha, unit))


def _best(
    predicted: NDArray[np.float32], alpha: float, unit: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The column of the highest predicted reward in each row of N x 2R predictions, and the reward.

    Ties go to the route of the lowest predicted cost, then to the first.
    """
    quality, cost = np.split(predicted.astype(np.float64), 2, axis=1)
    reward = quality - alpha * cost / unit
    best = reward >= reward.max(axis=1, keepdims=True) - TIE
    taken: NDArray[np.int64] = np.where(best, cost, np.inf).argmin(axis=1)
    return taken, reward[np.arange(len(taken)), taken]


def nearest(
    train: NDArray[np.float32],
    test: NDArray[np.float32],
    outcomes: RouteTable,
    neighbours: Sequence[int] = NEIGHBOURS,
    parts: NDArray[np.int64] | None = None,
) -> Predictions:
    """Means over the nearest training queries by cosine (k-nearest-neighbour regression).

    Args:
        train: N x D embeddings of the training queries.
        test: T x D embeddings of the test queries.
        outcomes: what R routes gave for the training queries.
        neighbours: values of k; those that are more than there are neighbours are left out, but
            for the least.
        parts: N part numbers: no neighbours are of a query's own part, where more is left than
            that; none: each query is a part.
    """
    from sklearn.neighbors import NearestNeighbors

    targets, known = _targets(outcomes), _unit_length(train)
    alone = np.arange(len(train))
    part = alone if parts is None or len(np.unique(parts)) < 2 else parts
    most = len(train) - int(np.bincount(part).max())
    counts = [k for k in sorted(neighbours) if k <= most] or [max(most, 1)]
    beside = np.zeros((len(train), counts[-1]), np.int64)
    index = NearestNeighbors(metric="cosine", algorithm="brute")
    if part is alone and len(train) > 1:
        # Without an argument a query is not its own neighbour.
        beside = index.fit(known).kneighbors(None, counts[-1], False)
    elif part is not alone:
        for each in np.unique(part):
            rest = np.flatnonzero(part != each)
            found = index.fit(known[rest]).kneighbors(known[part == each], counts[-1], False)
            beside[part == each] = rest[found]
    around = index.fit(known).kneighbors(_unit_length(test), counts[-1], False)
    return Predictions(
        tuple(counts),
        _running_means(targets, beside, counts),
        _running_means(targets, around, counts),
    )


def _running_means(
    targets: NDArray[np.float32], near: NDArray[np.int64], counts: Sequence[int]
) -> NDArray[np.float32]:
    """Means of the targets of the first k neighbours, for each k: V x N x 2R."""
    means = []
    total = np.zeros((len(near), targets.shape[1]))
    for position in range(near.shape[1]):
        total += targets[near[:, position]]
        if position + 1 in counts:
            means.append((total / (position + 1)).astype(np.float32))
    return np.stack(means)


def ridge(
    train: NDArray[np.float32],
    test: NDArray[np.float32],
    outcomes: RouteTable,
    folds: NDArray[np.int64],
    penalties: Sequence[float] = PENALTIES,
) -> Predictions:
    """Ridge regression of every route's quality and cost on the embedding.

    Args:
        train: N x D embeddings of the training queries.
        test: T x D embeddings of the test queries.
        outcomes: what R routes gave for the training queries.
        folds: N part numbers: each part is predicted from the others.
        penalties: weights of the squared coefficients.
    """
    from sklearn.linear_model import Ridge

    targets = _targets(outcomes)
    centre = train.mean(axis=0)
    spread = float(np.sqrt(np.square(train - centre).mean())) or 1.0
    known, asked = (train - centre) / spread, (test - centre) / spread
    fitted, predicted = [], []
    with warnings.catch_warnings():
        # Texts that are equal make the least penalty a hard problem; scikit-learn then takes least
        # squares, and says so each time.
        warnings.simplefilter("ignore")
        for penalty in penalties:
            model = Ridge(alpha=penalty)
            left = np.tile(targets.mean(axis=0), (len(targets), 1))
            for part in np.unique(folds):
                rest = folds != part
                if rest.any():
                    left[~rest] = model.fit(known[rest], targets[rest]).predict(known[~rest])
            fitted.append(left.astype(np.float32))
            predicted.append(model.fit(known, targets).predict(asked).astype(np.float32))
    return Predictions(tuple(penalties), np.stack(fitted), np.stack(predicted))


def _targets(outcomes: RouteTable) -> NDArray[np.float32]:
    """N x 2R: qualities, then costs."""
    return np.concatenate([outcomes.quality, outcomes.cost], axis=1).astype(np.float32)


def _unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors whose cosine is their product; one of no length stays as it is."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)

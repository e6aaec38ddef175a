"""What the decomposed policy sees of a context: u(s), one row of numbers.

Its blocks: a 1; the chances of the training tasks (what a query is like, in the tasks' own terms:
the task itself is never told); the query's embedding, projected; how close the query is to each of
some typical training queries; the embedding of the context, projected, once something other than
the query stands in it; and what the answers in hand show of themselves, each number by itself and
with the chances of the tasks, as what is a doubtful answer differs from task to task.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.learning.answers import AnswerScale
from hierrouter.learning.projection import Projection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SHARPNESS = 20.0
"""How fast closeness to a typical query falls with the cosine."""
QUERIES_PER_CENTRE = 8
"""Training queries that one typical query stands for, at least."""
TASK_COMPONENTS = 128
"""Components of a query by which tasks are told apart, the first ones."""
TASK_STRENGTH = 0.01
"""Inverse weight of the squared coefficients when tasks are told apart (scikit-learn's C)."""


@dataclass(frozen=True)
class Features:
    """From embeddings to u(s)."""

    query: Projection
    """D to K."""
    context: Projection
    """D to K'; K' is 0 where no context but the query is met."""
    task_weight: NDArray[np.float32]
    """T x K, and `task_bias`: log-odds of the tasks, linear in the projected query. T is 0 where
    there is one task."""
    task_bias: NDArray[np.float32]
    centres: NDArray[np.float32]
    """Z x D, typical training queries, of length 1."""
    answers: AnswerScale = field(default_factory=lambda: AnswerScale.fit(None, 0))
    """Of W numbers that answers show; W is 0 where an answer ends the route."""

    @classmethod
    def fit(
        cls,
        queries: NDArray[np.float32],
        contexts: NDArray[np.float32],
        tasks: NDArray[np.str_],
        width: int | None,
        centres: int,
        seed: int,
        answers: AnswerScale | None = None,
    ) -> Features:
        """Fits all blocks on training queries.

        Args:
            queries: N x D embeddings of the bare queries.
            contexts: R x D embeddings of contexts in which a reply stands; R may be 0.
            tasks: N task names.
            width: K, principal components kept; none: the embedding as it is.
            centres: Z, at most; fewer where there are few queries.
            seed: of the search for typical queries.
            answers: as fitted on direct answers; none where an answer ends the route.
        """
        projection = Projection.fit(queries, width)
        dimensions = queries.shape[1]
        if len(contexts):
            seen = Projection.fit(contexts, width)
        else:
            nothing = np.zeros((0, dimensions), np.float32)
            seen = Projection(np.zeros(dimensions, np.float32), nothing, np.ones((), np.float32))
        weight, bias = task_head(projection(queries), tasks)
        shown = AnswerScale.fit(None, 0) if answers is None else answers
        return cls(projection, seen, weight, bias, _centres(queries, centres, seed), shown)

    @property
    def width(self) -> int:
        """D, of the embeddings that are read."""
        return len(self.query.mean)

    @property
    def blocks(self) -> tuple[slice, slice, slice, slice, slice]:
        """Where in u(s) the 1, the tasks, the query, the centres and the context stand."""
        sizes = (
            1,
            len(self.task_bias),
            len(self.query.components),
            len(self.centres),
            len(self.context.components),
        )
        ends = np.cumsum(sizes)
        one, tasks, query, centres, context = (
            slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)
        )
        return one, tasks, query, centres, context

    @property
    def answer_block(self) -> slice:
        """Where in u(s) the answers stand: behind all else."""
        start = self.blocks[-1].stop
        return slice(start, start + len(self.answers.mean) * (1 + len(self.task_bias)))

    @property
    def size(self) -> int:
        """F."""
        return int(self.answer_block.stop)

    def __call__(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        answers: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """Maps embeddings of queries and of their contexts to u(s).

        Args:
            query: ... x D.
            context: ... x D.
            answers: ... x W, what the answers in hand show (`answers.shown`); none: there is none.

        Returns:
            ... x F.
        """
        projected = self.query(query)
        chances = posterior(projected, self.task_weight, self.task_bias)
        parts = [
            np.ones((*projected.shape[:-1], 1), np.float32),
            chances,
            projected,
            self._closeness(query),
            self.context(context),
        ]
        width = len(self.answers.mean)
        if width and answers is None:
            block = self.answer_block
            parts.append(np.zeros((*projected.shape[:-1], block.stop - block.start), np.float32))
        elif width and answers is not None:
            parts += with_chances(self.answers(answers), chances)
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def _closeness(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """... x Z shares that sum to 1."""
        if not len(self.centres):
            return np.zeros((*query.shape[:-1], 0), np.float32)
        return _softmax(SHARPNESS * (_unit_length(query) @ self.centres.T))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name."""
        return {
            **self.query.arrays("query"),
            **self.context.arrays("context"),
            "task_weight": self.task_weight,
            "task_bias": self.task_bias,
            "centres": self.centres,
            **self.answers.arrays(),
        }

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[np.float32]]) -> Features:
        """The inverse of `arrays`.

        Raises:
            KeyError: an array is missing.
        """
        return cls(
            Projection.from_arrays(named, "query"),
            Projection.from_arrays(named, "context"),
            named["task_weight"],
            named["task_bias"],
            named["centres"],
            AnswerScale.from_arrays(named),
        )

    def shapes(self, embedding: int, most_answers: int = 0) -> dict[str, tuple[int, ...]]:
        """The shapes that its arrays must have for embeddings of this width and J answers."""
        tasks, kept = self.task_bias.size, len(self.query.components)
        return {
            **self.query.shapes("query", embedding),
            **self.context.shapes("context", embedding),
            "task_weight": (tasks, kept),
            "task_bias": (tasks,),
            "centres": (len(self.centres), embedding),
            **self.answers.shapes(most_answers),
        }


def task_head(
    projected: NDArray[np.float32], tasks: NDArray[np.str_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How to tell training tasks apart: T x K weights and T biases, in the order of their names.

    Args:
        projected: N x K.
        tasks: N names; of one task nothing is to be told.
    """
    names = np.unique(tasks)
    if len(names) < 2:
        return np.zeros((0, projected.shape[1]), np.float32), np.zeros(0, np.float32)
    from sklearn.linear_model import LogisticRegression

    first = projected[:, :TASK_COMPONENTS].astype(np.float64)
    model = LogisticRegression(C=TASK_STRENGTH, max_iter=300).fit(first, tasks)
    weight = np.zeros((len(model.coef_), projected.shape[1]))
    weight[:, : first.shape[1]], bias = model.coef_, model.intercept_
    if len(names) == 2:  # scikit-learn gives the log-odds of the second alone
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return weight.astype(np.float32), bias.astype(np.float32)


def posterior(
    projected: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """... x T chances of the tasks of ... x K projected queries."""
    if not len(bias):
        return np.zeros((*projected.shape[:-1], 0), np.float32)
    return _softmax(projected @ weight.T + bias)


def with_chances(answers: NDArray[Any], chances: NDArray[Any]) -> list[NDArray[Any]]:
    """What answers show (... x W), and the same for each task (... x T W), as likely as it is."""
    products = chances[..., :, None] * answers[..., None, :]
    width = chances.shape[-1] * answers.shape[-1]
    return [answers, products.reshape(*answers.shape[:-1], width)]


def _centres(queries: NDArray[np.float32], most: int, seed: int) -> NDArray[np.float32]:
    count = min(most, len(queries) // QUERIES_PER_CENTRE)
    if count < 2:
        return np.zeros((0, queries.shape[1]), np.float32)
    from sklearn.cluster import KMeans

    directions = _unit_length(queries)
    distinct = len(np.unique(directions, axis=0))
    if distinct <= count:
        return np.unique(directions, axis=0)
    found = KMeans(count, n_init=1, max_iter=30, random_state=seed).fit(directions)
    return _unit_length(found.cluster_centers_.astype(np.float32))


def _unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors whose cosine is their product; one of no length stays as it is."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), dtype=np.float32)


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    risen = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(risen / risen.sum(axis=-1, keepdims=True), dtype=np.float32)

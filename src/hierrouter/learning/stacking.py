"""One linear predictor from several: what each learner says out of fold decides its weight.

Scores of a query are predicted by the means of its likely tasks, by ridge regressions, and by the
means of its like among the training queries. Which of them is to be believed differs from data to
data, and their mean is often better than each. So all are fitted, each query is predicted by those
that were fitted without it, and non-negative least squares on these predictions gives the weights
(stacked generalisation: Wolpert 1992, Breiman 1996). Every learner is linear in u(s), so the
result is, too: one row of numbers for each score.

What a query gets from all calls, its level, and what each call adds to that are weighed apart: how
hard a query is can be told much better than which call is right for it, and weights that are good
for the one believe too much of the other. The choice between calls hangs on the other alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.answers import SCALE
from hierrouter.learning.features import posterior, task_head, with_chances

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hierrouter.learning.features import Features

PENALTIES = (0.3, 3.0, 30.0)
"""Weights of the squared coefficients of the ridge regressions, times the number of rows."""
PRIOR = 5.0
"""Rows of the mean score that are mixed into the mean of a task or of a typical query."""
ROUNDS = 20
"""Steps to the two-way means of outcomes of which some are not known."""
ROUNDING = 1e-12
"""Share of the scores' squares that predictions must differ by to be told from their mean."""


@dataclass(frozen=True)
class Seen:
    """What is known of R contexts of N training queries, whatever is to be predicted of them."""

    features: Features
    state: NDArray[np.float64]
    """R x F, their u(s)."""
    held: NDArray[np.float64]
    """R x F, the same with the chances of the tasks as told without the query."""
    task: NDArray[np.int64]
    """R task numbers."""
    fold: NDArray[np.int64]
    """R part numbers; all contexts of a query are in one part."""

    def select(self, rows: NDArray[np.int64]) -> Seen:
        """The same of some of the contexts."""
        return Seen(
            self.features, self.state[rows], self.held[rows], self.task[rows], self.fold[rows]
        )


def see(
    features: Features,
    state: NDArray[np.float32],
    query: NDArray[np.int64],
    tasks: NDArray[np.int64],
    parts: NDArray[np.int64],
) -> Seen:
    """Prepares contexts for `fit_scores`.

    Args:
        features: as fitted on these queries, and maybe on others.
        state: R x F, the u(s) of the contexts.
        query: R query numbers.
        tasks: N task numbers, among all T that the features tell apart; some may have no query.
        parts: N part numbers, of the parts that are predicted from each other.
    """
    _, chances, projected, _, _ = features.blocks
    fold = parts[query]
    held = state.astype(np.float64)
    if len(features.task_bias):
        first = np.unique(query, return_index=True)[1]
        inputs = state[first][:, projected]
        for part in np.unique(parts):
            rest = parts != part
            known = np.unique(tasks[rest])
            if not rest.any() or not (fold == part).any():
                continue
            weight, bias = task_head(inputs[rest], tasks[rest])
            told = np.zeros((int((fold == part).sum()), len(features.task_bias)))
            if len(known) > 1:
                told[:, known] = posterior(state[fold == part][:, projected], weight, bias)
            else:
                told[:, known] = 1.0
            held[fold == part, chances] = told
        if shown := len(features.answers.mean):
            block = features.answer_block
            plain = state[:, block.start : block.start + shown]
            held[:, block] = np.concatenate(with_chances(plain, held[:, chances]), axis=1)
    return Seen(features, state.astype(np.float64), held, tasks[query], fold)


def fit_scores(
    seen: Seen, scores: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Fits C scores of R contexts.

    Args:
        seen: the contexts.
        scores: R x C; NaN where one is not known.

    Returns:
        C x F weights, and R x C predictions of each context without its query. Of a score that is
        never known 0 is said.
    """
    known = ~np.isnan(scores)
    if scores.shape[1] == 1:
        weights, held = _stacked(seen, scores, np.zeros(1, np.int64))
    else:
        level = _levels(scores)
        share = known.mean(axis=1)
        if not known.all():
            # What is known of a context tells its level the better, the more it is of all.
            told = _stacked(seen, level[:, None], np.zeros(1, np.int64))[1][:, 0]
            level = np.where(share > 0, share * level + (1 - share) * told, told)
        more = scores - level[:, None]
        parts = np.concatenate([np.where(share > 0, level, np.nan)[:, None], more], axis=1)
        weights, held = _stacked(seen, parts, np.minimum(np.arange(parts.shape[1]), 1))
        trust = _trust(more)
        weights = weights[:1] + trust[:, None] * weights[1:]
        held = held[:, :1] + trust * held[:, 1:]
    ever = np.asarray(known.any(axis=0))
    return (weights * ever[:, None]).astype(np.float32), held * ever


def _levels(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """R levels: the mean of each row, as if what is not known of it were like what is.

    Where all is known, the plain mean. Else rows and columns add up (two-way means), so that a row
    in which only good calls are known is not taken for an easy one. NaN where nothing is known.
    """
    known = ~np.isnan(scores)
    merit = np.zeros(scores.shape[1])
    for _ in range(1 if known.all() else ROUNDS):
        level = _means((scores - merit).T)
        merit = _means(scores - level[:, None])
        merit -= (merit * known.sum(axis=0)).sum() / max(known.sum(), 1)
    return np.where(known.any(axis=1), level, np.nan)


def _trust(more: NDArray[np.float64]) -> NDArray[np.float64]:
    """C shares, of what columns were found to add to the level: 1 for the one known most often.

    A column that is known seldom is drawn towards the others, by as much as its mean is likely to
    be off (empirical Bayes: the columns' means spread, and the rows about each).
    """
    known = ~np.isnan(more)
    count, mean = known.sum(axis=0), _means(more)
    if not known.any() or (count == count.max()).all():
        return np.ones(len(count))
    within = np.square(np.where(known, more - mean, 0)).sum() / known.sum()
    between = (count * np.square(mean) - within)[count > 0].sum() / count.sum()
    rows = within / max(between, 1e-6 * within, np.finfo(float).tiny)
    # Where the level explains all, `rows` is 0; a column that is never known then has no share.
    shrunk = count / np.maximum(count + rows, np.finfo(float).tiny)
    return np.asarray(shrunk / shrunk.max())


def _stacked(
    seen: Seen, scores: NDArray[np.float64], group: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The learners' mix for C scores of R contexts, as `fit_scores`.

    Args:
        seen: the contexts.
        scores: R x C; NaN where one is not known.
        group: C numbers; scores of one group share the learners' weights.
    """
    learners = _learners(seen)
    known = ~np.isnan(scores)
    centre = _means(scores)
    # The mean, too, is that of the others: the best of several means is lucky on its own queries.
    middle = np.tile(centre, (len(scores), 1))
    held = [middle.copy() for _ in learners]
    weighed = known.copy()
    folds = np.unique(seen.fold)
    for part in folds if len(folds) > 1 else ():
        rest, left = seen.fold != part, seen.fold == part
        told = known[rest].any(axis=0)
        # What the others tell nothing of, learners say 0 of, which must not count against them.
        weighed[left] &= told
        middle[left] = np.where(told, _means(scores[rest]), centre)
        for learner, predicted in zip(learners, held, strict=True):
            weights = learner(np.flatnonzero(rest), scores[rest])
            predicted[left] = np.where(told, seen.held[left] @ weights.T, middle[left])
    shares = np.zeros((len(learners), len(group)))
    for each in np.unique(group):
        among = group == each
        off = [(predicted - middle)[:, among] for predicted in held]
        shares[:, among] = _shares(off, (scores - middle)[:, among], weighed[:, among])[:, None]
    rows = np.arange(len(scores))
    whole = np.zeros((scores.shape[1], seen.state.shape[1]))
    whole[:, 0] = (1 - shares.sum(axis=0)) * centre
    for share, learner in zip(shares, learners, strict=True):
        if share.any():
            whole += share[:, None] * learner(rows, scores)
    out_of_fold = middle + sum(
        share * (each - middle) for share, each in zip(shares, held, strict=True)
    )
    return whole, np.asarray(out_of_fold)


def _shares(
    held: list[NDArray[np.float64]], scores: NDArray[np.float64], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The non-negative weights with which the centred predictions come closest to the scores."""
    from scipy.optimize import nnls

    if not held or not known.any():
        return np.zeros(len(held))
    columns = np.stack([each[known] for each in held], axis=1)
    # On the normal equations: rows are many, columns a handful.
    gram = columns.T @ columns
    # What differs from the mean by rounding alone must not be blown up to explain the scores.
    if np.trace(gram) <= ROUNDING * np.square(scores[known]).sum():
        return np.zeros(len(held))
    scale = np.trace(gram) / len(gram)
    root = np.linalg.cholesky(gram + 1e-9 * scale * np.eye(len(gram)))
    target = np.linalg.solve(root, columns.T @ scores[known])
    return np.asarray(nnls(root.T, target)[0])


def _means(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """C means of what is known; 0 where nothing is."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1))


def _learners(
    seen: Seen,
) -> list[Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]]:
    """What is fitted: each maps rows and their scores to C x F weights."""
    _, tasks, query, centres, context = seen.features.blocks
    width = seen.state.shape[1]
    found = []

    def averaging(
        block: slice, share: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    ) -> Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]:
        def learn(rows: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
            weights = np.zeros((scores.shape[1], width))
            weights[:, block] = _weighted_means(share(rows), scores).T
            return weights

        return learn

    def regressing(
        columns: NDArray[np.int64], penalty: float, scale: NDArray[np.float64]
    ) -> Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]:
        def learn(rows: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
            weights = np.zeros((scores.shape[1], width))
            inputs = seen.held[rows][:, columns] * scale
            weights[:, 0], found = _ridge(inputs, scores, penalty)
            weights[:, columns] = found * scale
            return weights

        return learn

    count = tasks.stop - tasks.start
    if count:
        found.append(averaging(tasks, lambda rows: np.eye(count)[seen.task[rows]]))
    if centres.stop > centres.start:
        found.append(averaging(centres, lambda rows: seen.state[rows][:, centres]))
    every = np.arange(width)
    blocks = [every[query]]
    if context.stop > context.start:
        blocks.append(np.concatenate([every[tasks], every[query], every[context]]))
    answers = every[seen.features.answer_block]
    if len(answers) and seen.held[:, answers].any():
        blocks.append(np.concatenate([every[tasks], answers]))
    for columns in blocks:
        # What answers show has this scale already, and the chances of the tasks stand beside it.
        scale = np.where((columns < query.start) & (columns[-1] >= context.stop), SCALE, 1.0)
        found += [regressing(columns, penalty, scale) for penalty in PENALTIES]
    return found


def _weighted_means(share: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of C scores over rows with B kinds of weights, B x C, drawn towards the plain mean."""
    known = ~np.isnan(scores)
    centre = _means(scores)
    total = share.T @ np.where(known, scores - centre, 0)
    return np.asarray(centre + total / (share.T @ known + PRIOR))


def _ridge(
    inputs: NDArray[np.float64], scores: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intercepts (C) and coefficients (C x B) of C ridge regressions."""
    from sklearn.linear_model import Ridge

    known = ~np.isnan(scores)
    intercepts, weights = np.zeros(scores.shape[1]), np.zeros((scores.shape[1], inputs.shape[1]))
    # Columns that are known in the same rows are one regression.
    patterns, group = np.unique(known, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns, rows = np.flatnonzero(group == number), patterns[:, number]
        if not rows.any():
            continue
        model = Ridge(alpha=penalty * rows.sum(), solver="cholesky")
        model.fit(inputs[rows], scores[np.ix_(rows, columns)])
        coefficients = np.reshape(model.coef_, (len(columns), -1))
        intercepts[columns], weights[columns] = model.intercept_, coefficients
    return intercepts, weights

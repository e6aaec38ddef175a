"""The oracle without the luck of guessed multiple choices.

A per-query oracle takes, of many routes, one that was right. Where a question has k choices, a
route that knows nothing is right with a chance of 1 / k, and of twelve such routes one nearly
always is. No router can foresee that. `oracle_corrected` knows for each query which routes know the
answer, and nothing of how guesses fall: a route that knows counts as 1, any other as 1 / k.

Who knows is not seen, but can be estimated, since guesses are independent and knowing is not. The
three-parameter item response model (Birnbaum, 1968) with its guessing parameter fixed at 1 / k says
so: P(route r knows) = sigmoid(ease of the query + skill of r), P(right) = P(knows) +
(1 - P(knows)) / k, ease normal over the queries of a task. Skills and the spread of ease are fitted
by marginal maximum likelihood (Bock and Aitkin, 1981), on grids, skills with a weak prior. Counting
each route's lucky hits from its error rate alone, errors / (k - 1), is not enough: that takes
knowing for independent too, and then the lucky hit of one of twelve looks like knowledge (figures:
docs/statistics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EASE = np.linspace(-8, 8, 33)
"""Where the ease of queries is integrated over."""
SKILL = np.linspace(-8, 6, 281)
"""Among which skills are chosen; so fine that fitting does not stop half-way."""
ALIKE = 1.0
"""Standard deviation of the prior of skills about their mean. Without it every route that guessed
a little better than it had to would seem to know something, and of twelve such one always does."""
ROUNDS = 100
"""Most steps of fitting."""
FEW = 30
"""Tasks with fewer multiple choice queries are fitted together."""


@dataclass(frozen=True)
class Corrected:
    """What the oracle without luck expects for each of N queries."""

    quality: NDArray[np.float64]
    """N expected qualities."""
    relative_cost: NDArray[np.float64]
    """N expected costs, in the unit of those given."""
    reward: NDArray[np.float64]
    """N: quality - alpha * relative_cost."""


@dataclass(frozen=True)
class Guessing:
    """How likely each right answer of N queries and R routes was a guess.

    An answer is one of T cases of ease: given the case, routes guess or know independently.
    """

    quality: NDArray[np.float64]
    """N x R."""
    choices: NDArray[np.int64]
    """N: k, or under 2 where nothing can be guessed."""
    ease: NDArray[np.float64]
    """N x T chances of each case, given what the routes answered."""
    lucky: NDArray[np.float64]
    """G x T x R: the chance that a right answer was a guess, by group of `group`."""
    group: NDArray[np.int64]
    """N: which of G (task and number of choices); -1 where nothing can be guessed."""

    def oracle(self, relative_cost: NDArray[np.float64], alpha: float) -> Corrected:
        """The oracle at one alpha.

        For each query it takes the known route with the highest reward, or the cheapest route where
        none is known or a guess of the cheapest is worth more. Where nothing can be guessed it is
        the plain oracle.

        Args:
            relative_cost: N x R.
            alpha: quality given up for one cost unit saved.
        """
        worth = self.quality - alpha * relative_cost
        order = np.lexsort((relative_cost, -worth), axis=1)  # best first, then cheapest
        sure = np.take_along_axis(self.quality, order, axis=1)
        price = np.take_along_axis(relative_cost, order, axis=1)
        quality, cost = sure[:, 0].copy(), price[:, 0].copy()
        for number in range(len(self.lucky)):
            rows = np.flatnonzero(self.group == number)
            quality[rows], cost[rows] = self._expected(
                rows, self.lucky[number], order[rows], sure[rows], price[rows], alpha
            )
        return Corrected(quality, cost, quality - alpha * cost)

    def _expected(
        self,
        rows: NDArray[np.int64],
        lucky: NDArray[np.float64],
        order: NDArray[np.int64],
        right: NDArray[np.float64],
        price: NDArray[np.float64],
        alpha: float,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Quality and cost of a group's queries; columns stand in the order of their reward."""
        chance = 1.0 / self.choices[rows]
        cheapest = price.min(axis=1)
        # Dearer than a guess of the cheapest is worth: known or not, it is left.
        better = (right > 0) & (right - alpha * price > (chance - alpha * cheapest)[:, None])
        quality, cost = np.zeros(len(rows)), np.zeros(len(rows))
        for case, weight in enumerate(self.ease[rows].T):
            guessed = np.where(better, lucky[case][order], 1.0)
            before = np.cumprod(guessed, axis=1)
            first = np.concatenate([np.ones((len(rows), 1)), before[:, :-1]], axis=1) * (
                1 - guessed
            )
            none = before[:, -1]
            quality += weight * (first.sum(axis=1) + none * chance)
            cost += weight * ((first * price).sum(axis=1) + none * cheapest)
        return quality, cost


def guessing(
    quality: NDArray[np.float64], tasks: NDArray[np.str_], choices: NDArray[np.int64]
) -> Guessing:
    """Fits who knows, task by task.

    Assumes that a route which does not know picks each choice alike, and routes independently of
    each other. Where such routes err alike (the same model behind several of them) a shared lucky
    hit looks like knowledge, a shared miss like none.

    Args:
        quality: N x R, 0 or 1 where a query has choices.
        tasks: N task names.
        choices: N numbers of choices (`metadata["choices"]` of a query), 0 where it has none.

    Raises:
        ValueError: a query with choices has a quality beside 0 and 1.
    """
    quality = np.asarray(quality, dtype=np.float64)
    chosen = choices >= 2
    if not np.isin(quality[chosen], (0.0, 1.0)).all():
        raise ValueError("guessed multiple choices are right or wrong: qualities of 0 and 1")
    names, counts = np.unique(tasks[chosen], return_counts=True)
    small = names[counts < FEW]
    parts = [np.flatnonzero(chosen & (tasks == name)) for name in names[counts >= FEW]]
    if len(small):
        parts.append(np.flatnonzero(chosen & np.isin(tasks, small)))
    ease = np.zeros((len(quality), len(EASE)))
    group = np.full(len(quality), -1, dtype=np.int64)
    lucky: list[NDArray[np.float64]] = []
    for rows in parts:
        skills, ease[rows] = _fit(quality[rows], choices[rows])
        knows = _sigmoid(EASE[:, None] + skills)
        for k in np.unique(choices[rows]):
            group[rows[choices[rows] == k]] = len(lucky)
            lucky.append(((1 - knows) / k) / (knows + (1 - knows) / k))
    found = np.array(lucky).reshape(-1, len(EASE), quality.shape[1])
    return Guessing(quality, np.asarray(choices), ease, found, group)


def _fit(
    right: NDArray[np.float64], choices: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """R skills, and n x T chances of each query's ease, by expectation and maximisation."""
    knows = _sigmoid(EASE[:, None] + SKILL)
    tables = []
    for k in np.unique(choices):
        chance = np.clip(knows + (1 - knows) / k, 1e-9, 1 - 1e-9)
        tables.append((choices == k, np.log(chance), np.log1p(-chance)))
    skill = np.full(right.shape[1], len(SKILL) // 2)
    variance = 4.0
    posterior = np.zeros((len(right), len(EASE)))
    for _ in range(ROUNDS):
        prior = -(EASE**2) / (2 * variance)
        for rows, hit, miss in tables:
            posterior[rows] = right[rows] @ hit[:, skill].T + (1 - right[rows]) @ miss[:, skill].T
        posterior += prior
        posterior = np.exp(posterior - posterior.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        fit = np.zeros((right.shape[1], len(SKILL)))
        for rows, hit, miss in tables:
            hits = posterior[rows].T @ right[rows]
            misses = posterior[rows].sum(axis=0)[:, None] - hits
            fit += hits.T @ hit + misses.T @ miss
        chosen = (fit - (SKILL - SKILL[skill].mean()) ** 2 / (2 * ALIKE**2)).argmax(axis=1)
        spread = max(float((posterior @ EASE**2).mean()), 0.01)
        still = np.array_equal(chosen, skill) and abs(spread - variance) < 1e-3 * variance
        skill, variance = chosen, spread
        if still:
            break
    return SKILL[skill], posterior


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))

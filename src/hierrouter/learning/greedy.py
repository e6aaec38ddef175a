"""Where a router's argmax goes, for many queries and alphas side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hierrouter.learning.actions import SOLVE, best_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.learning.contexts import Contexts
    from hierrouter.learning.router import Router


class Taken(NamedTuple):
    """A route that was taken, as model indices."""

    analyses: tuple[int, ...]
    answers: tuple[int, ...]
    """In the order in which they were asked for."""
    returned: int
    """Whose answer is the result."""

    @property
    def path(self) -> tuple[int, ...]:
        """The models called."""
        return (*self.analyses, *self.answers)


@dataclass(frozen=True)
class Walks:
    """What argmax got for each of A alphas and N queries."""

    quality: NDArray[np.float64]
    """A x N."""
    cost: NDArray[np.float64]
    """A x N, in cost units, over the whole route."""
    routes: list[list[Taken]]
    """A lists of N routes."""


def walk(router: Router, contexts: Contexts, alphas: Sequence[float]) -> Walks:
    """Plays every query at every alpha, all at once: a step for each hop, and one to accept.

    Args:
        router: the router.
        contexts: what it is played on, in the router's cost units.
        alphas: A values of alpha.

    Raises:
        HierRouterError: contexts that are filled on demand could not be (`Filler.gains`).
    """
    queries, count = len(contexts.roots), len(alphas)
    row = np.tile(contexts.roots, count)
    each_alpha = np.repeat(np.asarray(alphas, dtype=np.float64), queries)
    quality, cost = np.zeros(len(row)), np.zeros(len(row))
    analyses: list[tuple[int, ...]] = [()] * len(row)
    answers: list[tuple[int, ...]] = [()] * len(row)
    returned = np.full(len(row), -1)
    going = np.arange(len(row))
    for _ in range(contexts.hops + 1):
        at = row[going]
        scores = router.state_scores(
            contexts.state[at],
            contexts.stage[at],
            contexts.spent[at],
            each_alpha[going],
            contexts.masks(at),
        )
        action = best_of(scores)
        model, solve = action // 2, action % 2 == SOLVE
        accept = model == contexts.models
        call = np.flatnonzero(~accept)
        contexts.reach(at[call], model[call], solve[call])
        for episode, step, is_answer in zip(going[call], model[call], solve[call], strict=True):
            kind = answers if is_answer else analyses
            kind[episode] = (*kind[episode], int(step))
        if contexts.after is None:
            ends, result = solve, model
            paid = contexts.spent[at] + np.where(solve, contexts.price[at, model], 0)
            onward = contexts.child[at, model]
        else:
            ends, result, paid = accept, model.copy(), contexts.spent[at]
            if accept.any():
                result[accept] = choice(router, contexts, at[accept])
            asked = np.where(accept, 0, model)
            onward = np.where(solve, contexts.after[at, asked], contexts.child[at, asked])
        done = going[ends]
        returned[done] = result[ends]
        quality[done] = contexts.quality[at[ends], result[ends]]
        cost[done] = paid[ends]
        row[going] = np.where(ends, at, onward)
        going = going[~ends]
        if not len(going):
            break
    shape = (count, queries)
    routes = [Taken(*each) for each in zip(analyses, answers, returned.tolist(), strict=True)]
    each = [routes[start : start + queries] for start in range(0, len(routes), queries)]
    return Walks(quality.reshape(shape), cost.reshape(shape), each)


def choice(router: Router, contexts: Contexts, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whose answer is returned in B contexts with answers in hand: the one believed in most."""
    belief = router.policy.believed(contexts.state[rows], contexts.stage[rows])
    return best_of(np.where(contexts.hand[rows], belief, -np.inf))


def rewards_of(router: Router, contexts: Contexts, alphas: Sequence[float]) -> NDArray[np.float64]:
    """The router's exact reward for each query at each alpha, A x N."""
    walks = walk(router, contexts, alphas)
    rewards: NDArray[np.float64] = walks.quality - np.asarray(alphas)[:, None] * walks.cost
    return rewards


def mean_reward(router: Router, contexts: Contexts, alphas: Sequence[float]) -> NDArray[np.float64]:
    """Its mean over the queries at each alpha."""
    means: NDArray[np.float64] = rewards_of(router, contexts, alphas).mean(axis=1)
    return means

"""Where a router's argmax goes, for many queries and alphas side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.actions import SOLVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.learning.contexts import Contexts
    from hierrouter.learning.router import Router


@dataclass(frozen=True)
class Walks:
    """What argmax got for each of A alphas and N queries."""

    quality: NDArray[np.float64]
    """A x N."""
    cost: NDArray[np.float64]
    """A x N, in cost units, over the whole route."""
    paths: list[list[tuple[int, ...]]]
    """A lists of N tuples of model indices; the last model solves."""


def walk(router: Router, contexts: Contexts, alphas: Sequence[float]) -> Walks:
    """Plays every query at every alpha, all at once: as many steps as there are hops.

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
    paths: list[tuple[int, ...]] = [()] * len(row)
    going = np.arange(len(row))
    for _ in range(contexts.hops):
        at = row[going]
        scores = router.state_scores(
            contexts.state[at],
            contexts.stage[at],
            contexts.spent[at],
            each_alpha[going],
            contexts.masks(at),
        )
        action = scores.argmax(axis=1)
        model, solve = action // 2, action % 2 == SOLVE
        contexts.reach(at, model, solve)
        for episode, step in zip(going, model, strict=True):
            paths[episode] = (*paths[episode], int(step))
        done = going[solve]
        quality[done] = contexts.quality[at, model][solve]
        cost[done] = (contexts.spent[at] + contexts.price[at, model])[solve]
        row[going] = np.where(solve, at, contexts.child[at, model])
        going = going[~solve]
        if not len(going):
            break
    shape = (count, queries)
    each = [paths[start : start + queries] for start in range(0, len(paths), queries)]
    return Walks(quality.reshape(shape), cost.reshape(shape), each)


def rewards_of(router: Router, contexts: Contexts, alphas: Sequence[float]) -> NDArray[np.float64]:
    """The router's exact reward for each query at each alpha, A x N."""
    walks = walk(router, contexts, alphas)
    rewards: NDArray[np.float64] = walks.quality - np.asarray(alphas)[:, None] * walks.cost
    return rewards


def mean_reward(router: Router, contexts: Contexts, alphas: Sequence[float]) -> NDArray[np.float64]:
    """Its mean over the queries at each alpha."""
    means: NDArray[np.float64] = rewards_of(router, contexts, alphas).mean(axis=1)
    return means

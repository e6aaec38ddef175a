"""What policies are played on, and what playing one gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from hierrouter.evaluation.policies.luck import Guessing, guessing
from hierrouter.evaluation.policies.predictors import Predictions, nearest, ridge
from hierrouter.routes.parts import parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Moves, Outcomes, RouteTable


class Chooser(Protocol):
    """What evaluation needs of a router: the route that it takes for each query."""

    def follow(self, outcomes: Outcomes, alpha: float) -> NDArray[np.int64]:
        """N columns of `outcomes.every_route(moves)`."""
        ...


@runtime_checkable
class Foreteller(Protocol):
    """A router that also says what it expects."""

    def foretell(self, outcomes: Outcomes, alpha: float) -> NDArray[np.float64] | None:
        """N rewards that it expects of what it takes; none where it predicts nothing."""
        ...


@dataclass(frozen=True)
class Played:
    """What a policy got for each of N test queries."""

    name: str
    quality: NDArray[np.float64]
    """N qualities in [0, 1]; an expectation where the policy draws at random."""
    cost: NDArray[np.float64]
    """N costs in dollars, over the whole route."""
    routes: tuple[str, ...]
    """The routes the policy may take, R names."""
    taken: NDArray[np.int64] | None
    """N columns of `routes`: which was taken; none: one was drawn by `chances`."""
    chances: NDArray[np.float64] | None = None
    """R probabilities, where `taken` is none."""
    predicted: NDArray[np.float64] | None = None
    """N rewards that the policy expected of what it took; none where it says nothing of that."""
    possible: int | None = None
    """How many routes there are, where `routes` names those alone that were taken."""

    def shares(self, among: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Share of the queries (of those in the mask `among`) that take each route, largest first.

        Routes never taken are left out.
        """
        if self.taken is None:
            shares = np.asarray(self.chances, dtype=np.float64)
        else:
            taken = self.taken if among is None else self.taken[among]
            shares = np.bincount(taken, minlength=len(self.routes)) / max(len(taken), 1)
        order = np.argsort(-shares, kind="stable")
        return {self.routes[k]: float(shares[k]) for k in order if shares[k] > 0}


@dataclass(frozen=True)
class Contender:
    """One recipe, trained with S seeds on the same queries."""

    name: str
    """Of the policy."""
    routers: tuple[Chooser, ...]
    """S routers."""
    moves: Moves
    """Which routes they may take."""
    hops: int
    """L; of fewer than the outcomes have, the first."""


@dataclass(frozen=True)
class Filled:
    """What a router got on a tree that holds direct answers and the router's routes alone."""

    played: dict[float, Played]
    """By alpha."""
    nodes: int
    """How many nodes the tree holds."""
    whole: int
    """How many it would hold if every route were recorded."""


@dataclass(frozen=True)
class Arena:
    """What policies are played on: the two splits, the allowed routes, the price of cost.

    What baselines learn here does not depend on alpha, and is learned once.
    """

    train: Outcomes
    test: Outcomes
    moves: Moves
    cost_unit_usd: float
    contenders: tuple[Contender, ...]
    """Trained routers; the first is the one that is judged."""
    seed: int = 42
    """Of what is drawn by chance: the parts of the training queries that baselines are tuned on."""
    filled: Filled | None = None
    """The router's own routes, where no others are recorded: the outcomes are then those of direct
    answers."""

    @cached_property
    def train_routes(self) -> RouteTable:
        """The allowed routes of the training queries."""
        return self.train.routes(self.moves)

    @cached_property
    def test_routes(self) -> RouteTable:
        """The allowed routes of the test queries."""
        return self.test.routes(self.moves)

    @cached_property
    def train_direct(self) -> RouteTable:
        """The direct answers of the training queries."""
        return self.train.direct()

    @cached_property
    def test_direct(self) -> RouteTable:
        """The direct answers of the test queries."""
        return self.test.direct()

    @cached_property
    def guesses(self) -> Guessing | None:
        """Which right answers were guesses; none where nothing can be guessed."""
        choices = self.test.choices
        if choices is None or self.test.metric != "accuracy" or not (choices >= 2).any():
            return None
        return guessing(self.test_routes.quality, self.test.tasks, choices)

    @cached_property
    def neighbours(self) -> Predictions:
        """Every route's outcome as the nearest training queries had it."""
        return nearest(
            self.train.embeddings[:, 0],
            self.test.embeddings[:, 0],
            self.train_routes,
            parts=self._parts,
        )

    @cached_property
    def regression(self) -> Predictions:
        """Every route's outcome by ridge regression on the query's embedding."""
        return ridge(
            self.train.embeddings[:, 0], self.test.embeddings[:, 0], self.train_routes, self._parts
        )

    @cached_property
    def _parts(self) -> NDArray[np.int64]:
        """The parts of the training queries that baselines are tuned on."""
        return parts_of(self.train.folds, self.seed)

"""The contexts that episodes go through, as numbered rows of arrays.

Whether everything was recorded beforehand or is recorded when an episode goes there is decided
here; environment and greedy play look rows up and know no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.learning.actions import ROLES, SOLVE, action_count
from hierrouter.learning.stages import stage_of
from hierrouter.learning.threads import threads
from hierrouter.routes.calls import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hierrouter.routes.fill import Filler
    from hierrouter.routes.outcomes import Outcomes


class Contexts(ABC):
    """R contexts of N queries, and what each of M models gives in them; costs in cost units.

    The arrays may be other ones after `reach`.
    """

    models: int
    """M."""
    hops: int
    """L."""
    roots: NDArray[np.int64]
    """N rows: the bare queries."""
    query: NDArray[np.int64]
    """R query numbers."""
    depth: NDArray[np.int64]
    """R hop indices: how many calls were made."""
    stage: NDArray[np.int64]
    """R stages (`stages.stage_of`)."""
    state: NDArray[np.float32]
    """R x K, what the policy sees of a context."""
    spent: NDArray[np.float64]
    """R costs of the analyses that stand in a context."""
    child: NDArray[np.int64]
    """R x M: the row after an `analyze`; -1 where there is none, or it was not reached."""
    price: NDArray[np.float64]
    """R x M costs of a `solve`."""
    quality: NDArray[np.float64]
    """R x M qualities of the answer."""
    after: NDArray[np.int64] | None = None
    """R x M: the row after a `solve`, -1 where it is not allowed; none: an answer ends the route.
    Where there is one, `price` and `quality` of an answer in hand are those that it had."""
    hand: NDArray[np.bool_]
    """R x M: whose answers are in hand; where there is `after`."""
    returned: NDArray[np.int64]
    """R: whose answer `accept` returns, in episodes; where there is `after`."""

    @abstractmethod
    def reach(
        self, rows: NDArray[np.int64], models: NDArray[np.int64], solve: NDArray[np.bool_]
    ) -> None:
        """Makes sure that B calls are known: `price` and `quality`, or `child`.

        Args:
            rows: B contexts.
            models: B models.
            solve: B flags: whether an answer is wanted, else an analysis.
        """

    def masks(self, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Which actions have an outcome in B contexts, B x (2 M + 1); none: all that are allowed.

        What was never recorded, and never will be, must not be taken: nothing is known of it.
        """
        return None

    @abstractmethod
    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """K least and K greatest numbers of a state, and the greatest cost spent before a call."""


class RecordedContexts(Contexts):
    """Contexts of queries whose nodes are recorded: all of them, or, of imported outcomes, some."""

    def __init__(
        self, outcomes: Outcomes, state: NDArray[np.float32], cost_unit_usd: float
    ) -> None:
        """Lays out dense outcomes.

        Args:
            outcomes: N queries with C contexts each.
            state: N x C x K.
            cost_unit_usd: dollars in one cost unit.
        """
        queries, contexts, width = state.shape
        self.models, self.hops = len(outcomes.models), outcomes.hops
        self.roots = np.arange(queries) * contexts
        self.query = np.repeat(np.arange(queries), contexts)
        self.depth = np.tile(outcomes.depth, queries)
        stages = [stage_of(path, self.models) for path in outcomes.contexts]
        self.stage = np.tile(np.array(stages, dtype=np.int64), queries)
        self.state = state.reshape(-1, width)
        self.spent = outcomes.spent.reshape(-1) / cost_unit_usd
        after = np.where(outcomes.child < 0, -1, self.roots[:, None, None] + outcomes.child)
        self.child = after.reshape(-1, self.models)
        self.price = outcomes.solve_cost.reshape(-1, self.models) / cost_unit_usd
        self.quality = outcomes.solve_quality.reshape(-1, self.models)
        known = ~(np.isnan(self.quality) | np.isnan(self.price))
        self._masks: NDArray[np.bool_] | None = None
        if not known.all():
            self._masks = np.ones((len(known), action_count(self.models)), dtype=np.bool_)
            self._masks[:, SOLVE : 2 * self.models : 2] = known

    def masks(self, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """None where all outcomes are known."""
        return None if self._masks is None else self._masks[rows]

    def reach(
        self, rows: NDArray[np.int64], models: NDArray[np.int64], solve: NDArray[np.bool_]
    ) -> None:
        """Every call is known."""

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """Exactly those of the recorded contexts."""
        return self.state.min(axis=0), self.state.max(axis=0), float(self.spent.max())


class FilledContexts(Contexts):
    """Contexts of queries whose direct answers are recorded; all else when it is reached.

    A call that its model refuses, as too long for instance, is refused to a served route as well:
    as an answer it is a wrong one, and after an analysis that was refused every answer is one. It
    costs what the model's direct answer does, so that no router learns to save by being refused.
    """

    def __init__(
        self,
        filler: Filler,
        direct: Outcomes,
        state_of: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]],
        cost_unit_usd: float,
        model_threads: int,
    ) -> None:
        """Starts with the bare queries.

        Args:
            filler: what makes and tells the other calls.
            direct: the direct answers (one hop) of N queries.
            state_of: from N x D embeddings of queries and of their contexts to N x K states.
            cost_unit_usd: dollars in one cost unit.
            model_threads: threads that language models and encoder get.
        """
        count, self.models = len(direct), len(direct.models)
        self.hops = filler.pool.hops
        self._filler, self._state_of, self._unit = filler, state_of, cost_unit_usd
        self._threads = model_threads
        self._specs = filler.pool.models
        self._queries = [filler.queries[name] for name in direct.query_ids]
        self._root = direct.embeddings[:, 0]
        self._path: list[tuple[int, ...]] = [()] * count
        self.roots = np.arange(count)
        self.query = np.arange(count)
        self.depth = np.zeros(count, dtype=np.int64)
        self.stage = np.zeros(count, dtype=np.int64)
        self.state = state_of(self._root, self._root)
        self.spent = np.zeros(count)
        self._spent_usd = np.zeros(count)
        self.child = np.full((count, self.models), -1)
        self.price = direct.solve_cost[:, 0] / cost_unit_usd
        self.quality = direct.solve_quality[:, 0].copy()
        self._lost: set[int] = set()

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """None: what will be reached is not known."""
        unbounded = np.full(self.state.shape[1], np.inf, dtype=np.float32)
        return -unbounded, unbounded, np.inf

    def reach(
        self, rows: NDArray[np.int64], models: NDArray[np.int64], solve: NDArray[np.bool_]
    ) -> None:
        """Asks the filler for what is not known, all B calls at once.

        Raises:
            HierRouterError: as `Filler.gains`.
        """
        known = np.where(solve, ~np.isnan(self.price[rows, models]), self.child[rows, models] >= 0)
        if known.all():
            return
        wanted = np.stack([rows, models, solve], axis=1)[~known]
        edges = [
            (int(row), int(model), int(role)) for row, model, role in np.unique(wanted, axis=0)
        ]
        # After a refused analysis nothing is asked any more.
        lost = [edge for edge in edges if edge[0] in self._lost]
        edges = [edge for edge in edges if edge[0] not in self._lost]
        calls = []
        for row, model, role in edges:
            names = tuple(self._specs[step].name for step in (*self._path[row], model))
            query = self._queries[self.query[row]]
            calls.append(Call(query, names, ROLES[role], self._specs[model]))
        with threads(self._threads):
            gains = self._filler.gains(calls)
        self._add(
            [
                (row, model, gain.cost_usd, gain.state)
                for (row, model, _), gain in zip(edges, gains, strict=True)
                if gain.state is not None
            ]
        )
        for (row, model, role), gain in zip(edges, gains, strict=True):
            if role != SOLVE:
                if gain.refused:
                    lost.append((row, model, role))
            elif gain.refused:
                self.price[row, model] = self.price[self.query[row], model]
                self.quality[row, model] = 0.0
            else:
                self.price[row, model] = gain.cost_usd / self._unit
                self.quality[row, model] = gain.quality
        self._lose(lost)

    def _lose(self, edges: list[tuple[int, int, int]]) -> None:
        """Adds contexts after analyses that were not made: seen as the query, worth nothing."""
        first = len(self._path)
        self._add([(row, model, 0.0, self._root[self.query[row]]) for row, model, _ in edges])
        rows = np.arange(first, len(self._path))
        self._lost.update(rows.tolist())
        self.price[rows] = self.price[self.query[rows]]
        self.quality[rows] = 0.0

    def _add(self, fresh: list[tuple[int, int, float, NDArray[np.float32]]]) -> None:
        """Adds the contexts after some analyses: (row, model, dollars, embedding) each."""
        if not fresh:
            return
        first, last = len(self._path), len(self._path) + len(fresh)
        if last > len(self.depth):
            self._grow(max(last, 2 * len(self.depth)))
        for new, (row, model, dollars, _) in enumerate(fresh, start=first):
            self._path.append((*self._path[row], model))
            self.query[new] = self.query[row]
            self.depth[new] = self.depth[row] + 1
            self.stage[new] = stage_of(self._path[new], self.models)
            self._spent_usd[new] = self._spent_usd[row] + dollars
            self.child[row, model] = new
        self.spent[first:last] = self._spent_usd[first:last] / self._unit
        roots = self._root[self.query[first:last]]
        self.state[first:last] = self._state_of(roots, np.stack([each[3] for each in fresh]))

    def _grow(self, rows: int) -> None:
        """Makes room for so many rows; twice as many at a time, as each growth copies all."""
        self.query = _longer(self.query, rows, 0)
        self.depth = _longer(self.depth, rows, 0)
        self.stage = _longer(self.stage, rows, 0)
        self.state = _longer(self.state, rows, 0)
        self.spent = _longer(self.spent, rows, 0)
        self._spent_usd = _longer(self._spent_usd, rows, 0)
        self.child = _longer(self.child, rows, -1)
        self.price = _longer(self.price, rows, np.nan)
        self.quality = _longer(self.quality, rows, np.nan)


def sampled_embeddings(
    filler: Filler, direct: Outcomes, seed: int, model_threads: int
) -> NDArray[np.float32]:
    """The contexts of one random route a query, L - 1 analyses long.

    They depend on the seed alone and not on how far the tree is filled, so that training that was
    cut short goes the same way again.

    Args:
        filler: what makes the analyses: N in each of L - 1 batches.
        direct: the direct answers of N queries.
        seed: the training seed.
        model_threads: threads that language models and encoder get.

    Returns:
        N L x D; fewer rows where a model refused an analysis, which ends its route.

    Raises:
        HierRouterError: as `Filler.gains`.
    """
    specs, hops = filler.pool.models, filler.pool.hops
    steps = np.random.default_rng([seed, 2]).integers(len(specs), size=(len(direct), hops - 1))
    found = [direct.embeddings[:, 0]]
    routes = list(zip(direct.query_ids, steps, strict=True))
    for depth in range(1, hops):
        calls = [
            Call(
                filler.queries[name],
                tuple(specs[step].name for step in route[:depth]),
                "analyze",
                specs[route[depth - 1]],
            )
            for name, route in routes
        ]
        with threads(model_threads):
            gains = filler.gains(calls)
        routes = [each for each, gain in zip(routes, gains, strict=True) if not gain.refused]
        found += [gain.state[None] for gain in gains if gain.state is not None]
    return np.concatenate(found)


def _longer(array: NDArray[Any], rows: int, value: float) -> NDArray[Any]:
    longer = np.full((rows, *array.shape[1:]), value, dtype=array.dtype)
    longer[: len(array)] = array
    return longer

"""Recorded outcomes as dense arrays: what learning and evaluation compute on, with no LLM."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

Moves = Literal["direct", "paper", "early_exit", "cascade", "escalate"]
SIGNALS = ("logprob_mean", "logprob_min", "tokens_out", "finished")
"""What an answer shows of itself: mean and least log-probability of its tokens, how many there are,
and whether it came to its end (1) or was cut off (0)."""


def context_paths(models: int, hops: int) -> tuple[tuple[int, ...], ...]:
    """The contexts in which a call can be made, as the models that have analysed so far.

    Args:
        models: M, the size of the pool.
        hops: L, the most calls of a route.

    Returns:
        C tuples of model indices, shortest first: `()` is the bare query, `(0,)` the query and
        model 0's analysis. At most L - 1 analyses stand before a call.
    """
    return tuple(
        path for depth in range(hops) for path in itertools.product(range(models), repeat=depth)
    )


def cascade_routes(
    contexts: Sequence[tuple[int, ...]], models: int, hops: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Every route with two answers or more: who analyses, who answers, and whose is returned."""
    for analyses in contexts:
        for count in range(2, min(hops - len(analyses), models) + 1):
            for answers in itertools.permutations(range(models), count):
                for returned in answers:
                    yield analyses, answers, returned


def cascade_name(
    analyses: Sequence[int], answers: Sequence[int], returned: int, models: Sequence[str]
) -> str:
    """A route such as `A:B` (A analyses, B answers) or `A!B=A` (both answer, A's is returned)."""
    name = ":".join([*(models[step] for step in analyses), "!".join(models[a] for a in answers)])
    return name if returned == answers[-1] else f"{name}={models[returned]}"


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is known; 0 if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


@dataclass(frozen=True)
class RouteTable:
    """Every allowed route of every query, with its outcome.

    Shapes: N queries, R routes. `quality` in [0, 1], `cost` in dollars over the whole route.
    """

    names: tuple[str, ...]
    """R names such as "A" (a direct answer) and "A:B" (A analyses, B solves)."""
    paths: tuple[tuple[int, ...], ...]
    """R tuples of model indices, in the order of the calls; the last model solves."""
    quality: NDArray[np.float64]
    """N x R."""
    cost: NDArray[np.float64]
    """N x R."""

    def reward(self, alpha: float, cost_unit_usd: float) -> NDArray[np.float64]:
        """Quality minus alpha times relative cost, N x R."""
        return self.quality - alpha * self.cost / cost_unit_usd


@dataclass(frozen=True)
class Outcomes:
    """What every call in every context gave and cost, for N queries, M models, C contexts.

    Contexts are those of `context_paths(M, L)`. `analyze_cost` is meaningful only in contexts
    with a successor; elsewhere it is 0.
    """

    query_ids: tuple[str, ...]
    """N ids."""
    tasks: NDArray[np.str_]
    """N task names."""
    train: NDArray[np.bool_]
    """N flags: whether the query is in the training split."""
    folds: NDArray[np.int64]
    """N fold numbers."""
    models: tuple[str, ...]
    """M model names, in the order of the action space."""
    hops: int
    """L."""
    metric: str
    """The quality metric that `solve_quality` holds."""
    embeddings: NDArray[np.float32]
    """N x C x D, the encoder's vector of each context."""
    analyze_cost: NDArray[np.float64]
    """N x C x M, dollars of an `analyze` call."""
    solve_cost: NDArray[np.float64]
    """N x C x M, dollars of a `solve` call; NaN where its outcome is not known."""
    solve_quality: NDArray[np.float64]
    """N x C x M, quality of the answer; NaN where it is not known."""
    analysed: bool = True
    """Whether contexts with analyses are there; else C is 1, and they are the bare queries."""
    signals: NDArray[np.float64] | None = None
    """N x C x M x S, what each answer shows of itself (`SIGNALS`), NaN where it is not known; none
    where no replies are recorded."""
    said: NDArray[np.int64] | None = None
    """N x C x M, a number for what each answer says: among the answers to one query the same for
    the same, -1 where it says nothing; none where no replies are recorded."""
    choices: NDArray[np.int64] | None = None
    """N numbers of choices, 0 where a query has none to guess among; none where that is not
    known."""
    references: tuple[str, ...] = ()
    """Names of the reference models."""
    reference_quality: NDArray[np.float64] | None = None
    """N x (number of references)."""
    reference_cost: NDArray[np.float64] | None = None
    """N x (number of references), dollars."""

    def __len__(self) -> int:
        return len(self.query_ids)

    @cached_property
    def contexts(self) -> tuple[tuple[int, ...], ...]:
        """The C contexts, as the models that have analysed so far."""
        return context_paths(len(self.models), self.hops if self.analysed else 1)

    @cached_property
    def depth(self) -> NDArray[np.int64]:
        """C hop indices: how many analyses stand in each context."""
        return np.array([len(path) for path in self.contexts], dtype=np.int64)

    @cached_property
    def child(self) -> NDArray[np.int64]:
        """C x M: the context after an `analyze` by each model, -1 on the last hop."""
        index = {path: number for number, path in enumerate(self.contexts)}
        return np.array(
            [
                [index.get((*path, model), -1) for model in range(len(self.models))]
                for path in self.contexts
            ],
            dtype=np.int64,
        )

    @cached_property
    def spent(self) -> NDArray[np.float64]:
        """N x C: dollars of the analyses that stand in each context."""
        spent = np.zeros((len(self), len(self.contexts)))
        for context in range(len(self.contexts)):
            for model, after in enumerate(self.child[context]):
                if after >= 0:
                    spent[:, after] = spent[:, context] + self.analyze_cost[:, context, model]
        return spent

    def states(
        self,
        state_of: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """What a policy sees of each context, N x C x K.

        Args:
            state_of: from ... x D embeddings of queries and of contexts to ... x K numbers.
        """
        queries = np.broadcast_to(self.embeddings[:, :1], self.embeddings.shape)
        return state_of(queries, self.embeddings)

    def routes(self, moves: Moves) -> RouteTable:
        """The routes that `moves` allow (section 3.1 for `paper`: exactly L calls).

        Those that end with their first answer: what a cascade gives depends on who chooses among
        its answers (`every_route`), and one that is played blindly gives no more than the call that
        it returns, and costs more.
        """
        names, paths, quality, cost = [], [], [], []
        for context, path in enumerate(self.contexts):
            if moves == "paper" and len(path) != self.hops - 1:
                continue
            for model in range(len(self.models)):
                route = (*path, model)
                names.append(":".join(self.models[step] for step in route))
                paths.append(route)
                quality.append(self.solve_quality[:, context, model])
                cost.append(self.spent[:, context] + self.solve_cost[:, context, model])
        return RouteTable(
            tuple(names), tuple(paths), np.stack(quality, axis=1), np.stack(cost, axis=1)
        )

    def every_route(self, moves: Moves) -> RouteTable:
        """As `routes`, and after them the cascades, each with each answer that it may return.

        `A!B` asks A, then B, and returns B's answer; `A!B=A` does the same and returns A's.
        """
        plain = self.routes(moves)
        if moves not in ("cascade", "escalate"):
            return plain
        names, paths = list(plain.names), list(plain.paths)
        quality, cost = [plain.quality], [plain.cost]
        for analyses, answers, returned in cascade_routes(
            self.contexts, len(self.models), self.hops
        ):
            context = self.contexts.index(analyses)
            names.append(cascade_name(analyses, answers, returned, self.models))
            paths.append((*analyses, *answers))
            quality.append(self.solve_quality[:, context, returned, None])
            paid = self.solve_cost[:, context, list(answers)].sum(axis=1)
            cost.append((self.spent[:, context] + paid)[:, None])
        return RouteTable(
            tuple(names),
            tuple(paths),
            np.concatenate(quality, axis=1),
            np.concatenate(cost, axis=1),
        )

    def direct(self) -> RouteTable:
        """The M direct answers, whatever the moves."""
        return RouteTable(
            self.models,
            tuple((model,) for model in range(len(self.models))),
            self.solve_quality[:, 0],
            self.solve_cost[:, 0],
        )

    def cost_unit_usd(self) -> float:
        """The highest mean cost of one direct answer among the pool models; 1 if all are free."""
        highest = max((_mean(cost) for cost in self.solve_cost[:, 0].T), default=0.0)
        return highest if highest > 0 else 1.0

    def first_hop(self) -> Outcomes:
        """The same queries with their direct answers alone (L = 1)."""
        return replace(self.bare(), hops=1, analysed=True)

    def bare(self) -> Outcomes:
        """The same queries without the contexts in which analyses stand."""
        root = slice(0, 1)
        return replace(
            self,
            analysed=False,
            embeddings=self.embeddings[:, root],
            analyze_cost=np.zeros_like(self.analyze_cost[:, root]),
            solve_cost=self.solve_cost[:, root],
            solve_quality=self.solve_quality[:, root],
            signals=None if self.signals is None else self.signals[:, root],
            said=None if self.said is None else self.said[:, root],
        )

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Outcomes:
        """The outcomes of some of the queries, by mask or by index."""
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        return replace(
            self,
            query_ids=tuple(self.query_ids[number] for number in index),
            tasks=self.tasks[index],
            train=self.train[index],
            folds=self.folds[index],
            embeddings=self.embeddings[index],
            analyze_cost=self.analyze_cost[index],
            solve_cost=self.solve_cost[index],
            solve_quality=self.solve_quality[index],
            choices=None if self.choices is None else self.choices[index],
            signals=None if self.signals is None else self.signals[index],
            said=None if self.said is None else self.said[index],
            reference_quality=None
            if self.reference_quality is None
            else self.reference_quality[index],
            reference_cost=None if self.reference_cost is None else self.reference_cost[index],
        )

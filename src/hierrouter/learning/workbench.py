"""What a learner works with: states of contexts, and the policy that it begins with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hierrouter.learning.actions import ACCEPT, ANALYZE, SOLVE
from hierrouter.learning.answers import AnswerScale
from hierrouter.learning.cascading import recorded_contexts
from hierrouter.learning.contexts import FilledContexts, sampled_embeddings
from hierrouter.learning.features import Features
from hierrouter.learning.heads import Heads
from hierrouter.learning.projection import Projection
from hierrouter.learning.proof import surely_better
from hierrouter.learning.regression import Fit, regress
from hierrouter.learning.rest_regression import regress_rests
from hierrouter.learning.rests import Rests, placed
from hierrouter.learning.stages import Stages
from hierrouter.learning.threads import present, threads
from hierrouter.routes.parts import parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.config import TrainingConfig
    from hierrouter.learning.contexts import Contexts, RecordedContexts
    from hierrouter.routes.fill import Filler
    from hierrouter.routes.outcomes import Moves, Outcomes

GRID = 6
"""Alphas at which analyses are played on in the regression."""


class Start(NamedTuple):
    """What a learner begins with."""

    policy: Heads | Projection
    """The policy; of an MLP what it sees."""
    returned: NDArray[np.int64] | None = None
    """Whose answer each of the contexts returns (`Fit.returned`)."""
    goes_on: bool = False
    """Whether the regression found that going on after an answer is worth it."""


class Workbench:
    """Features fitted on the training queries, and what follows from them."""

    def __init__(
        self, config: TrainingConfig, train: Outcomes, unit: float, filler: Filler | None
    ) -> None:
        """Fits what the policy sees of a context. No outcome is looked at.

        Args:
            config: the recipe.
            train: all N training queries. With a filler, their direct answers.
            unit: dollars in one cost unit.
            filler: makes what episodes visit; none: all is recorded.
        """
        self._config, self._unit, self._filler = config, unit, filler
        self._tasks = np.unique(train.tasks)
        hops = train.hops if filler is None else filler.pool.hops
        self.stages = Stages(len(train.models), hops, config.moves)
        """Where decisions are made."""
        self._model_threads = present()
        lambdas = np.linspace(0, config.lambda_max, GRID)
        sampled = config.alpha == "sampled"
        self.alphas = (
            tuple(float(each) for each in lambdas / (1 - lambdas))
            if sampled
            else (config.alpha_range[0],)
        )
        """Alphas that stand for all that the policy is trained for."""
        with threads(1):
            queries = train.embeddings[:, 0]
            if filler is None:
                later = train.embeddings[:, 1:].reshape(-1, queries.shape[1])
            elif config.projection is None:
                later = queries
            else:
                later = sampled_embeddings(filler, train, config.seed, self._model_threads)
                later = later[len(queries) :]
            if config.policy == "mlp":
                self._seen: Features | Projection = Projection.fit(
                    np.concatenate([queries, later]), config.projection
                )
            else:
                answers = None
                if train.signals is not None:
                    direct = train.signals[:, 0].reshape(-1, train.signals.shape[-1])
                    answers = AnswerScale.fit(direct, self.stages.most_answers)
                self._seen = Features.fit(
                    queries,
                    later,
                    train.tasks,
                    config.projection,
                    config.centres,
                    config.seed,
                    answers,
                )

    def contexts(self, part: Outcomes) -> Contexts:
        """The contexts of some of the queries, as the policy sees them."""
        with threads(1):
            if self._filler is None:
                return recorded_contexts(part, self._state, self._unit, self.stages)
            return FilledContexts(self._filler, part, self._state, self._unit, self._model_threads)

    def _state(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        answers: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        if isinstance(self._seen, Features):
            return self._seen(query, context, answers)
        return self._seen(context)

    def start(self, part: Outcomes) -> Start:
        """What the learner begins with, fitted to some of the queries."""
        if not isinstance(self._seen, Features):
            return Start(self._seen)
        tau = np.asarray(self._config.temperature, np.float32)
        nothing = self._config.learner == "ppo" and self._config.start == "nothing"
        whole = (len(self.stages), 2 * self.stages.models + 1, self._seen.size)
        zeros = np.zeros(whole, np.float32)
        if nothing and not self.stages.answered:
            return Start(Heads(self._seen, zeros, zeros, tau))
        filled = self._filler is not None
        stages = Stages(self.stages.models, 1, "direct") if filled else self.stages
        recorded, fit = self._regress(self._seen, part, stages)
        quality, cost = (zeros, zeros) if nothing else (fit.quality, fit.cost)
        goes_on = bool(stages.answered) and not nothing
        limited = stages, recorded, fit
        if goes_on:
            # The best of several uncertain gains looks better than it is: routes go on after an
            # answer only if that was better on queries that it was fitted without.
            ending = part if part.analysed and part.hops > 1 else part.first_hop()
            moves: Moves = "early_exit" if stages.moves == "cascade" else "direct"
            ends = Stages(stages.models, ending.hops, moves)
            recorded, first = self._regress(self._seen, ending, ends)
            goes_on = surely_better(fit.played, first.played)
            if not goes_on:
                quality, cost = _first_accepted(fit, first, stages)
                limited = ends, recorded, first
        if filled and not nothing:
            quality, cost = _as_if_direct(quality, cost, len(self.stages))
        heads = Heads(self._seen, quality, cost, tau, fit.belief)
        if not nothing and not filled:
            heads = self._limited(heads, *limited)
        return Start(heads, fit.returned, goes_on)

    def _limited(self, heads: Heads, stages: Stages, contexts: RecordedContexts, fit: Fit) -> Heads:
        """The same heads, with what limits of the rest of a route change.

        Args:
            heads: of the moves.
            stages: on which a route goes on by these heads: of the moves, or of those without more
                after an answer.
            contexts: of these stages.
            fit: to them.
        """
        rests, every = Rests(stages), Rests(self.stages)
        if not (rests.calls and every.calls and every.limits):
            return heads
        with threads(1):
            found = regress_rests(fit, contexts, rests, self.alphas)
        quality, cost = (placed(each, rests, every) for each in found)
        return replace(heads, rest_quality=quality, rest_cost=cost)

    def _regress(
        self, features: Features, part: Outcomes, stages: Stages
    ) -> tuple[RecordedContexts, Fit]:
        with threads(1):
            recorded = recorded_contexts(part, self._state, self._unit, stages)
            parts = parts_of(part.folds, self._config.seed)
            # Numbered among all tasks: of one or the other the part may have no query.
            tasks = np.searchsorted(self._tasks, part.tasks)
            fit = regress(features, recorded, tasks, stages.moves, self.alphas, parts)
            return recorded, fit


def _first_accepted(
    fit: Fit, first: Fit, stages: Stages
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Heads by which a route ends with its first answer.

    Args:
        fit: of routes that may go on.
        first: of those that do not.
        stages: of the former.
    """
    quality, cost = fit.quality.copy(), fit.cost.copy()
    quality[: stages.before], cost[: stages.before] = first.quality, first.cost
    answered = slice(stages.before, None)
    quality[answered, SOLVE:-1:2] = quality[answered, ACCEPT:]
    # As if another answer took a whole point and a cost unit, whatever the query: a line through
    # costs may say less than nothing of some, which would pay at a large alpha.
    quality[answered, SOLVE:-1:2, 0] -= 1.0
    cost[answered] = 0.0
    cost[answered, SOLVE:-1:2, 0] = 1.0
    return quality, cost


def _as_if_direct(
    quality: NDArray[np.float32], cost: NDArray[np.float32], stages: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Heads of all stages where only direct answers are known.

    An answer is taken to be as good after an analysis as before; an analysis to cost what an answer
    does, and to be followed by any of them.
    """
    quality, cost = (np.repeat(each, stages, axis=0) for each in (quality, cost))
    answers, analyses = slice(SOLVE, -1, 2), slice(ANALYZE, -1, 2)
    quality[:, analyses] = quality[:, answers].mean(axis=1, keepdims=True)
    cost[:, analyses] = cost[:, answers] + cost[:, answers].mean(axis=1, keepdims=True)
    return quality, cost

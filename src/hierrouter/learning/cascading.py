"""Contexts of routes that may go on after an answer: those with answers in hand stand beside them.

An answer is not shown to the models that are asked after it; so every one of them is recorded, and
what differs between these contexts is what has been paid and what the answers in hand show.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.answers import shown
from hierrouter.learning.contexts import RecordedContexts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hierrouter.learning.stages import Stages
    from hierrouter.routes.outcomes import Outcomes


class CascadeContexts(RecordedContexts):
    """Recorded contexts, and behind them those with each set of answers in hand."""

    def __init__(
        self,
        outcomes: Outcomes,
        state_of: Callable[..., NDArray[np.float32]],
        cost_unit_usd: float,
        stages: Stages,
    ) -> None:
        """Lays out dense outcomes.

        Args:
            outcomes: N queries with C contexts each, whose answers show something (`signals`).
            state_of: from embeddings of queries and of contexts, and from what answers show, to
                states (`Policy.state`).
            cost_unit_usd: dollars in one cost unit.
            stages: of the moves.
        """
        super().__init__(outcomes, outcomes.states(state_of), cost_unit_usd)
        assert outcomes.signals is not None
        assert outcomes.said is not None
        queries, first = len(outcomes), len(self.query)
        roots = self.roots
        each = np.arange(queries)
        before, hands = [np.arange(first)], [np.zeros((first, self.models), dtype=np.bool_)]
        states, numbers = [self.state], [self.stage]
        place: dict[tuple[int, tuple[int, ...]], int] = {}
        for context, path in enumerate(outcomes.contexts):
            for count in range(1, min(stages.most_answers, stages.hops - len(path)) + 1):
                for who in itertools.combinations(range(self.models), count):
                    place[context, who] = first + len(place) * queries
                    before.append(roots + context)
                    hand = np.zeros((queries, self.models), dtype=np.bool_)
                    hand[:, who] = True
                    hands.append(hand)
                    numbers.append(np.full(queries, stages.of(path, who)))
                    answers = shown(
                        outcomes.signals[:, context, list(who)],
                        outcomes.said[:, context, list(who)],
                        stages.most_answers,
                    )
                    vectors = outcomes.embeddings[:, 0], outcomes.embeddings[:, context]
                    states.append(state_of(*vectors, answers))
        row = np.concatenate(before)
        self.hand = np.concatenate(hands)
        self.stage = np.concatenate(numbers)
        self.depth = stages.calls[self.stage]
        self.state = np.concatenate(states)
        self.query = self.query[row]
        price, quality = self.price[row], self.quality[row]
        self.spent = self.spent[row] + np.where(self.hand, price, 0).sum(axis=1)
        self.price, self.quality = price, quality
        self.child = np.where(self.hand.any(axis=1, keepdims=True), -1, self.child[row])
        if self._masks is not None:
            self._masks = self._masks[row]
        self.after = np.full((len(row), self.models), -1)
        for context, path in enumerate(outcomes.contexts):
            if len(path) < stages.hops:
                for model in range(self.models):
                    self.after[roots + context, model] = place[context, (model,)] + each
        for (context, who), start in place.items():
            for model in range(self.models):
                onward = place.get((context, tuple(sorted({*who, model}))))
                if model not in who and onward is not None:
                    self.after[start + each, model] = onward + each
        # Whose answer is returned, until it is learned who is to be believed: the first.
        self.returned = np.where(self.hand.any(axis=1), self.hand.argmax(axis=1), -1)


def recorded_contexts(
    outcomes: Outcomes,
    state_of: Callable[..., NDArray[np.float32]],
    cost_unit_usd: float,
    stages: Stages,
) -> RecordedContexts:
    """The contexts that routes of these stages go through.

    Args:
        outcomes: N queries.
        state_of: `Policy.state`.
        cost_unit_usd: dollars in one cost unit.
        stages: of the moves.
    """
    if stages.answered:
        return CascadeContexts(outcomes, state_of, cost_unit_usd, stages)
    return RecordedContexts(outcomes, outcomes.states(state_of), cost_unit_usd)

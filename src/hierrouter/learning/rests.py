"""What a request leaves of the rest of a route, and what calls are worth then.

The value of an analysis, and of an answer after which a route may go on, is that of the rest of the
route. Where a request leaves out models, or allows fewer hops or less money, the rest is another
one; its value is fitted for some limits (`Rests.limits`) and told of the others from these.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hierrouter.learning.actions import ACCEPT, ANALYZE, SOLVE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.learning.heads import Heads
    from hierrouter.learning.stages import Stages

FEW = 4
"""Models of which every subset is a limit of its own; of more: each alone, and all without one."""
MOST = 2500
"""Calls times limits, at most: each has a row of numbers for quality and one for cost."""


class Limit(NamedTuple):
    """Who may be asked in the rest of a route, and how many calls the whole route may make."""

    models: frozenset[int]
    hops: int


class Left(NamedTuple):
    """What is left of the rest of the route in each of N contexts."""

    models: NDArray[np.bool_]
    """N x A x M, or N x 1 x M where it does not depend on the action: who may be asked later."""
    hops: NDArray[np.int64]
    """N: the most calls of the whole route."""

    @classmethod
    def of(cls, allowed: NDArray[np.bool_], possible: NDArray[np.bool_], hops: int) -> Left:
        """What a mask tells: a model that may do nothing now is taken to be gone.

        Args:
            allowed: N x A flags, of what the stage allows.
            possible: N x A flags, of what the mask leaves of that.
            hops: L.
        """
        shape = len(allowed), -1, 2  # model by model, its two roles
        might = np.asarray(allowed[:, :ACCEPT].reshape(shape).any(axis=2))
        may = np.asarray(possible[:, :ACCEPT].reshape(shape).any(axis=2))
        return cls((may | ~might)[:, None], np.full(len(allowed), hops))


@dataclass(frozen=True)
class Rests:
    """The calls after which a route goes on, P of them, and the K limits that values are of."""

    stages: Stages

    @cached_property
    def calls(self) -> tuple[tuple[int, int], ...]:
        """P pairs of stage and action."""
        every = tuple(self._calls())
        if len(every) * len(self.limits) <= MOST:
            return every
        first = tuple(each for each in every if not each[0])
        return first if len(first) * len(self.limits) <= MOST else ()

    def _calls(self) -> list[tuple[int, int]]:
        stages = self.stages
        found = []
        for stage, allowed in enumerate(stages.allowed):
            for action in map(int, np.flatnonzero(allowed[:ACCEPT])):
                ends = action % 2 == SOLVE and (
                    not stages.most_answers or stages.calls[stage] + 1 >= stages.hops
                )
                if not ends:
                    found.append((stage, action))
        return found

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """K limits, none of which leaves everything."""
        stages = self.stages
        everyone = frozenset(range(stages.models))
        sizes = range(stages.models) if stages.models <= FEW else (0, 1, stages.models - 1)
        found = [
            Limit(frozenset(who), stages.hops)
            for size in sizes
            for who in itertools.combinations(range(stages.models), size)
            if size or stages.most_answers
        ]
        if stages.moves != "paper":
            # Two hops at least: with one, nobody is asked later.
            found += [Limit(everyone, hops) for hops in range(2, stages.hops)]
        return tuple(found)

    def at(self, stage: int) -> tuple[list[int], list[int]]:
        """Which of the P calls are of a stage, and their actions."""
        numbers = self._places.get(stage, [])
        return numbers, [self.calls[number][1] for number in numbers]

    @cached_property
    def _places(self) -> dict[int, list[int]]:
        places: dict[int, list[int]] = {}
        for number, (stage, _) in enumerate(self.calls):
            places.setdefault(stage, []).append(number)
        return places

    def allowed(self, limit: Limit, stage: int) -> NDArray[np.bool_]:
        """Which actions of a stage, reached in the rest of a route, a limit leaves; A flags."""
        flags: NDArray[np.bool_] = self.stages.allowed[stage].copy()
        for model in set(range(self.stages.models)) - limit.models:
            flags[[2 * model + ANALYZE, 2 * model + SOLVE]] = False
        if self.stages.moves != "paper":
            made = self.stages.calls[stage]
            flags[ANALYZE:ACCEPT:2] &= made < limit.hops - 1
            flags[SOLVE:ACCEPT:2] &= made < limit.hops
        return flags

    def changes(
        self,
        heads: Heads,
        state: NDArray[np.float32],
        stage: NDArray[np.int64],
        alpha: NDArray[np.float64],
        left: Left,
    ) -> NDArray[np.float32]:
        """By how much what is left changes the value of each action.

        Args:
            heads: values of calls whose rest is not limited, and what limits change.
            state: N x F.
            stage: N stages.
            alpha: N values of alpha.
            left: in each of the N contexts.

        Returns:
            N x A differences of reward.
        """
        stages = self.stages
        found = np.zeros((len(state), 2 * stages.models + 1), np.float32)
        if not len(heads.rest_quality):
            return found
        everyone, limited = left.models.all(axis=(1, 2)), left.hops < stages.hops
        for each in np.unique(stage[~everyone | limited]):
            numbers, actions = self.at(int(each))
            if not numbers:
                continue
            rows = np.flatnonzero((stage == each) & (~everyone | limited))
            quality = heads.rest_quality[:, numbers] @ state[rows].T
            cost = heads.rest_cost[:, numbers] @ state[rows].T
            reward = quality - alpha[rows] * cost  # K x calls x rows
            made, hand = int(stages.calls[each]), self._hand(int(each))
            for number, row in enumerate(rows):
                hops = min(int(left.hops[row]), stages.hops)
                for column, action in enumerate(actions):
                    busy = hand | {action // 2} if action % 2 == SOLVE else hand
                    who = left.models[row, action if left.models.shape[1] > 1 else 0]
                    later = set(map(int, np.flatnonzero(who))) if made + 1 < hops else set()
                    limit = Limit(frozenset(later - busy), hops)
                    found[row, action] = _change(self, busy, limit, reward[:, column, number])
        return found

    def _hand(self, stage: int) -> frozenset[int]:
        """Whose answers are in hand: they are not asked again."""
        stages = self.stages
        if stage < stages.before:
            return frozenset()
        return frozenset(stages.answered[stage - stages.before][1])


def _change(
    rests: Rests, busy: frozenset[int], limit: Limit, reward: NDArray[np.floating]
) -> float:
    """The change of one call's value under any limit, from those under the K."""
    alone, more, share = _nearest(rests, busy, limit)
    if len(more) == 1 and more == alone:
        return float(reward[more[0]])
    above = min(0.0, *map(float, reward[list(more)])) if more else 0.0
    below = float(reward[list(alone)].max()) if alone else above
    return (1 - share) * above + share * min(above, below)


@lru_cache(maxsize=4096)
def _nearest(
    rests: Rests, busy: frozenset[int], limit: Limit
) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Limits that leave less and that leave more, and how far it is to the former.

    The rest is worth no more than under any limit that leaves more. With the best of those who may
    be asked alone it is worth less than with all of them; the fewer are left, the closer to that.

    Args:
        rests: the K limits.
        busy: who cannot be asked in the rest, whatever a limit leaves.
        limit: that is wanted, without these.
    """
    who, hops = limit
    free = rests.stages.models - len(busy)
    gone = free - len(who)
    if not gone and hops >= rests.stages.hops:
        return (), (), 0.0
    known = [(others - busy, most) for others, most in rests.limits]
    for number, (others, most) in enumerate(known):
        if others == who and (most == hops or not who):
            return (number,), (number,), 1.0
    more = tuple(
        number for number, (others, most) in enumerate(known) if who <= others and hops <= most
    )
    # Alone they are known with all hops; with fewer they are worth no more.
    alone = tuple(
        number for number, (others, _) in enumerate(known) if len(others) == 1 and others <= who
    )
    if not gone or not alone:
        return alone, more, 0.0
    return alone, more, (gone - 1) / (free - 2) if free > 2 else 1.0


def placed(weights: NDArray[np.float32], rests: Rests, every: Rests) -> NDArray[np.float32]:
    """K x P x F changes of some calls and limits among those of all; the others change nothing."""
    found = np.zeros((len(every.limits), len(every.calls), weights.shape[2]), np.float32)
    limits = {limit: number for number, limit in enumerate(every.limits)}
    calls = {call: number for number, call in enumerate(every.calls)}
    for number, limit in enumerate(rests.limits):
        for place, call in enumerate(rests.calls):
            if limit in limits and call in calls:
                found[limits[limit], calls[call]] = weights[number, place]
    return found

"""Where on a route a decision is made, as a number.

Stage 0 is the bare query. After that it is how many models have analysed and which was the last:
what that model is good at, and what its analysis is worth to the others, is learned for each. Where
a route may go on after an answer, each set of answers in hand is a further stage.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import TYPE_CHECKING, overload

import numpy as np

from hierrouter.learning.actions import ACCEPT, SOLVE, allowed_actions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Moves


MOST = 1000
"""Stages of a cascade, at most: each has a row of numbers for every action."""


def too_many_stages(models: int, hops: int, moves: Moves) -> str | None:
    """Why sets of answers are too many to tell apart; none where they are not, or are not told."""
    if moves not in ("cascade", "escalate"):
        return None
    count = 1 if moves == "escalate" else stage_count(models, hops)
    for depth in range(hops if moves == "cascade" else 1):
        hands = sum(comb(models, answers) for answers in range(1, hops - depth + 1))
        count += hands * (models if depth else 1)
    if count <= MOST:
        return None
    return (
        f"moves {moves} with {models} models and {hops} hops tell {count} stages apart, at most "
        f"{MOST} can be; take fewer hops, fewer models, or other moves"
    )


def stage_count(models: int, hops: int) -> int:
    """How many stages there are before any answer, for M models and L hops: 1 + (L - 1) M."""
    return 1 + (hops - 1) * models


def stage_of(path: Sequence[int], models: int) -> int:
    """The stage after the analyses of `path`, model indices in their order, before any answer."""
    return 1 + (len(path) - 1) * models + path[-1] if path else 0


@overload
def depth_of(stage: int, models: int) -> int: ...
@overload
def depth_of(stage: NDArray[np.int64], models: int) -> NDArray[np.int64]: ...
def depth_of(stage: int | NDArray[np.int64], models: int) -> int | NDArray[np.int64]:
    """How many analyses stand before a decision at this stage, before any answer."""
    return (stage + models - 1) // models


@dataclass(frozen=True)
class Stages:
    """All S stages of the routes that some moves allow."""

    models: int
    """M."""
    hops: int
    """L."""
    moves: Moves

    @property
    def before(self) -> int:
        """How many stages there are before any answer; they are the first."""
        return 1 if self.moves == "escalate" else stage_count(self.models, self.hops)

    @property
    def most_answers(self) -> int:
        """J, the most answers in hand; 0 where an answer ends the route."""
        return min(self.hops, self.models) if self.moves in ("cascade", "escalate") else 0

    @cached_property
    def answered(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The stages with answers in hand: the stage before them, and who answered, ascending."""
        return tuple(
            (stage, who)
            for stage in range(self.before)
            for count in range(1, min(self.most_answers, self.hops - self.depth(stage)) + 1)
            for who in itertools.combinations(range(self.models), count)
        )

    def __len__(self) -> int:
        return self.before + len(self.answered)

    def depth(self, stage: int) -> int:
        """How many analyses stand before a decision at this stage."""
        if stage >= self.before:
            stage = self.answered[stage - self.before][0]
        return depth_of(stage, self.models)

    def of(self, path: Sequence[int], who: Sequence[int] = ()) -> int:
        """The stage after the analyses of `path` and the answers of the models `who`."""
        stage = stage_of(path, self.models)
        return self._numbers[stage, tuple(sorted(who))] if who else stage

    @cached_property
    def _numbers(self) -> dict[tuple[int, tuple[int, ...]], int]:
        return {each: self.before + number for number, each in enumerate(self.answered)}

    @cached_property
    def calls(self) -> NDArray[np.int64]:
        """S numbers of calls made so far."""
        first = [self.depth(stage) for stage in range(self.before)]
        return np.array(first + [self.depth(stage) + len(who) for stage, who in self.answered])

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """S x (2 M + 1) flags: which actions each stage allows.

        Once there is an answer, it may be accepted, or a model that gave none be asked.
        """
        by_hop = allowed_actions(self.models, self.hops, self.moves)
        flags = by_hop[self.calls[: self.before]]
        flags[:, ACCEPT] = False
        later = np.zeros((len(self.answered), flags.shape[1]), dtype=np.bool_)
        later[:, ACCEPT] = True
        for row, (_, who) in enumerate(self.answered):
            if self.calls[self.before + row] < self.hops:
                others = np.setdiff1d(np.arange(self.models), who)
                later[row, 2 * others + SOLVE] = True
        return np.concatenate([flags, later])

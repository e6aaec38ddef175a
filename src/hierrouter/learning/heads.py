"""The decomposed policy: what each call would give and take, and the choice that follows.

Quality and cost of a call are linear in what is seen of the context, q(s, m, role) =
u(s) . v(m, role) and c likewise, each stage of the route with its own v. The logit of a call is
(q - alpha * c) / tau. So one policy serves every alpha, any subset of the models, and any limit of
cost or hops: none of these is among its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.features import Features
from hierrouter.learning.rests import Rests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hierrouter.learning.stages import Stages


@dataclass(frozen=True)
class Heads:
    """Features and the two heads, for S stages, A = 2 M + 1 actions and F features.

    Of an `analyze`, quality and cost are those of the rest of the route, played on well with all
    models and hops; what it changes that a request leaves fewer is told apart (`rests.Rests`).
    Costs are in cost units and of what is still to be spent; what is spent already changes no
    choice.
    """

    features: Features
    quality: NDArray[np.float32]
    """S x A x F."""
    cost: NDArray[np.float32]
    """S x A x F."""
    tau: NDArray[np.float32]
    """One number: how much better a call must be to be clearly chosen."""
    belief: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    """S' x M x F, how good each answer in hand is, at the last S' stages; S' is 0 where an answer
    ends the route."""
    rest_quality: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.float32)
    )
    """K x P x F, what K limits of the rest of a route change at the quality of P calls; K is 0
    where that is not known."""
    rest_cost: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    """K x P x F, and at the cost."""

    @property
    def width(self) -> int:
        """D, of the embeddings that it reads."""
        return self.features.width

    def state(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        answers: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """... x F numbers that it sees of a context, and of what answers in hand show."""
        return self.features(query, context, answers)

    def believed(self, state: NDArray[np.float32], stage: NDArray[np.int64]) -> NDArray[np.float32]:
        """How good each answer is believed to be, N x M; of no meaning where there is none.

        Args:
            state: N x F, from `state`.
            stage: N stages with answers in hand.
        """
        before = len(self.quality) - len(self.belief)
        found = np.empty((len(state), self.belief.shape[1]), np.float32)
        for each in np.unique(stage):
            rows = stage == each
            found[rows] = state[rows] @ self.belief[each - before].T
        return found

    def predicted(
        self, state: NDArray[np.float32], stage: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What every call would give and still cost.

        Args:
            state: N x F, from `state`.
            stage: N stages (`stages.stage_of`).

        Returns:
            Qualities and relative costs, N x A each.
        """
        actions = self.quality.shape[1]
        quality = np.empty((len(state), actions), np.float32)
        cost = np.empty_like(quality)
        for each in np.unique(stage):
            rows = stage == each
            quality[rows] = state[rows] @ self.quality[each].T
            cost[rows] = state[rows] @ self.cost[each].T
        return quality, cost

    def logits(
        self,
        state: NDArray[np.float32],
        spent: NDArray[np.float64],
        alpha: NDArray[np.float64],
        stage: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Action logits.

        Args:
            state: N x F, from `state`.
            spent: N relative costs so far; not looked at.
            alpha: N values.
            stage: N stages.

        Returns:
            N x A.
        """
        quality, cost = self.predicted(state, stage)
        logits = (quality - alpha[:, None] * cost) / self.tau
        return np.asarray(logits, dtype=np.float32)

    def stepped(self, start: Heads, end: Heads) -> Heads:
        """These heads, moved by what lies between two others with the same features."""
        return replace(
            self,
            quality=self.quality + (end.quality - start.quality),
            cost=self.cost + (end.cost - start.cost),
        )

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name, for a safetensors file."""
        heads = {"quality": self.quality, "cost": self.cost, "tau": self.tau}
        if len(self.belief):
            heads["belief"] = self.belief
        if len(self.rest_quality):
            heads |= {"rest_quality": self.rest_quality, "rest_cost": self.rest_cost}
        return self.features.arrays() | heads

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[np.float32]]) -> Heads:
        """The inverse of `arrays`.

        Raises:
            KeyError: an array is missing.
        """
        features = Features.from_arrays(named)
        heads = cls(features, named["quality"], named["cost"], named["tau"])
        if "rest_quality" in named or "rest_cost" in named:
            quality, cost = named["rest_quality"], named["rest_cost"]
            heads = replace(heads, rest_quality=quality, rest_cost=cost)
        return replace(heads, belief=named["belief"]) if "belief" in named else heads

    def shapes(self, stages: Stages, embedding: int) -> dict[str, tuple[int, ...]]:
        """The shapes that its arrays must have in a router with these stages."""
        whole = (len(stages), 2 * stages.models + 1, self.features.size)
        shapes = self.features.shapes(embedding, stages.most_answers)
        shapes |= {"quality": whole, "cost": whole, "tau": ()}
        if stages.answered:
            shapes["belief"] = (len(stages.answered), stages.models, self.features.size)
        if len(self.rest_quality):
            rests = Rests(stages)
            rest = (len(rests.limits), len(rests.calls), self.features.size)
            shapes |= {"rest_quality": rest, "rest_cost": rest}
        return shapes

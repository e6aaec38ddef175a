"""What a router needs of a policy, and which policies there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from hierrouter.learning.heads import Heads
from hierrouter.learning.mlp import Activation, Mlp

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from hierrouter.learning.stages import Stages

PolicyName = Literal["decomposed", "mlp"]


class Policy(Protocol):
    """Scores the 2 M + 1 actions in a context."""

    @property
    def width(self) -> int:
        """D, of the embeddings that it reads."""
        ...

    def state(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        answers: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """... x K numbers that it sees, from ... x D embeddings of a query and of its context.

        `answers`, where some are in hand, is what they show (`answers.shown`), ... x W.
        """
        ...

    def logits(
        self,
        state: NDArray[np.float32],
        spent: NDArray[np.float64],
        alpha: NDArray[np.float64],
        stage: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """N x (2 M + 1) logits, of N states, relative costs so far, alphas and stages."""
        ...

    def believed(self, state: NDArray[np.float32], stage: NDArray[np.int64]) -> NDArray[np.float32]:
        """N x M: how good each answer in hand is believed to be, of N states and stages."""
        ...

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name."""
        ...

    def shapes(self, stages: Stages, embedding: int) -> dict[str, tuple[int, ...]]:
        """The shapes that they must have in a router with these stages."""
        ...


def policy_from(
    name: PolicyName, named: Mapping[str, NDArray[np.float32]], activation: Activation
) -> Policy:
    """A policy from its numbers.

    Args:
        name: which policy.
        named: as its `arrays` gave them.
        activation: of an MLP.

    Raises:
        KeyError: an array is missing.
    """
    return Heads.from_arrays(named) if name == "decomposed" else Mlp.from_arrays(named, activation)

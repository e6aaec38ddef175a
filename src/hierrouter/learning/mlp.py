"""The paper's policy (section 3.2) as plain arrays: a shared two-layer MLP with action logits.

It sees the embedding of the context, the cost so far and the hop. Alpha is not among its inputs:
it is trained for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hierrouter.learning.projection import Projection
from hierrouter.learning.stages import depth_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hierrouter.learning.stages import Stages

Activation = Literal["tanh", "relu"]
WEIGHTS = (
    "stage",
    "first_weight",
    "first_bias",
    "second_weight",
    "second_bias",
    "action_weight",
    "action_bias",
)


@dataclass(frozen=True)
class Mlp:
    """Projection, stage embedding, two-layer MLP and action logits; shapes as in `SharedTrunk`."""

    projection: Projection
    activation: Activation
    stage: NDArray[np.float32]
    """L x E."""
    first_weight: NDArray[np.float32]
    """H1 x (K + 1 + E)."""
    first_bias: NDArray[np.float32]
    second_weight: NDArray[np.float32]
    """H2 x H1."""
    second_bias: NDArray[np.float32]
    action_weight: NDArray[np.float32]
    """(2 M + 1) x H2."""
    action_bias: NDArray[np.float32]

    @classmethod
    def from_policy(cls, policy: Any, projection: Projection, activation: Activation) -> Mlp:
        """Copies the weights of a MaskablePPO policy whose trunk is a `SharedTrunk`."""
        trunk, head = policy.features_extractor, policy.action_net
        tensors = (
            trunk.stage.weight,
            trunk.first.weight,
            trunk.first.bias,
            trunk.second.weight,
            trunk.second.bias,
            head.weight,
            head.bias,
        )
        copied = (tensor.detach().cpu().numpy().copy() for tensor in tensors)
        return cls(projection, activation, *copied)

    @property
    def width(self) -> int:
        """D, of the embeddings that it reads."""
        return len(self.projection.mean)

    def state(
        self,
        query: NDArray[np.float32],
        context: NDArray[np.float32],
        answers: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """... x K numbers that it sees of a context: its embedding, projected."""
        return self.projection(context)

    def logits(
        self,
        state: NDArray[np.float32],
        spent: NDArray[np.float64],
        alpha: NDArray[np.float64],
        stage: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Action logits.

        Args:
            state: N x K, from `state`.
            spent: N relative costs so far.
            alpha: N values; not looked at.
            stage: N stages (`stages.stage_of`); of each the number of calls so far is seen.

        Returns:
            N x (2 M + 1).
        """
        models = (len(self.action_bias) - 1) // 2
        hop = self.stage[depth_of(stage, models)]
        inputs = np.concatenate([state, spent.astype(np.float32)[:, None], hop], axis=1)
        first = _activate(inputs @ self.first_weight.T + self.first_bias, self.activation)
        second = _activate(first @ self.second_weight.T + self.second_bias, self.activation)
        return np.asarray(second @ self.action_weight.T + self.action_bias, dtype=np.float32)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name, for a safetensors file."""
        return self.projection.arrays("projection") | {
            name: getattr(self, name) for name in WEIGHTS
        }

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[np.float32]], activation: Activation) -> Mlp:
        """The inverse of `arrays`.

        Raises:
            KeyError: an array is missing.
        """
        projection = Projection.from_arrays(named, "projection")
        return cls(projection, activation, *(named[name] for name in WEIGHTS))

    def believed(self, state: NDArray[np.float32], stage: NDArray[np.int64]) -> NDArray[np.float32]:
        """Refused: of answers it knows nothing; `training.moves` end with the first.

        Raises:
            ValueError: always.
        """
        raise ValueError("an MLP does not look at answers")

    def shapes(self, stages: Stages, embedding: int) -> dict[str, tuple[int, ...]]:
        """The shapes that its arrays must have in a router with these stages."""
        state, stage = len(self.projection.components), self.stage.shape[-1]
        first, second = self.first_bias.size, self.second_bias.size
        return self.projection.shapes("projection", embedding) | {
            "stage": (stages.hops, stage),
            "first_weight": (first, state + 1 + stage),
            "first_bias": (first,),
            "second_weight": (second, first),
            "second_bias": (second,),
            "action_weight": (2 * stages.models + 1, second),
            "action_bias": (2 * stages.models + 1,),
        }


def _activate(values: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    return np.tanh(values) if activation == "tanh" else np.maximum(values, 0)

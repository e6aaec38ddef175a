"""The trained policy as plain arrays: what a router is once SB3 and torch are gone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def lambda_input(lam: Any) -> Any:
    """Lambda at the scale of the network's other inputs: alpha 0 to 1 becomes -1 to 1.

    Takes and returns numpy or torch numbers. As it is, lambda spans half a unit around .25, and
    the policy is slow to heed it.
    """
    return 4 * lam - 1


@dataclass(frozen=True)
class Projection:
    """How an embedding becomes the policy's input: centred, projected, brought to one scale.

    Dividing each dimension by its own deviation would blow up the encoder's dead dimensions, so
    one scale serves all.
    """

    mean: NDArray[np.float32]
    """D."""
    components: NDArray[np.float32]
    """K x D."""
    scale: NDArray[np.float32]
    """One number: the root mean square of the projected training contexts."""

    @cached_property
    def _changes_nothing(self) -> bool:
        # With 768 dimensions the identity costs more than a gradient step.
        rows, columns = self.components.shape
        return rows == columns and bool(
            (self.components == np.eye(rows)).all() and not self.mean.any() and self.scale == 1
        )

    @classmethod
    def fit(cls, embeddings: NDArray[np.float32], width: int | None) -> Projection:
        """Fits principal components.

        Args:
            embeddings: N x D training contexts.
            width: K, at most min(N, D) are taken; none: the embedding as it is.
        """
        dimensions = embeddings.shape[1]
        if width is None:
            return cls(
                np.zeros(dimensions, np.float32),
                np.eye(dimensions, dtype=np.float32),
                np.ones((), np.float32),
            )
        from sklearn.decomposition import PCA

        kept = min(width, *embeddings.shape)
        exact = embeddings.astype(np.float64)
        with np.errstate(invalid="ignore"):  # shares of no variance, which nobody reads
            pca = PCA(n_components=kept, random_state=0).fit(exact)
        # Contexts that are all the same have no spread; they must not be divided by nearly 0.
        scale = float(np.sqrt(np.square(pca.transform(exact)).mean()))
        return cls(
            pca.mean_.astype(np.float32),
            pca.components_.astype(np.float32),
            np.asarray(scale if scale > 1e-6 else 1.0, np.float32),
        )

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps ... x D embeddings to ... x K inputs."""
        if self._changes_nothing:
            return np.asarray(embeddings, dtype=np.float32)
        projected = (embeddings - self.mean) @ self.components.T / self.scale
        return np.asarray(projected, dtype=np.float32)


@dataclass(frozen=True)
class Network:
    """Stage embedding, two-layer MLP and action logits; shapes as in `SharedTrunk`."""

    stage: NDArray[np.float32]
    """L x S."""
    first_weight: NDArray[np.float32]
    """H1 x (K + 2 + S)."""
    first_bias: NDArray[np.float32]
    second_weight: NDArray[np.float32]
    """H2 x H1."""
    second_bias: NDArray[np.float32]
    action_weight: NDArray[np.float32]
    """(2 M + 1) x H2."""
    action_bias: NDArray[np.float32]

    @classmethod
    def from_policy(cls, policy: Any) -> Network:
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
        return cls(*(tensor.detach().cpu().numpy().copy() for tensor in tensors))

    def logits(
        self,
        state: NDArray[np.float32],
        cost: NDArray[np.float32],
        lam: NDArray[np.float32],
        hop: int,
        activation: str,
    ) -> NDArray[np.float32]:
        """Action logits.

        Args:
            state: N x K projected embeddings.
            cost: N relative costs so far.
            lam: N values of alpha / (1 + alpha).
            hop: the hop index, the same for all.
            activation: `tanh` or `relu`.

        Returns:
            N x (2 M + 1).
        """
        stage = np.broadcast_to(self.stage[hop], (len(state), self.stage.shape[1]))
        inputs = np.concatenate([state, cost[:, None], lambda_input(lam)[:, None], stage], axis=1)
        first = _activate(inputs @ self.first_weight.T + self.first_bias, activation)
        second = _activate(first @ self.second_weight.T + self.second_bias, activation)
        return np.asarray(second @ self.action_weight.T + self.action_bias, dtype=np.float32)


def _activate(values: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    return np.tanh(values) if activation == "tanh" else np.maximum(values, 0)


def arrays(projection: Projection, network: Network) -> dict[str, NDArray[np.float32]]:
    """Both as named arrays, for a safetensors file."""
    named = {f"projection.{f.name}": getattr(projection, f.name) for f in fields(projection)}
    named |= {f"network.{f.name}": getattr(network, f.name) for f in fields(network)}
    # safetensors writes the memory as it lies. (`ascontiguousarray` makes a scalar 1-D.)
    return {name: np.array(value, order="C") for name, value in named.items()}


def from_arrays(named: Mapping[str, NDArray[np.float32]]) -> tuple[Projection, Network]:
    """The inverse of `arrays`.

    Raises:
        KeyError: an array is missing.
    """
    return (
        Projection(**{f.name: named[f"projection.{f.name}"] for f in fields(Projection)}),
        Network(**{f.name: named[f"network.{f.name}"] for f in fields(Network)}),
    )

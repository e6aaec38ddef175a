"""How an embedding is made smaller before a policy reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


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

    def arrays(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name."""
        return {f"{prefix}.{each.name}": getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[np.float32]], prefix: str) -> Projection:
        """The inverse of `arrays`.

        Raises:
            KeyError: an array is missing.
        """
        return cls(*(named[f"{prefix}.{each.name}"] for each in fields(cls)))

    def shapes(self, prefix: str, embedding: int) -> dict[str, tuple[int, ...]]:
        """The shapes that its arrays must have for embeddings of this width."""
        kept = len(self.components) if self.components.ndim else 0
        return {
            f"{prefix}.mean": (embedding,),
            f"{prefix}.components": (kept, embedding),
            f"{prefix}.scale": (),
        }

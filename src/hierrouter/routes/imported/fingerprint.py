"""Telling vectors at hand from others of the same width, whichever file they came in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.files import digest_of
from hierrouter.routes.embed import as_bytes, embedding_files, read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.imported.given import GivenVectors

WIDE = 16
"""Bytes that stand for one vector."""


def key_of(query_id: str) -> str:
    """What a vector at hand is kept under: its query, as equal prompts may have different ones."""
    return digest_of(["query", query_id])


def fingerprint(given: GivenVectors, order: NDArray[np.int64]) -> str:
    """A digest of Q vectors as they will be kept.

    Args:
        given: the vectors.
        order: Q positions, in the tree's order.
    """
    marks = np.zeros((len(order), WIDE), dtype=np.uint8)
    for numbers, vectors in given.parts():
        marks[numbers] = _marks(*as_bytes(vectors))
    return hashlib.sha256(marks[order].tobytes()).hexdigest()


def kept_fingerprint(folder: Path, keys: Sequence[str]) -> str:
    """The same of the vectors that lie in a folder; one that is missing counts as zeros.

    Args:
        folder: of embeddings.
        keys: Q keys, in the tree's order.

    Raises:
        DamagedFileError: a file cannot be read.
    """
    place = {key: number for number, key in enumerate(keys)}
    marks = np.zeros((len(keys), WIDE), dtype=np.uint8)
    for path in embedding_files(folder):
        there, scale, steps = read_bytes(path)
        at = np.array([place.get(key, -1) for key in there], dtype=np.int64)
        marks[at[at >= 0]] = _marks(scale[at >= 0], steps[at >= 0])
    return hashlib.sha256(marks.tobytes()).hexdigest()


def _marks(scale: NDArray[np.float32], steps: NDArray[np.int8]) -> NDArray[np.uint8]:
    """N x `WIDE`."""
    marks = np.empty((len(scale), WIDE), dtype=np.uint8)
    wide = scale.astype("<f4")
    for row, numbers in enumerate(np.ascontiguousarray(steps)):
        digest = hashlib.blake2b(wide[row].tobytes() + numbers.tobytes(), digest_size=WIDE)
        marks[row] = np.frombuffer(digest.digest(), dtype=np.uint8)
    return marks

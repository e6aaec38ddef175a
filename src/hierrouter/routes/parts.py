"""Parts of the training queries, each to be predicted from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = 5
"""Parts at most."""
LEAST = 3
"""Fewer folds than this are no parts: too little would be left to predict from."""


def parts_of(folds: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The recorded folds of queries as parts: near-duplicates, which have one fold, have one part.

    What a near-duplicate got is almost what the query itself got. If it were among those that a
    query is predicted from, whatever copies best would look best.

    Args:
        folds: N fold numbers; where they are too few, parts are drawn by chance.
        seed: of that.

    Returns:
        N part numbers.
    """
    names, number = np.unique(folds, return_inverse=True)
    if len(names) >= LEAST:
        return np.asarray(number % PARTS, dtype=np.int64)
    return drawn_parts(len(folds), seed)


def drawn_parts(count: int, seed: int) -> NDArray[np.int64]:
    """Parts of so many queries, as even as can be, drawn by chance."""
    parts = np.arange(count) % PARTS
    return np.asarray(np.random.default_rng([seed, 3]).permutation(parts))

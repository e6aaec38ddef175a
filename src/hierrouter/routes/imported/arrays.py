"""Columns of a batch as arrays of numbers, and which of their values may not stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from hierrouter.routes.imported.columns import CHOICES, MOST_CHOICES, SPLITS, TEXTS, VECTOR

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float64).max)


class Column:
    """A one-dimensional array that grows."""

    def __init__(self, kind: Any) -> None:
        """Starts empty."""
        self._values = np.zeros(1024, dtype=kind)
        self._count = 0

    def extend(self, more: NDArray[Any]) -> None:
        """Adds values at the end."""
        wanted = self._count + len(more)
        if wanted > len(self._values):
            grown = np.zeros(max(wanted, 3 * len(self._values) // 2), dtype=self._values.dtype)
            grown[: self._count] = self.values
            self._values = grown
        self._values[self._count : wanted] = more
        self._count = wanted

    @property
    def values(self) -> NDArray[Any]:
        """All of it, without a copy."""
        return self._values[: self._count]


def refused(name: str, array: pa.Array, optional: Collection[str]) -> NDArray[np.bool_]:
    """Which values of a column `complaint` has something to say of."""
    if name in TEXTS:
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(array)), 0)
        return flags(pc.or_kleene(pc.is_null(array), blank))
    if name == "split":
        allowed = pc.is_in(array, value_set=pa.array([*SPLITS, "", None], pa.string()))
        return ~flags(allowed)
    if name == VECTOR:
        finite = pc.fill_null(pc.is_finite(array.flatten()), False)
        if pc.all(finite, min_count=0).as_py():
            return np.zeros(len(array), dtype=np.bool_)
        bad = pc.list_parent_indices(array).filter(pc.invert(finite))
        bad_rows = np.zeros(len(array), dtype=np.bool_)
        bad_rows[bad.to_numpy()] = True
        return bad_rows
    values = floats(array)
    high = 1.0 if name == "score" else MOST_CHOICES if name == CHOICES else _LARGEST
    good = (values >= 0) & (values <= high)
    if name == CHOICES:
        good &= values == np.floor(values)
    return ~good & ~np.isnan(values) if name in optional else ~good


def flags(array: pa.Array) -> NDArray[np.bool_]:
    """Truths."""
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def floats(array: pa.Array) -> NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def hashes(texts: pa.Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each text, computed once for those that repeat."""
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
    hashed = hash_array(distinct, categorize=False)
    return np.asarray(hashed[encoded.indices.to_numpy(zero_copy_only=False)], dtype=np.uint64)


def codes(texts: pa.Array, known: dict[str, int]) -> NDArray[np.int32]:
    """The number of each text among those that are known; new ones are added."""
    encoded = texts.dictionary_encode()
    numbers = np.array(
        [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()],
        dtype=np.int32,
    )
    return np.asarray(numbers[encoded.indices.to_numpy(zero_copy_only=False)], dtype=np.int32)


def split_codes(batch: pa.RecordBatch, has: set[str]) -> NDArray[np.int8]:
    """The split of each row: 0 none given, 1 train, 2 test."""
    if "split" not in has:
        return np.zeros(batch.num_rows, dtype=np.int8)
    found = pc.index_in(batch.column("split"), value_set=pa.array(SPLITS))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False) + 1, dtype=np.int8)

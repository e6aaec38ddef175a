"""Finds groups of nearly equal texts, so that none has members on both sides of a split.

MinHash with bands of rows (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3),
on arrays: a hundred thousand prompts take seconds. Bands only say which pairs may be near; how
near they are is then measured on the shingles themselves.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

SHINGLE_WORDS = 3
PERMUTATIONS = 128
MISSED = 1e-6
"""Most chance that a pair at the wanted similarity shares no band."""
AT_ONCE = 4096
"""Texts that are shingled together."""
FEW = 1_000_000
"""Pairs that may be measured in any case."""
PAIRS_A_TEXT = 10
"""Pairs that may be measured, for each text, where that is more. Thousands of prompts made from one
template share their bands, and measuring all pairs of them would take for ever: then only
neighbours in a band are measured."""
LOOKED_AT = 32
"""Pairs of a band that are looked at, for each text, measured or not."""
MEASURED_AT_ONCE = 20_000
_WORD = re.compile(r"\w+")
_MIXERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
_SHIFT = np.uint64(29)
_HALF = np.uint64(32)


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text; of a shorter text, all its words as one."""
    words = _WORD.findall(text)
    count = max(len(words) - SHINGLE_WORDS + 1, 1)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count))


def leaders(texts: Sequence[str], jaccard: float) -> list[int]:
    """For each text, the position of the first text of its group.

    A group is what chains of pairs join whose shingles have at least this Jaccard similarity.

    Args:
        texts: normalised texts, the most important first.
        jaccard: similarity from which two texts count as near-duplicates.

    Returns:
        As many positions as texts; a text without near-duplicates has its own.
    """
    near = NearDuplicates(jaccard)
    for start in range(0, len(texts), AT_ONCE):
        near.add(texts[start : start + AT_ONCE])
    return [int(first) for first in near.leaders(np.arange(len(texts)))]


class NearDuplicates:
    """Groups of texts that are added bit by bit; keeps hashes of them, not the texts."""

    def __init__(self, jaccard: float) -> None:
        """Takes the similarity from which two texts count as near-duplicates."""
        self._jaccard = jaccard
        self._rows = _rows_of_a_band(jaccard)
        random = np.random.default_rng(0)
        drawn = random.integers(1 << 63, size=(PERMUTATIONS, 2), dtype=np.uint64)
        self._factors, self._terms = drawn[:, 0] | np.uint64(1), drawn[:, 1]
        self._sets: list[NDArray[np.uint32]] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._bands: list[NDArray[np.uint32]] = []

    def add(self, texts: Sequence[str]) -> None:
        """Adds normalised texts; some thousands at a time keep memory small."""
        if not texts:
            return
        hashes, sizes = _shingle_hashes(texts)
        starts = np.cumsum(sizes) - sizes
        least = np.empty((PERMUTATIONS, len(texts)), dtype=np.uint64)
        for number, (factor, term) in enumerate(zip(self._factors, self._terms, strict=True)):
            least[number] = np.minimum.reduceat((hashes * factor + term) >> _HALF, starts)
        self._bands.append(_band_keys(least, self._rows))
        self._sets.append((hashes >> _HALF).astype(np.uint32))
        self._sizes.append(sizes)

    def leaders(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each of the N texts added, the text of its group that comes first.

        Args:
            rank: N numbers: how early each text comes.

        Returns:
            N positions; a text without near-duplicates has its own.
        """
        count = len(rank)
        if not count:
            return np.zeros(0, dtype=np.int64)
        self._all = np.concatenate(self._sets)
        self._size = np.concatenate(self._sizes)
        self._start = np.cumsum(self._size) - self._size
        bands = np.concatenate(self._bands)
        group = np.arange(count)
        left = max(FEW, PAIRS_A_TEXT * count)
        for band in range(bands.shape[1]):
            share = left // (bands.shape[1] - band)
            for one, two in _neighbours(bands[:, band]):
                apart = group[one] != group[two]
                one, two = one[apart][:share], two[apart][:share]
                share, left = share - len(one), left - len(one)
                near = self._are_near(one, two)
                if near.any():
                    group = _joined(group, one[near], two[near])
        order = np.argsort(rank, kind="stable")
        groups, first = np.unique(group[order], return_index=True)
        return np.asarray(order[first][np.searchsorted(groups, group)], dtype=np.int64)

    def _are_near(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of P pairs is as similar as wanted: measured, not estimated."""
        near = np.zeros(len(one), dtype=np.bool_)
        least = np.minimum(self._size[one], self._size[two])
        most = np.maximum(self._size[one], self._size[two])
        # Similarity is at most the ratio of the sizes.
        possible = np.flatnonzero(least >= self._jaccard * most)
        for start in range(0, len(possible), MEASURED_AT_ONCE):
            at = possible[start : start + MEASURED_AT_ONCE]
            both = np.concatenate([self._keyed(one[at]), self._keyed(two[at])])
            both.sort()
            twice = both[1:][both[1:] == both[:-1]] >> _HALF
            common = np.bincount(twice.astype(np.int64), minlength=len(at))
            union = self._size[one[at]] + self._size[two[at]] - common
            near[at] = common >= self._jaccard * union
        return near

    def _keyed(self, texts: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The shingles of P texts, each with the number of its pair in the upper half."""
        sizes = self._size[texts]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        found = self._all[np.repeat(self._start[texts], sizes) + within].astype(np.uint64)
        pair = np.repeat(np.arange(len(texts), dtype=np.uint64), sizes)
        return np.asarray((pair << _HALF) | found, dtype=np.uint64)


def _rows_of_a_band(jaccard: float) -> int:
    """The most rows with which hardly any pair at this similarity is missed."""
    chance = ((1 - jaccard**rows) ** (PERMUTATIONS // rows) for rows in range(1, PERMUTATIONS + 1))
    return max((rows for rows, missed in enumerate(chance, 1) if missed <= MISSED), default=1)


def _mixed(values: NDArray[np.uint64], mixer: np.uint64) -> NDArray[np.uint64]:
    product = values * mixer
    return np.asarray(product ^ (product >> _SHIFT), dtype=np.uint64)


def _shingle_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The distinct shingles of each text as sorted hashes, one text after the other; how many."""
    from pandas.util import hash_array  # half a second, which most commands do not need

    words = [_WORD.findall(text) for text in texts]
    counts = np.array([len(each) for each in words])
    flat = np.array(list(chain.from_iterable(words)), dtype=object)
    # Texts of one or two words are filled up, so that all their words are one shingle.
    widths = np.maximum(counts, SHINGLE_WORDS)
    starts = np.cumsum(widths) - widths
    padded = np.zeros(widths.sum(), dtype=np.uint64)
    if len(flat):
        within = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        padded[np.repeat(starts, counts) + within] = hash_array(flat)
    runs = padded[: len(padded) - SHINGLE_WORDS + 1].copy()
    for offset in range(SHINGLE_WORDS):
        if offset:
            runs += padded[offset : len(runs) + offset]
        runs = _mixed(runs, _MIXERS[offset % 2])
    text = np.repeat(np.arange(len(texts)), widths)[: len(runs)]
    inside = (
        np.arange(len(runs)) < np.repeat(starts + widths - SHINGLE_WORDS + 1, widths)[: len(runs)]
    )
    runs, text = runs[inside], text[inside]
    order = np.lexsort((runs, text))
    runs, text = runs[order], text[order]
    fresh = np.r_[True, (runs[1:] != runs[:-1]) | (text[1:] != text[:-1])]
    sizes = np.bincount(text[fresh], minlength=len(texts))
    return runs[fresh], sizes


def _band_keys(least: NDArray[np.uint64], rows: int) -> NDArray[np.uint32]:
    """For each of N texts one key a band, from P x N least hashes."""
    bands = PERMUTATIONS // rows
    keys = np.empty((least.shape[1], bands), dtype=np.uint32)
    for band in range(bands):
        key = np.zeros(least.shape[1], dtype=np.uint64)
        for row in range(band * rows, (band + 1) * rows):
            key = _mixed(key + least[row], _MIXERS[row % 2])
        keys[:, band] = (key >> _HALF).astype(np.uint32)
    return keys


def _neighbours(
    keys: NDArray[np.uint32],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs with the same key, by how far apart they stand in the run of that key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = np.r_[ordered[1:] == ordered[:-1], False]
    shared = same | np.r_[False, same[:-1]]
    order, ordered = order[shared], ordered[shared]
    left = max(FEW, LOOKED_AT * len(keys))
    for distance in range(1, len(order)):
        here = np.flatnonzero(ordered[distance:] == ordered[:-distance])[:left]
        if not len(here):
            return
        left -= len(here)
        yield order[here], order[here + distance]


def _joined(
    group: NDArray[np.int64], one: NDArray[np.int64], two: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The group of each text once pairs are joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(group)
    edges = coo_array((np.ones(len(one), np.int8), (group[one], group[two])), shape=(count, count))
    _, label = connected_components(edges, directed=False)
    return np.asarray(label[group], dtype=np.int64)

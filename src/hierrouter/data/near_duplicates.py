"""Finds groups of nearly equal texts, so that none has members on both sides of a split."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from datasketch import MinHash, MinHashLSH

if TYPE_CHECKING:
    from collections.abc import Sequence

SHINGLE_WORDS = 3
PERMUTATIONS = 128
# Candidates are looked for well below the wanted similarity and then measured exactly: at the
# wanted one itself the index would miss several in a hundred.
SLACK = 0.25


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text; of a shorter text, all its words as one."""
    words = re.findall(r"\w+", text)
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
    index = MinHashLSH(threshold=jaccard - SLACK, num_perm=PERMUTATIONS)
    sets = [shingles(text) for text in texts]
    sketches = MinHash.bulk(
        [[shingle.encode() for shingle in sorted(one)] for one in sets], num_perm=PERMUTATIONS
    )
    first = list(range(len(texts)))

    def root(position: int) -> int:
        while first[position] != position:
            first[position] = first[first[position]]
            position = first[position]
        return position

    for position, (own, sketch) in enumerate(zip(sets, sketches, strict=True)):
        for other in index.query(sketch):
            if len(own & sets[other]) >= jaccard * len(own | sets[other]):
                one, two = sorted((root(position), root(other)))
                first[two] = one
        index.insert(position, sketch)
    return [root(position) for position in range(len(texts))]

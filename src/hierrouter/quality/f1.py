"""Token F1 (Algorithm 3 of the paper): how many words a reply shares with a reference."""

from __future__ import annotations

import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’«»–—…·•")


def normalise(text: str) -> str:
    """Lower-cases, deletes punctuation and makes every run of white space one space.

    Articles stay: deleting them, as SQuAD does, would delete the answer "A".
    """
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def token_f1(reply: str, references: str | Sequence[str], *, multiset: bool = False) -> float:
    """The harmonic mean of token precision and recall (section 4 and Algorithm 3 of the paper).

    Args:
        reply: What a model wrote.
        references: One reference or several; the best match counts.
        multiset: Whether a token counts as often as it occurs; by default once, as in
            Algorithm 3.

    Returns:
        A value in [0, 1]; 0 where the reply or the reference has no token.
    """
    if isinstance(references, str):
        references = (references,)
    found = _count(reply, multiset)
    return max((_f1(found, _count(text, multiset)) for text in references), default=0.0)


def _count(text: str, multiset: bool) -> Counter[str]:
    tokens = normalise(text).split()
    return Counter(tokens if multiset else set(tokens))


def _f1(found: Counter[str], wanted: Counter[str]) -> float:
    total = found.total() + wanted.total()
    shared = sum(min(count, wanted[token]) for token, count in found.items())
    return 2 * shared / total if shared else 0.0

"""What the encoder sees of a context c_l, and how the router's state is put together from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.pool.prompts import encoder_text, without_middle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hierrouter.config import View
    from hierrouter.pool.prompts import Role

CHARACTERS_PER_TOKEN = 3
"""Fewer than in ordinary text, so that a reply of so many fits the encoder with its end."""


def texts_of(
    view: View, question: str, replies: Sequence[tuple[Role, str]], max_tokens: int
) -> tuple[str, ...]:
    """The texts that are encoded for one context.

    Args:
        view: `paper`: one text, the query and all replies (section 3.2). `two_part`: the query,
            and the newest reply by itself, its middle left out where it is too long for the
            encoder, so that its end, where the answer is, is seen.
        question: the query's text.
        replies: role and text of each earlier call, oldest first.
        max_tokens: the longest text that the encoder reads.
    """
    if view == "paper":
        return (encoder_text(question, replies),)
    if not replies:
        return (question,)
    newest = replies[-1][1]
    most = max_tokens * CHARACTERS_PER_TOKEN
    return (question, newest if len(newest) <= most else without_middle(newest, most))


def state_of(view: View, vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The encoder's part of the router's state, from the vectors of `texts_of`.

    Returns:
        D numbers in the paper's view, 2 D in the two-part view: those of the newest reply are 0
        while there is none.
    """
    if view == "two_part" and len(vectors) == 1:
        vectors = (vectors[0], np.zeros_like(vectors[0]))
    return np.concatenate(vectors)


def known_state(
    view: View,
    question: str,
    replies: Sequence[tuple[Role, str]],
    max_tokens: int,
    vector_of: Callable[[str], NDArray[np.float32] | None],
) -> NDArray[np.float32] | None:
    """The state of a recorded context, or None where a text was not encoded."""
    vectors = [vector_of(text) for text in texts_of(view, question, replies, max_tokens)]
    present = [vector for vector in vectors if vector is not None]
    return state_of(view, present) if len(present) == len(vectors) else None

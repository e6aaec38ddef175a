"""What answers in hand show of themselves, as numbers.

Of each answer: the mean and the least log-probability of its tokens, its length, and whether it
came to its end; of every two, whether they say the same. Answers stand in the order of their
models, so that at one stage a number always tells of the same model.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.routes.outcomes import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SCALE = 5.0
"""What the numbers are multiplied by: beside embeddings they are few, and ridge regressions shrink
what is small."""


def width_of(most: int) -> int:
    """How many numbers J answers show: J signals of each kind, and one for every two of them."""
    return most * len(SIGNALS) + most * (most - 1) // 2


def shown(signals: NDArray[np.float64], said: NDArray[np.int64], most: int) -> NDArray[np.float64]:
    """What answers in hand show, before it is brought to one scale.

    Args:
        signals: ... x K x S, `outcomes.SIGNALS` of K answers; NaN where one is not known.
        said: ... x K, a number for what each says, the same for the same; -1 where that is not
            known.
        most: J, at least K; what is not there is NaN.

    Returns:
        ... x `width_of(J)`.
    """
    count = said.shape[-1]
    found = np.full((*said.shape[:-1], width_of(most)), np.nan)
    scaled = signals.copy()
    length = SIGNALS.index("tokens_out")
    scaled[..., length] = np.log1p(scaled[..., length])
    found[..., : count * len(SIGNALS)] = scaled.reshape(*said.shape[:-1], count * len(SIGNALS))
    for place, (one, other) in enumerate(itertools.combinations(range(most), 2)):
        if other < count:
            known = (said[..., one] >= 0) & (said[..., other] >= 0)
            same = np.where(said[..., one] == said[..., other], 1.0, -1.0)
            found[..., most * len(SIGNALS) + place] = np.where(known, same, 0.0)
    return found


@dataclass(frozen=True)
class AnswerScale:
    """Brings what answers show to one scale."""

    mean: NDArray[np.float32]
    """W means over the answers that were there; J = 0 answers have none."""
    spread: NDArray[np.float32]
    """W standard deviations."""

    @classmethod
    def fit(cls, signals: NDArray[np.float64] | None, most: int) -> AnswerScale:
        """Fits it.

        Args:
            signals: N x S of answers; none where none are seen.
            most: J.
        """
        width = width_of(most)
        mean, spread = np.zeros(width, np.float32), np.ones(width, np.float32)
        if signals is not None and most:
            scaled = shown(signals[:, None], np.full((len(signals), 1), -1), 1)
            known = ~np.isnan(scaled)
            for column in np.flatnonzero(known.any(axis=0)):
                values = scaled[known[:, column], column]
                places = slice(column, most * len(SIGNALS), len(SIGNALS))
                mean[places] = values.mean()
                spread[places] = max(float(values.std()), 1e-3)
        return cls(mean, spread)

    def __call__(self, found: NDArray[np.float64]) -> NDArray[np.float32]:
        """... x W of one scale; 0 where something is not known."""
        scaled = SCALE * (found - self.mean) / self.spread
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    @staticmethod
    def shapes(most: int) -> dict[str, tuple[int, ...]]:
        """The shapes that its arrays must have where there are up to J answers."""
        width = (width_of(most),)
        return {"answers.mean": width, "answers.scale": width} if most else {}

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name; none where no answers are seen."""
        return {"answers.mean": self.mean, "answers.scale": self.spread} if len(self.mean) else {}

    @classmethod
    def from_arrays(cls, named: Mapping[str, NDArray[np.float32]]) -> AnswerScale:
        """The inverse of `arrays`."""
        nothing = np.zeros(0, np.float32)
        return cls(named.get("answers.mean", nothing), named.get("answers.scale", nothing))

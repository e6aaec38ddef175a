"""When something learned is kept for being better than what there was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SURE = 2.0
"""Standard errors by which it must be better: with one, luck on a hundred queries is enough, and
much is tried."""


def surely_better(rewards: NDArray[np.float64], than: NDArray[np.float64]) -> bool:
    """Whether N rewards are above N others of the same queries by `SURE` standard errors."""
    gained = rewards - than
    if len(gained) < 2:
        return False  # one query shows no spread
    error = float(gained.std()) / (len(gained) - 1) ** 0.5
    return bool(gained.mean() > SURE * error)

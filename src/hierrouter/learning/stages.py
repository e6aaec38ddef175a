"""Where on a route a decision is made, as a number.

Stage 0 is the bare query. After that it is how many models have analysed and which was the last:
what that model is good at, and what its analysis is worth to the others, is learned for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def stage_count(models: int, hops: int) -> int:
    """S, how many stages there are for M models and L hops: 1 + (L - 1) M."""
    return 1 + (hops - 1) * models


def stage_of(path: Sequence[int], models: int) -> int:
    """The stage after the analyses of `path`, model indices in their order."""
    return 1 + (len(path) - 1) * models + path[-1] if path else 0


@overload
def depth_of(stage: int, models: int) -> int: ...
@overload
def depth_of(stage: NDArray[np.int64], models: int) -> NDArray[np.int64]: ...
def depth_of(stage: int | NDArray[np.int64], models: int) -> int | NDArray[np.int64]:
    """How many analyses stand before a decision at this stage."""
    return (stage + models - 1) // models

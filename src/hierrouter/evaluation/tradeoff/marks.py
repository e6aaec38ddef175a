"""What training queries say of fixed routes: which are worth mixing, which is weak, which strong.

Whatever a trade-off curve chooses is chosen here, so that the queries which judge it have no part
in the choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.tradeoff.hull import hull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.policies.arena import Arena
    from hierrouter.routes.outcomes import RouteTable


@dataclass(frozen=True)
class Marks:
    """Means of fixed routes over the training queries of one part of what is judged."""

    rows: NDArray[np.int64]
    """n row numbers: for which of the judged queries they choose."""
    points: Mapping[str, tuple[float, float]]
    """By policy (`single:A`, `path:A:B`): mean cost in dollars, mean quality."""

    def vertices(self, names: Sequence[str]) -> list[int]:
        """Which of some policies are vertices of the hull on the training queries."""
        cost, quality = zip(*(self.points[name] for name in names), strict=True)
        return [int(point) for point in hull(cost, quality).points]


def marks_of(arena: Arena, rows: NDArray[np.int64]) -> Marks:
    """The marks of an arena's training queries.

    Args:
        arena: whose.
        rows: which of the judged queries are its test queries.
    """
    points = _means("single", arena.train_direct)
    if arena.filled is None:
        points |= _means("path", arena.train_routes)
    return Marks(rows, points)


def _means(kind: str, table: RouteTable) -> dict[str, tuple[float, float]]:
    cost, quality = table.cost.mean(axis=0), table.quality.mean(axis=0)
    return {
        f"{kind}:{name}": (float(cost[column]), float(quality[column]))
        for column, name in enumerate(table.names)
    }


def weak_and_strong(marks: Sequence[Marks], names: Sequence[str]) -> tuple[str, str]:
    """The cheapest and the best of some policies, over all training queries of all parts.

    Args:
        marks: of the parts.
        names: of the single models.
    """
    cost, quality = (
        {name: float(np.mean([each.points[name][end] for each in marks])) for name in names}
        for end in (0, 1)
    )
    return min(names, key=lambda name: cost[name]), max(names, key=lambda name: quality[name])

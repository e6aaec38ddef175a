"""The action space `2 * m + role` and `accept`, and which actions a hop allows.

Role 0 is `analyze`, role 1 is `solve`. `accept` (the last action) ends a route after an answer
has been seen; no moves offered so far allow it, so it is always masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.pool.prompts import Role
    from hierrouter.routes.outcomes import Moves

ANALYZE, SOLVE = 0, 1
ROLES: tuple[Role, Role] = ("analyze", "solve")
"""Names of the roles, by number."""


def action_name(action: int, models: Sequence[str]) -> str:
    """What people read of an action, such as "A solve"."""
    return f"{models[action // 2]} {ROLES[action % 2]}"


def action_count(models: int) -> int:
    """Size of the action space for M models: 2 M + 1."""
    return 2 * models + 1


def allowed_actions(models: int, hops: int, moves: Moves) -> NDArray[np.bool_]:
    """Which actions each hop allows.

    Args:
        models: M.
        hops: L.
        moves: `direct` (L is 1: a solve), `paper` (section 3.1: analyze on hops 0..L-2, solve on
            hop L-1) or `early_exit` (a solve on any hop ends the route).

    Returns:
        L x (2 M + 1) flags.
    """
    allowed = np.zeros((hops, action_count(models)), dtype=np.bool_)
    last = hops - 1
    allowed[:last, ANALYZE : 2 * models : 2] = True
    allowed[last, SOLVE : 2 * models : 2] = True
    if moves == "early_exit":
        allowed[:last, SOLVE : 2 * models : 2] = True
    return allowed

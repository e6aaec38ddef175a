"""The action space `2 * m + role` and `accept`, and which actions a hop allows.

Role 0 is `analyze`, role 1 is `solve`. `accept` (the last action) ends a route with an answer that
has been paid for, where an answer does not end it by itself.
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
ACCEPT = -1
"""Where in a row of actions `accept` stands: it is the last one."""
ROLES: tuple[Role, Role] = ("analyze", "solve")
"""Names of the roles, by number."""


TIE = 1e-4
"""Scores (log-probabilities, or beliefs) that differ by no more are equal: that much may come of
single precision, whose last digits depend on the processor and on where arrays lie. In rewards it
is this times tau: at the highest `training.temperature` a thousandth."""


def best_of(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The best of each row, and of several that are equally good the first.

    Args:
        scores: N x K; minus infinity for what is not possible.
    """
    chosen: NDArray[np.int64] = (scores >= scores.max(axis=1, keepdims=True) - TIE).argmax(axis=1)
    return chosen


def action_name(action: int, models: Sequence[str]) -> str:
    """What people read of an action, such as "A solve"."""
    if action == 2 * len(models):
        return "accept"
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
            hop L-1), `early_exit` (a solve on any hop ends the route), `cascade` (early exit, and
            after a solve the answer may be accepted or another model be asked) or `escalate` (a
            cascade without analyses).

    Returns:
        L x (2 M + 1) flags. What the answers in hand forbid is not in them (`stages.Stages`).
    """
    allowed = np.zeros((hops, action_count(models)), dtype=np.bool_)
    last = hops - 1
    if moves != "escalate":
        allowed[:last, ANALYZE : 2 * models : 2] = True
    if moves != "paper":
        allowed[:last, SOLVE : 2 * models : 2] = True
    allowed[last, SOLVE : 2 * models : 2] = True
    if moves in ("cascade", "escalate"):
        allowed[1:, ACCEPT] = True
    return allowed

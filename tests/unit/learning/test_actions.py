"""The masks, action by action."""

from __future__ import annotations

import numpy as np
import pytest

from hierrouter.learning.actions import action_count, allowed_actions, best_of


@pytest.mark.parametrize("models", [1, 2, 5])
@pytest.mark.parametrize("hops", [1, 2, 4])
@pytest.mark.parametrize("moves", ["paper", "early_exit"])
def test_each_hop_allows_what_the_moves_say(models: int, hops: int, moves: str) -> None:
    allowed = allowed_actions(models, hops, moves)  # type: ignore[arg-type]
    assert allowed.shape == (hops, 2 * models + 1) == (hops, action_count(models))
    for hop in range(hops):
        last = hop == hops - 1
        for model in range(models):
            assert allowed[hop, 2 * model] == (not last)  # analyze
            assert allowed[hop, 2 * model + 1] == (last or moves == "early_exit")  # solve
        assert not allowed[hop, 2 * models]  # accept


def test_the_allowed_routes_are_those_that_outcomes_list(make_outcomes) -> None:
    outcomes = make_outcomes(n=2, models=3, hops=3)
    for moves in ("paper", "early_exit"):
        allowed = allowed_actions(3, 3, moves)
        walks = {
            path
            for path in outcomes.routes(moves).paths
            if allowed[len(path) - 1, 2 * path[-1] + 1]
            and all(allowed[hop, 2 * model] for hop, model in enumerate(path[:-1]))
        }
        assert walks == set(outcomes.routes(moves).paths)
        solves = np.flatnonzero(allowed[:, 1::2].any(axis=1)) + 1
        assert {len(path) for path in walks} == set(solves.tolist())


def test_what_differs_by_rounding_alone_is_equal_and_the_first_is_taken() -> None:
    never = -np.inf
    scores = np.array(
        [
            [never, -1.0, -1.0 + 1e-6, -3.0],
            [never, -1.0 + 1e-6, -1.0, -3.0],
            [-1.0, -1.0 + 1e-3, never, never],
            [never, never, never, -50.0],
        ],
        np.float32,
    )
    assert best_of(scores).tolist() == [1, 1, 1, 3]

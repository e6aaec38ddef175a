"""Outcomes of one query whose every number is told from the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierrouter.routes.outcomes import Outcomes, context_paths


def outcomes(hops: int = 2, models: int = 2, queries: int = 1) -> Outcomes:
    """Analyses cost 1, 2, 4, … dollars by model, plus ten times their hop; answers 100 of that."""
    paths = context_paths(models, hops)
    shape = (queries, len(paths), models)
    depth = np.array([len(path) for path in paths])
    analyze = np.broadcast_to(2.0 ** np.arange(models) + 10 * depth[:, None], shape).copy()
    analyze[:, depth == hops - 1] = 0
    solve = np.arange(np.prod(shape), dtype=float).reshape(shape)
    return Outcomes(
        query_ids=tuple(f"q/{number}" for number in range(queries)),
        tasks=np.array([("even", "odd")[number % 2] for number in range(queries)]),
        train=np.arange(queries) % 2 == 0,
        folds=np.arange(queries),
        models=tuple("ABC"[:models]),
        hops=hops,
        metric="accuracy",
        embeddings=np.zeros((*shape[:2], 3), dtype=np.float32),
        analyze_cost=analyze,
        solve_cost=100 * (solve + 1),
        solve_quality=solve / solve.size,
    )


def test_contexts_are_the_analyses_so_far_shortest_first() -> None:
    assert context_paths(3, 2) == ((), (0,), (1,), (2,))
    assert context_paths(2, 3) == ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1))
    assert context_paths(5, 1) == ((),)
    assert outcomes(hops=3).depth.tolist() == [0, 1, 1, 2, 2, 2, 2]


def test_an_analysis_leads_to_the_context_that_holds_it() -> None:
    assert outcomes(hops=3).child.tolist() == [
        [1, 2],
        [3, 4],
        [5, 6],
        *[[-1, -1]] * 4,
    ]


def test_what_a_context_has_cost_is_the_sum_of_its_analyses() -> None:
    # First hop: A 1, B 2. Second hop: A 11, B 12.
    assert outcomes(hops=3).spent[0].tolist() == [0, 1, 2, 1 + 11, 1 + 12, 2 + 11, 2 + 12]


def test_early_exit_allows_every_answer_and_adds_up_the_route() -> None:
    table = outcomes().routes("early_exit")
    assert table.names == ("A", "B", "A:A", "A:B", "B:A", "B:B")
    assert table.paths == ((0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1))
    assert table.cost[0].tolist() == [100, 200, 301, 401, 502, 602]
    assert table.quality[0].tolist() == pytest.approx([number / 6 for number in range(6)])


def test_the_papers_routes_make_exactly_l_calls() -> None:
    table = outcomes().routes("paper")
    assert table.names == ("A:A", "A:B", "B:A", "B:B")
    assert table.cost[0].tolist() == [301, 401, 502, 602]
    assert len(outcomes(hops=3).routes("paper").names) == 8
    assert outcomes(hops=1).routes("paper").names == ("A", "B")


def test_direct_answers_are_the_same_whatever_the_moves() -> None:
    direct = outcomes(hops=3).direct()
    assert direct.names == ("A", "B")
    assert direct.cost[0].tolist() == [100, 200]


def test_reward_is_quality_minus_alpha_times_cost_units() -> None:
    table = outcomes().routes("early_exit")
    expected = [number / 6 - 0.5 * cost / 200 for number, cost in enumerate(table.cost[0])]
    assert table.reward(0.5, 200)[0].tolist() == pytest.approx(expected)


def test_the_cost_unit_is_the_dearest_models_mean_direct_answer() -> None:
    two = outcomes(queries=2)
    # Direct answers cost (100, 200) and (700, 800): A 400 and B 500 in the mean.
    assert two.cost_unit_usd() == 500


def test_free_models_have_a_cost_unit_of_one() -> None:
    one = outcomes()
    assert replace(one, solve_cost=np.zeros_like(one.solve_cost)).cost_unit_usd() == 1


def test_select_by_mask_and_by_index() -> None:
    four = replace(
        outcomes(queries=4),
        references=("R",),
        reference_quality=np.arange(4.0)[:, None],
        reference_cost=10 * np.arange(4.0)[:, None],
    )
    trained = four.select(four.train)
    picked = four.select(np.array([3, 0]))
    assert trained.query_ids == ("q/0", "q/2")
    assert picked.query_ids == ("q/3", "q/0")
    assert picked.tasks.tolist() == ["odd", "even"]
    assert picked.folds.tolist() == [3, 0]
    assert picked.train.tolist() == [False, True]
    np.testing.assert_array_equal(picked.solve_cost, four.solve_cost[[3, 0]])
    np.testing.assert_array_equal(picked.spent, four.spent[[3, 0]])
    assert picked.reference_quality is not None
    assert picked.reference_cost is not None
    assert picked.reference_quality[:, 0].tolist() == [3, 0]
    assert picked.reference_cost[:, 0].tolist() == [30, 0]
    assert len(four.select(np.zeros(4, dtype=bool))) == 0

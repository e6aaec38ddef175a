"""Headroom before training, and the warnings about it."""

from dataclasses import replace

import numpy as np
import pytest

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.headroom import cross_fitted, headroom
from hierrouter.routes.outcomes import Outcomes

ALPHAS = (0.0, 0.1, 1.0)


@pytest.fixture
def make(make_outcomes):
    """Two models and two tasks of `n` queries in all: who is right how often, at what cost."""

    def of(chances, cost=(1.0, 1.0), n=600, seed=0) -> Outcomes:
        rng = np.random.default_rng(seed)
        blank = make_outcomes(n, models=2, hops=1)
        chance = np.array([chances[task] for task in blank.tasks])[:, None]
        return replace(
            blank,
            folds=np.arange(n) // 2 % 5,
            solve_quality=(rng.random((n, 1, 2)) < chance).astype(float),
            solve_cost=np.tile(cost, (n, 1, 1)),
        )

    return of


def judged(outcomes, alpha=0.1, choices=0, alphas=ALPHAS):
    return headroom(outcomes, "direct", np.full(len(outcomes), choices), alphas, alpha, 500)


def said(found):
    return " | ".join(found.warnings)


def test_models_that_are_best_at_different_tasks_leave_headroom(make):
    found = judged(make({"a": [0.9, 0.3], "b": [0.3, 0.9]}, cost=(1.0, 3.0)))
    assert found.gains.per_task.mean == pytest.approx(0.3, abs=0.06)
    assert found.gains.per_task.low > 0
    assert found.gains.corrected.mean == pytest.approx(found.gains.plain.mean)
    assert "headroom" not in said(found)


def test_a_model_that_is_best_throughout_leaves_none_by_task(make):
    found = judged(make({"a": [0.8, 0.4], "b": [0.9, 0.4]}))
    assert found.gains.per_task.mean == 0
    assert "No headroom seen" in said(found)
    assert "0.0 points (95% interval 0.0 to 0.0)" in said(found)


def test_models_that_know_the_same_leave_none_even_to_the_oracle(make):
    outcomes = make({"a": [0.5, 0.5], "b": [0.5, 0.5]})
    same = outcomes.solve_quality[:, :, :1]
    outcomes = replace(outcomes, solve_quality=np.concatenate([same, same], axis=2))
    assert "No headroom: at alpha 0.1, over 600 queries, even an oracle" in said(judged(outcomes))


def test_the_oracle_of_guesses_is_headroom_only_with_its_luck(make):
    outcomes = make({"a": [0.25, 0.25], "b": [0.25, 0.25]})
    lucky, sober = judged(outcomes), judged(outcomes, choices=4)
    assert lucky.gains.corrected.mean > 0.15
    assert sober.gains.corrected.mean < 0.06
    assert sober.gains.plain == lucky.gains.plain


def test_choosing_is_not_judged_on_the_queries_it_was_chosen_on(make):
    # Nothing tells the models apart. In hindsight each task has a better one; ahead, neither has.
    gained = []
    for seed in range(40):
        single, per_task = cross_fitted(
            make({"a": [0.5, 0.5], "b": [0.5, 0.5]}, n=60, seed=seed), "direct", 0.0, 1.0
        )
        gained.append((per_task - single).mean())
    # Chosen on the very queries it would be 2.1 points.
    assert np.mean(gained) < 0.01


def test_queries_of_one_fold_are_an_error(make):
    outcomes = make({"a": [0.5, 0.5], "b": [0.5, 0.5]}, n=20)
    with pytest.raises(HierRouterError, match="all of one"):
        judged(replace(outcomes, folds=np.zeros(20, dtype=np.int64)))


def test_alpha_is_inert_where_the_best_route_stays(make):
    cheap = make({"a": [0.9, 0.3], "b": [0.9, 0.3]}, cost=(0.2, 1.0))
    assert "alpha is inert: from 0 to 1 the best route of each task stays the same (A)" in said(
        judged(cheap)
    )
    # A dear model that is better by less than a cost unit: alpha 1 takes the other.
    traded = make({"a": [0.5, 0.9], "b": [0.5, 0.9]}, cost=(0.2, 1.0))
    assert "alpha is inert" not in said(judged(traded))
    assert "alpha is inert" not in said(judged(cheap, alphas=[0.1]))


def test_alpha_is_as_good_as_inert_where_costs_hardly_differ(make):
    near = make({"a": [0.9, 0.3], "b": [0.3, 0.9]}, cost=(0.95, 1.0))
    assert "differ in cost by 0.5 points of reward" in said(judged(near))
    far = make({"a": [0.9, 0.3], "b": [0.3, 0.9]}, cost=(0.2, 1.0))
    assert "as good as inert" not in said(judged(far))


def test_few_queries_make_no_alpha_inert(make):
    # 70 queries show accuracies to 13 points, but that the cheap model saves 9 they show surely.
    few = make({"a": [0.9, 0.3], "b": [0.3, 0.9]}, cost=(0.1, 1.0), n=70)
    assert "as good as inert" not in said(judged(few))


def test_with_one_task_the_bound_is_what_the_question_shows(make):
    outcomes = make({"a": [0.9, 0.3], "b": [0.3, 0.9]})
    one = replace(outcomes, tasks=np.full(600, "all"))
    # Nothing tells the queries apart: their vectors are all the same.
    blind = said(judged(one))
    assert "No headroom seen" in blind
    assert "the queries name one task, and choosing by the queries most alike gains" in blind
    assert "choosing by task" not in blind
    # Their vectors say which model knows: a router can gain, though there is one task.
    seen = np.where(outcomes.tasks == "a", 1.0, -1.0).astype(np.float32)
    vectors = np.stack([seen, np.ones_like(seen)], axis=1)[:, None]
    assert "headroom" not in said(judged(replace(one, embeddings=vectors)))


def test_an_oracle_without_guesses_to_correct_is_called_lucky(make):
    outcomes = make({"a": [0.8, 0.4], "b": [0.9, 0.4]})
    assert "and the oracle (luck included)" in said(judged(outcomes))
    assert "and the oracle without luck" in said(judged(outcomes, choices=4))

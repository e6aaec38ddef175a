"""What is said before training, and when nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierrouter.config import EvaluationConfig, TrainingConfig
from hierrouter.evaluation.forewarn import forewarn, warnings_of
from hierrouter.learning.paper import PAPER_RECIPE

TRAINING = TrainingConfig(moves="direct")
EVALUATION = EvaluationConfig(bootstrap=200)


@pytest.fixture
def make(make_outcomes):
    """Two tasks of `n` queries in all, two thirds of them for training: who is right how often."""

    def of(chances, n=600, cost=(0.2, 1.0), seed=0):
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


WORTH = {"a": [0.9, 0.3], "b": [0.3, 0.9]}
"""Each model is good at a task: routing pays, and alpha 1 takes another model than alpha 0."""
ONE = {"a": [0.9, 0.3], "b": [0.9, 0.3]}
"""The cheap model is best throughout."""


def said(outcomes, training=TRAINING, evaluation=EVALUATION):
    return " | ".join(warnings_of(outcomes, training, evaluation))


def test_nothing_is_said_where_routing_pays(make):
    assert said(make(WORTH)) == ""


def test_missing_headroom_and_an_inert_alpha_are_said(make):
    found = said(make(ONE))
    assert "No headroom seen: at alpha 0.1, over 400 queries" in found  # not the 200 of testing
    assert "alpha is inert: from 0 to 1" in found


def test_test_queries_are_not_looked_at(make):
    outcomes = make(ONE)
    spoilt = outcomes.solve_quality.copy()
    spoilt[~outcomes.train] = 1 - spoilt[~outcomes.train]
    assert said(replace(outcomes, solve_quality=spoilt)) == said(outcomes)


def test_lines_are_printed_and_nothing_else(make, capsys):
    forewarn(TRAINING, EVALUATION)(make(WORTH))
    assert capsys.readouterr().err == ""
    forewarn(TRAINING, EVALUATION)(make(ONE))
    assert capsys.readouterr().err.splitlines() == said(make(ONE)).split(" | ")


def test_nothing_is_said_where_it_cannot_be_told(make):
    assert said(make(ONE, n=42)) == ""  # 28 for training
    assert said(make(ONE, n=48)) != ""
    outcomes = make(ONE)
    assert said(replace(outcomes, folds=np.zeros(600, dtype=np.int64))) == ""
    assert said(replace(outcomes, train=np.zeros(600, dtype=np.bool_))) == ""


def test_queries_of_which_an_outcome_is_not_known_are_passed_over(make):
    outcomes = make(ONE)
    outcomes.solve_quality[1:300:3, 0, 1] = np.nan
    outcomes.solve_cost[1:300:3, 0, 1] = np.nan
    assert "over 300 queries" in said(outcomes)
    outcomes.solve_quality[:, 0, 0] = np.nan
    assert said(outcomes) == ""


def test_guesses_count_only_where_answers_are_right_or_wrong(make):
    guesses = make({"a": [0.25, 0.25], "b": [0.25, 0.25]})
    lucky = said(guesses)
    assert said(replace(guesses, choices=np.full(600, 4))) != lucky
    # Scores between 0 and 1 are no guesses, whatever is known of the choices.
    assert said(replace(guesses, choices=np.full(600, 4), metric="token_f1")) == lucky
    partly = guesses.solve_quality * 0.9
    said(replace(guesses, choices=np.full(600, 4), solve_quality=partly))


def test_only_alphas_that_the_router_is_trained_for_count(make):
    # At alpha 0 the dear model is better by .3 and at 1 not worth its price.
    traded = make({"a": [0.5, 0.8], "b": [0.5, 0.8]})
    assert "alpha is inert" not in said(traded)
    narrow = TrainingConfig(moves="direct", lambda_max=0.1)
    assert "alpha is inert: from 0 to 0.1" in said(traded, narrow)
    fixed = TrainingConfig(moves="direct", alpha=0.5)
    assert "at alpha 0.5, over 400 queries" in said(traded, fixed)


def test_costs_count_in_the_unit_that_is_trained_with(make):
    # In the paper's units, dollars, its alpha of .005 gives .4 of a point for a cheaper answer.
    recipe = PAPER_RECIPE.model_copy(update={"moves": "direct"})
    assert "alpha 0.005 is as good as inert" in said(make(WORTH), recipe)
    unit = recipe.model_copy(update={"cost_unit_usd": 0.01})
    assert "as good as inert" not in said(make(WORTH), unit)

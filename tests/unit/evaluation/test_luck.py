"""The oracle without luck in worlds where it is known who knows."""

import numpy as np
import pytest

from hierrouter.evaluation.policies.luck import guessing

CHOICES = 4


def world(spread, rng, routes=12, queries=300):
    """Who knows and who is right, where ease is normal with a spread over queries."""
    skill = rng.uniform(-0.5, 1.0, routes)
    ease = spread * rng.standard_normal((queries, 1))
    knows = rng.random((queries, routes)) < 1 / (1 + np.exp(-skill - ease))
    return knows, (knows | (rng.random((queries, routes)) < 1 / CHOICES)).astype(float)


def fit(right, choices=CHOICES):
    return guessing(right, np.array(["t"] * len(right)), np.full(len(right), choices))


def biases(spread, alpha, routes=12):
    """Mean error of the plain and the corrected oracle's reward over eight worlds."""
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(8):
        knows, right = world(spread, rng, routes)
        cost = rng.uniform(0.2, 1.0, routes) * rng.uniform(0.8, 1.2, right.shape)
        truth = (np.where(knows, 1, 1 / CHOICES) - alpha * cost).max(axis=1).mean()
        plain = (right - alpha * cost).max(axis=1).mean()
        errors.append((plain - truth, fit(right).oracle(cost, alpha).reward.mean() - truth))
    return np.mean(errors, axis=0)


def test_twelve_guesses_are_no_knowledge():
    right = (np.random.default_rng(0).random((6, 400, 12)) < 1 / CHOICES).astype(float)
    assert right.max(axis=2).mean() == pytest.approx(0.97, abs=0.01)
    found = [fit(each).oracle(np.ones_like(each), 0.0).quality.mean() for each in right]
    # Chance makes some routes look as if they knew a little; what they do not is not negative.
    assert 1 / CHOICES <= np.mean(found) < 1 / CHOICES + 0.1


@pytest.mark.parametrize("alpha", [0.0, 0.2])
@pytest.mark.parametrize(("spread", "routes"), [(1.5, 12), (4.0, 12), (1.5, 3), (4.0, 3)])
def test_the_bias_of_the_plain_oracle_is_mostly_gone(spread, routes, alpha):
    plain, corrected = biases(spread, alpha, routes)
    assert plain > 0.02
    assert abs(corrected) < 0.3 * plain


def test_where_a_query_is_known_to_all_or_none_half_of_the_bias_is_gone():
    # Far from normal: what the model cannot say it calls knowledge, not luck.
    rng = np.random.default_rng(1)
    knows = np.tile(rng.random((600, 1)) < 0.5, (1, 12))
    right = (knows | (rng.random((600, 12)) < 1 / CHOICES)).astype(float)
    truth = np.where(knows.any(axis=1), 1, 1 / CHOICES).mean()
    plain = right.max(axis=1).mean() - truth
    corrected = fit(right).oracle(np.ones_like(right), 0.0).quality.mean() - truth
    assert plain > 0.3
    assert 0 < corrected < 0.6 * plain


def test_nothing_is_taken_off_where_nothing_can_be_guessed():
    rng = np.random.default_rng(2)
    quality, cost = rng.random((50, 5)), rng.random((50, 5))
    found = fit(quality, 0).oracle(cost, 0.3)
    reward = quality - 0.3 * cost
    np.testing.assert_allclose(found.reward, reward.max(axis=1))
    rows = np.arange(50)
    np.testing.assert_allclose(found.relative_cost, cost[rows, reward.argmax(axis=1)])


def test_all_right_all_the_time_is_knowledge_and_goes_to_the_cheapest():
    right = np.ones((100, 6))
    cost = np.tile([3.0, 2, 1, 4, 5, 6], (100, 1))
    for alpha in (0.0, 0.1):
        found = fit(right).oracle(cost, alpha)
        assert found.quality.mean() > 0.99
        assert found.relative_cost.mean() == pytest.approx(1, abs=0.05)


def test_knowledge_that_costs_more_than_it_is_worth_is_left():
    right = np.tile([0.0, 1.0], (100, 1))
    cost = np.tile([0.1, 2.0], (100, 1))
    dear = fit(right).oracle(cost, 1.0)
    np.testing.assert_allclose(dear.quality, 1 / CHOICES)
    np.testing.assert_allclose(dear.relative_cost, 0.1)


def test_tasks_and_numbers_of_choices_are_told_apart():
    rng = np.random.default_rng(3)
    known = np.ones((60, 8))
    guessed = (rng.random((60, 8)) < 1 / 3).astype(float)
    free = rng.random((40, 8))
    quality = np.concatenate([known, guessed, free])
    tasks = np.repeat(["known", "guessed", "free"], [60, 60, 40])
    choices = np.repeat([4, 3, 0], [60, 60, 40])
    found = guessing(quality, tasks, choices).oracle(np.ones_like(quality), 0.0).quality
    assert found[:60].mean() > 0.98
    assert found[60:120].mean() == pytest.approx(1 / 3, abs=0.1)
    np.testing.assert_array_equal(found[120:], free.max(axis=1))


def test_a_quality_between_right_and_wrong_has_no_guesses():
    with pytest.raises(ValueError, match="right or wrong"):
        fit(np.full((3, 2), 0.5))
    assert fit(np.full((3, 2), 0.5), 0).oracle(np.ones((3, 2)), 0.0).quality.tolist() == [0.5] * 3

"""Diagnostics of hand-made routings."""

import numpy as np
import pytest

from hierrouter.evaluation.diagnostics import agreement, calibration, regret, usage


def test_usage_of_all_alike_and_of_one():
    even = usage(np.full(4, 0.25))
    assert (even.entropy, even.top_share, even.effective, even.used) == pytest.approx(
        (1, 0.25, 4, 4)
    )
    one = usage(np.array([0.0, 7, 0]))
    assert (one.entropy, one.top_share, one.effective, one.used) == (0, 1, 1, 1)
    assert usage(np.array([1.0])).entropy == 0


def test_routes_that_are_not_listed_count_in_the_entropy():
    # Two of the four that there are: half of what all alike would have.
    found = usage(np.array([0.5, 0.5]), possible=4)
    assert found.entropy == pytest.approx(0.5)
    assert (found.effective, found.used) == (pytest.approx(2), 2)


def test_usage_by_hand():
    found = usage(np.array([0.5, 0.25, 0.25, 0]))
    assert found.entropy == pytest.approx(1.5 / 2)  # in bits
    assert found.effective == pytest.approx(2**1.5)
    assert found.used == 3
    for wrong in ([0.0, 0], [-1.0, 2], []):
        with pytest.raises(ValueError, match="shares"):
            usage(np.array(wrong))


def test_agreement_by_hand():
    # Three seeds, four queries: all agree, all agree, two of three, none.
    taken = np.array([[0, 1, 0, 0], [0, 1, 0, 1], [0, 1, 1, 2]])
    found = agreement(taken, 3)
    assert found.share == pytest.approx((1 + 1 + 1 / 3 + 0) / 4)
    chance = (6**2 + 5**2 + 1**2) / 12**2
    assert found.kappa == pytest.approx((found.share - chance) / (1 - chance))


def test_agreement_at_its_ends():
    same = np.tile([0, 1, 2, 1], (5, 1))
    assert (agreement(same, 3).share, agreement(same, 3).kappa) == (1, 1)
    collapsed = agreement(np.zeros((5, 9), dtype=np.int64), 3)
    assert (collapsed.share, collapsed.kappa) == (1, None)
    alone = agreement(np.zeros((1, 9), dtype=np.int64), 3)
    assert (alone.share, alone.kappa) == (None, None)
    blind = np.random.default_rng(0).integers(3, size=(5, 20_000))
    assert agreement(blind, 3).kappa == pytest.approx(0, abs=0.01)


def test_calibration_by_hand():
    found = calibration(np.array([0.2, 0.2, 0.8, 0.8]), np.array([0.0, 1, 1, 1]), bins=2)
    assert found.bins == ((2, pytest.approx(0.2), 0.5), (2, pytest.approx(0.8), 1))
    assert found.error == pytest.approx((0.3 + 0.2) / 2)
    assert found.slope == pytest.approx(0.5 / 0.6)
    assert found.intercept == pytest.approx(0.5 - 0.2 * 0.5 / 0.6)


def test_right_predictions_have_slope_one_and_overconfident_ones_less():
    rng = np.random.default_rng(0)
    chance = rng.random(50_000)
    right = (rng.random(50_000) < chance).astype(float)
    good = calibration(chance, right)
    assert good.error < 0.01
    assert (good.slope, good.intercept) == pytest.approx((1, 0), abs=0.02)
    assert {count for count, _, _ in good.bins} == {5000}
    sure = calibration(0.5 + 2 * (chance - 0.5), right)
    assert sure.slope == pytest.approx(0.5, abs=0.02)
    assert sure.error == pytest.approx(0.25, abs=0.01)


def test_the_same_prediction_for_all_does_not_depend_on_the_order():
    found = calibration(np.full(20, 0.5), np.repeat([0.0, 1.0], 10))
    assert found.error == pytest.approx(0)
    assert (found.slope, found.intercept) == (None, None)
    assert calibration(np.array([0.3]), np.array([1.0])).error == pytest.approx(0.7)
    with pytest.raises(ValueError, match="as many"):
        calibration(np.zeros(3), np.zeros(2))


def test_regret_by_hand():
    found = regret(np.array([0.0, 0.5, 1, 1]), np.array([1.0, 1, 1, 1]), (0.5, 1))
    assert (found.mean, found.none) == (0.375, 0.5)
    assert found.quantiles == {0.5: 0.25, 1: 1}

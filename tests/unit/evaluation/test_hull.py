"""Hulls and areas of hand-made points, whose values can be worked out."""

import numpy as np
import pytest

from hierrouter.evaluation.tradeoff.hull import aiq, hull, weights


def vertices(curve):
    return list(zip(curve.cost.tolist(), curve.quality.tolist(), strict=True))


def test_a_point_under_the_line_between_two_others_is_no_vertex():
    curve = hull([1, 2, 3], [0.2, 0.3, 0.8])
    assert vertices(curve) == [(1, 0.2), (3, 0.8)]
    assert curve.points.tolist() == [0, 2]
    assert curve.at(2) == pytest.approx(0.5)  # the mix, above the point's own .3


def test_a_point_over_the_line_is_a_vertex_wherever_it_stands_in_the_list():
    curve = hull([3, 1, 2], [0.8, 0.2, 0.7])
    assert vertices(curve) == [(1, 0.2), (2, 0.7), (3, 0.8)]
    assert curve.points.tolist() == [1, 2, 0]


def test_a_point_on_the_line_is_no_vertex():
    assert vertices(hull([0, 1, 2], [0.25, 0.5, 0.75])) == [(0, 0.25), (2, 0.75)]


def test_quality_that_falls_with_cost_leaves_the_cheapest():
    curve = hull([1, 2, 3], [0.9, 0.5, 0.7])
    assert vertices(curve) == [(1, 0.9)]
    assert curve.at([1, 2, 10]).tolist() == [0.9, 0.9, 0.9]


def test_the_hull_ends_at_the_best_and_is_flat_beyond():
    curve = hull([1, 2, 3], [0.2, 0.8, 0.6])
    assert vertices(curve) == [(1, 0.2), (2, 0.8)]
    assert curve.at([2.5, 99]).tolist() == [0.8, 0.8]


def test_of_equal_costs_the_best_counts_and_of_equal_points_the_first():
    curve = hull([1, 1, 1, 2, 2], [0.1, 0.4, 0.4, 0.6, 0.6])
    assert vertices(curve) == [(1, 0.4), (2, 0.6)]
    assert curve.points.tolist() == [1, 3]
    assert vertices(hull([1, 2], [0.5, 0.5])) == [(1, 0.5)]  # as good and dearer


def test_below_the_cheapest_point_only_a_share_is_answered():
    curve = hull([2, 4], [0.6, 0.8])
    assert curve.at([0, 1, 2, 3]).tolist() == pytest.approx([0, 0.3, 0.6, 0.7])
    free = hull([0, 4], [0.6, 0.8])
    assert free.at([0, 2]).tolist() == pytest.approx([0.6, 0.7])


def test_all_free_is_one_point():
    curve = hull([0, 0, 0], [0.3, 0.7, 0.5])
    assert vertices(curve) == [(0, 0.7)]
    assert aiq(curve, 0, 0) == 0.7
    assert aiq(curve, 0, 1) == 0.7


def test_the_cost_of_a_quality_is_the_least():
    curve = hull([1, 3], [0.2, 0.8])
    assert curve.cost_of(0.5) == pytest.approx(2)
    assert curve.cost_of(0.1) == 1
    assert curve.cost_of(0.8) == 3
    assert curve.cost_of(0.81) is None


def test_aiq_is_the_area_over_the_range():
    curve = hull([1, 3], [0.2, 0.8])
    assert aiq(curve, 1, 3) == pytest.approx(0.5)
    # Flat beyond 3: (2 * .5 + 2 * .8) / 4.
    assert aiq(curve, 1, 5) == pytest.approx(0.65)
    # A line from nothing up to 1: (1 * .1 + 2 * .5) / 3.
    assert aiq(curve, 0, 3) == pytest.approx(1.1 / 3)
    assert aiq(curve, 2, 2) == pytest.approx(0.5)
    bent = hull([0, 1, 3], [0, 0.6, 0.8])
    assert aiq(bent, 0, 3) == pytest.approx((0.3 + 1.4) / 3)
    assert aiq(bent, 0.5, 2) == pytest.approx((0.5 * 0.45 + 1 * 0.65) / 1.5)
    with pytest.raises(ValueError, match="range"):
        aiq(curve, 3, 1)


def test_the_zero_router_is_what_mixing_single_models_gets():
    # A at (1, .4), B at (2, .6), C at (4, .65): a coin between A and B beats a worse model D.
    zero = hull([1, 2, 4, 1.5], [0.4, 0.6, 0.65, 0.45])
    assert zero.at(1.5) == pytest.approx(0.5)
    assert aiq(zero, 1, 4) == pytest.approx((0.5 + 2 * 0.625) / 3)


def test_hulls_hold_all_points_and_are_concave_and_rising():
    rng = np.random.default_rng(0)
    for _ in range(200):
        cost, quality = np.round(rng.random((2, rng.integers(1, 12))), 1)
        curve = hull(cost, quality)
        assert (curve.at(cost) >= quality - 1e-12).all()
        assert (np.diff(curve.cost) > 0).all()
        assert (np.diff(curve.quality) > 0).all()
        slopes = np.diff(curve.quality) / np.diff(curve.cost)
        assert (np.diff(slopes) < 1e-12).all()
        assert (curve.quality == quality[curve.points]).all()


@pytest.mark.parametrize(
    ("cost", "quality"),
    [([], []), ([1, 2], [0.5]), ([-1], [0.5]), ([1], [np.nan]), ([np.inf], [0.5])],
)
def test_points_that_are_none_are_refused(cost, quality):
    with pytest.raises(ValueError, match="hull"):
        hull(cost, quality)


@pytest.mark.parametrize(
    ("cost", "low", "high", "expected"),
    [
        ([1, 3], 1, 3, [0.5, 0.5]),
        ([3, 1], 1, 3, [0.5, 0.5]),
        ([2], 1, 3, [(0.75 + 1) / 2]),  # a line from nothing, then flat
        ([1, 1, 3], 1, 3, [0.25, 0.25, 0.5]),  # of the same cost: mixed evenly
        ([1, 2, 3], 1, 3, [0.25, 0.5, 0.25]),
        ([1, 3], 2, 2, [0.5, 0.5]),
        ([0, 0], 0, 0, [0.5, 0.5]),
    ],
)
def test_the_weights_of_points_are_their_shares_of_the_area(cost, low, high, expected):
    assert weights(cost, low, high) == pytest.approx(expected)


def test_on_a_hull_the_weighted_mean_is_its_area():
    curve = hull([1, 2, 4, 3], [0.1, 0.6, 0.9, 0.2])
    share = weights(curve.cost, 0.5, 5)
    assert share @ curve.quality == pytest.approx(aiq(curve, 0.5, 5))

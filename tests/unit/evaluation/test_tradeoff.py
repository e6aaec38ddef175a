"""Gap recovered and thresholds of curves on which they can be read off."""

import numpy as np
import pytest

from hierrouter.evaluation.tradeoff.recovery import Endpoint, tradeoff

WEAK = Endpoint("small", 0.4, 1.0)
STRONG = Endpoint("big", 0.8, 5.0)


def of(quality, cost, calls, weak=WEAK, strong=STRONG):
    return tradeoff(weak, strong, np.array(quality), np.array(cost), np.array(calls))


def test_a_coin_between_weak_and_strong_recovers_what_it_pays_for():
    found = of([0.8], [5.0], [1.0])
    assert found.pgr == pytest.approx([1])
    assert found.apgr_calls == pytest.approx(0.5)
    assert found.apgr_cost == pytest.approx(0.5)
    assert [each.calls for each in found.thresholds] == pytest.approx([0.5, 0.8, 0.95])
    assert [each.relative_cost for each in found.thresholds] == pytest.approx([3, 4.2, 4.8])
    assert found.reason is None


def test_a_router_that_knows_needs_fewer_calls():
    # Half the gap for a tenth of the calls, all of it for four tenths.
    found = of([0.6, 0.8], [1.5, 2.5], [0.1, 0.4])
    assert found.pgr == pytest.approx([0.5, 1])
    assert [each.calls for each in found.thresholds] == pytest.approx([0.1, 0.28, 0.37])
    assert [each.relative_cost for each in found.thresholds] == pytest.approx([1.5, 2.1, 2.4])
    # .1 * .25 + .3 * .75 + .6 * 1
    assert found.apgr_calls == pytest.approx(0.85)
    # Of four cost units: .5 * .25 + 1 * .75 + 2.5 * 1.
    assert found.apgr_cost == pytest.approx(3.375 / 4)


def test_what_is_not_reached_is_none_with_its_reason():
    found = of([0.68], [2.0], [0.5])
    assert [each.calls is None for each in found.thresholds] == [False, True, True]
    assert found.thresholds[0].calls == pytest.approx(0.5 * 0.2 / 0.28)
    assert found.reason.startswith("At most 70% of the gap between small and big is recovered")
    assert "80%, 95%" in found.reason
    assert found.apgr_calls == pytest.approx(0.5 * 0.35 + 0.5 * 0.7)


@pytest.mark.parametrize("quality", [0.4, 0.3])
def test_no_gap_leaves_all_undefined_with_the_reason(quality):
    found = of([0.6], [1.0], [0.2], strong=Endpoint("big", quality, 5.0))
    assert found.pgr is None
    assert found.apgr_calls is None
    assert found.apgr_cost is None
    assert found.thresholds == ()
    assert "no gap" in found.reason


def test_better_than_strong_is_over_one_and_worse_than_weak_under_zero():
    found = of([1.0, 0.2], [2.0, 0.5], [0.5, 0.1])
    assert found.pgr == pytest.approx([1.5, -0.5])
    assert found.thresholds[0].calls == pytest.approx(0.5 / 3)


def test_a_level_that_a_point_reaches_exactly_is_reached():
    # .34 is 80% of the way from .1 to .4, but .1 + .8 * (.4 - .1) is a little more.
    weak, strong = Endpoint("w", 0.1, 1.0), Endpoint("s", 0.4, 2.0)
    found = of([0.34], [1.5], [0.7], weak, strong)
    assert found.thresholds[1].calls == pytest.approx(0.7)


def test_a_strong_model_that_is_no_dearer_has_no_cost_range():
    found = of([0.8], [1.0], [1.0], strong=Endpoint("big", 0.8, 1.0))
    assert found.apgr_cost is None
    assert found.apgr_calls == pytest.approx(0.5)

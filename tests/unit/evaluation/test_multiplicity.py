"""Holm's correction and the power of paired differences against closed forms."""

from statistics import NormalDist

import numpy as np
import pytest

from hierrouter.evaluation.statistics.crossed import Parts, variance_parts
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.evaluation.statistics.multiplicity import holm, queries_needed


def test_holm_by_hand():
    found = holm({"c": 0.03, "a": 0.01, "d": 0.005, "b": 0.04})
    assert list(found) == ["c", "a", "d", "b"]
    # Smallest first: 4 * .005, 3 * .01, 2 * .03, and .04, which may not be less than .06.
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_holm_of_one_changes_nothing_and_never_passes_one():
    assert holm({"a": 0.03}) == {"a": 0.03}
    assert holm({"a": 0.5, "b": 0.6, "c": 1.0}) == {"a": 1, "b": 1, "c": 1}
    assert holm({"a": 0.02, "b": 0.02}) == {"a": 0.04, "b": 0.04}
    assert holm({}) == {}
    with pytest.raises(ValueError, match="b"):
        holm({"a": 0.1, "b": 1.5})


def test_holm_keeps_the_chance_of_any_false_alarm():
    rng = np.random.default_rng(0)
    alarms = [
        min(holm(dict(enumerate(rng.random(5)))).values()) < 0.05  # all five are chance
        for _ in range(4000)
    ]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.01)


def disagreement_parts(share, queries):
    """Two policies of equal accuracy that differ by right against wrong on a share of queries."""
    return Parts(np.zeros(1), np.array([share / queries]), np.zeros(1))


def test_three_points_at_thirty_percent_disagreement_take_2600_queries():
    need = queries_needed(disagreement_parts(0.3, 540), 540, 0.03)
    # (1.95996 + .84162)^2 * .3 / .03^2
    assert need.queries == 2617
    assert need.seen == pytest.approx(2.80158 * np.sqrt(0.3 / 540), rel=1e-4)
    assert need.seen_at_best == 0
    assert queries_needed(disagreement_parts(0.3, 10), 10, -0.03).queries == 2617


def test_the_number_of_queries_has_the_power_that_it_promises():
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 0.5, (1, 400, 1))
    parts = variance_parts(values, Bootstrap(np.array(["t"] * 400), 100, 0))
    n = queries_needed(parts, 400, 0.1).queries
    scores = rng.normal(0.1, np.sqrt(parts.queries[0] * 400), (4000, n)).mean(axis=1)
    seen = np.abs(scores) > 1.95996 * np.sqrt(parts.queries[0] * 400 / n)
    assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_seeds_are_a_floor_that_queries_do_not_remove():
    parts = Parts(np.array([4e-4]), np.array([9e-4]), np.array([1e-4]))
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    need = queries_needed(parts, 100, 0.06)
    assert need.queries == np.ceil(0.09 / ((0.06 / z) ** 2 - 3e-4))
    assert need.seen_at_best == pytest.approx(z * np.sqrt(3e-4))
    assert need.seen == pytest.approx(z * np.sqrt(12e-4))
    hopeless = queries_needed(parts, 100, 0.04)
    assert hopeless.queries is None
    assert "train more seeds" in hopeless.reason


def test_what_the_present_queries_see_needs_just_these():
    parts = Parts(np.array([4e-4]), np.array([9e-4]), np.array([1e-4]))
    assert queries_needed(parts, 100, queries_needed(parts, 100, 1.0).seen).queries == 100


def test_power_is_about_one_difference():
    with pytest.raises(ValueError, match="not 0"):
        queries_needed(disagreement_parts(0.3, 10), 10, 0.0)
    with pytest.raises(ValueError, match="one difference"):
        queries_needed(Parts(*np.zeros((3, 2))), 10, 0.1)

"""The bootstrap crossed over seeds and queries against closed forms and simulated studies."""

import numpy as np
import pytest

from hierrouter.evaluation.statistics.crossed import Crossed, compare, difference, variance_parts
from hierrouter.evaluation.statistics.intervals import SMALL, Bootstrap, Means, intervals

ONE_TASK = np.array(["t"] * 40)


def resamples_of(values, tasks=ONE_TASK, count=4000, seed=0):
    return Crossed(Bootstrap(tasks, count, seed), len(values)).overall(values)


def test_a_single_seed_gives_the_bootstrap_over_queries_a_little_wider():
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b"], [25, 15])
    values = rng.random((1, 40, 2))
    plain = Bootstrap(tasks, 500, 3)
    ends = np.zeros(2)
    by_task = plain.by_task(values[0], ends, ends)
    expected = values[0].mean(axis=0) + sum(
        n / 40 * np.sqrt(n / (n - 1)) * (by_task[task].resampled - by_task[task].measured)
        for task, n in (("a", 25), ("b", 15))
    )
    found = resamples_of(values, tasks, 500, 3)
    np.testing.assert_allclose(found.resampled, expected)
    np.testing.assert_allclose(found.measured, values.mean(axis=(0, 1)))


def test_what_is_widened_is_the_queries_part_alone():
    values = np.random.default_rng(4).normal(size=(5, 40, 1))
    bootstrap = Bootstrap(ONE_TASK, 500, 3)
    plain, wide, one = (
        Crossed(bootstrap, 5, factor).overall(values).resampled for factor in (1.0, 2.0, 0.0)
    )
    # Without its queries' part a resample is moved by the seeds drawn, whatever the factor.
    np.testing.assert_allclose(wide - one, 2 * (plain - one))
    alike = np.tile(values[:, :1], (1, 40, 1))
    same = [Crossed(bootstrap, 5, factor).overall(alike).resampled for factor in (1.0, 2.0)]
    np.testing.assert_allclose(*same)
    by_hand, parts = variance_parts(values, bootstrap), Crossed(bootstrap, 5, 2.0).parts(values)
    assert (parts.seeds, parts.both) == (by_hand.seeds, by_hand.both)
    assert parts.queries == pytest.approx(4 * by_hand.queries)


def test_seeds_alone_give_students_interval():
    # All queries alike: five numbers, of which the mean is known as in Student's t with 4 degrees.
    means = np.array([0.1, 0.25, 0.3, 0.35, 0.5])
    found = resamples_of(np.tile(means[:, None, None], (1, 40, 1)), count=40_000)
    error = means.std(ddof=1) / np.sqrt(5)
    (got,) = compare(found, 0.95)
    assert got.mean == pytest.approx(0.3)
    assert got.high - got.mean == pytest.approx(2.776 * error, rel=0.06)
    assert got.mean - got.low == pytest.approx(2.776 * error, rel=0.06)
    assert got.mean - got.at_least == pytest.approx(2.132 * error, rel=0.06)


def test_queries_alone_give_the_normal_interval_however_many_seeds():
    rng = np.random.default_rng(1)
    tasks = np.repeat(["a", "b"], [1500, 500])
    same = np.where(tasks == "a", rng.random(2000) < 0.8, rng.random(2000) < 0.3).astype(float)
    (found,) = intervals(resamples_of(np.tile(same[None, :, None], (5, 1, 1)), tasks), 0.95)
    within = sum((tasks == t).sum() * same[tasks == t].var() for t in ("a", "b")) / 2000**2
    assert found["high"] - found["mean"] == pytest.approx(1.96 * np.sqrt(within), rel=0.06)


def test_what_seeds_and_queries_do_together_is_counted_once():
    # Independent coins of each seed and query: the variance of the mean is .25 / (S N).
    values = (np.random.default_rng(2).random((5, 400, 300)) < 0.5).astype(float)
    tasks = np.array(["t"] * 400)
    found = resamples_of(values, tasks, 2000)
    assert found.resampled.var(axis=0).mean() / (0.25 / 2000) == pytest.approx(1.5, abs=0.4)
    # Drawing both from the cells would count it three times.


def test_variance_parts_by_hand():
    # Seeds -1 and 1, queries -2, 0 and 2, and an interaction of +-1 on the first and the last.
    values = np.array([[-4.0, -1, 2], [0, 1, 2]])[:, :, None]
    parts = variance_parts(values, Bootstrap(np.array(["t"] * 3), 10, 0))
    assert parts.seeds == pytest.approx(2 / 2)  # means -1 and 1
    assert parts.queries == pytest.approx(8 / 2 / 3)  # means -2, 0, 2
    assert parts.both == pytest.approx(4 / (2 * 1 * 3 * 2))
    assert parts.seeds_alone == pytest.approx(2 / 3)
    assert parts.total == pytest.approx(2)


def test_variance_parts_are_unbiased_within_strata():
    rng = np.random.default_rng(3)
    counts, studies = (30, 12, 3, 4), 4000
    tasks = np.repeat(["a", "b", "c", "d"], counts)
    level = np.where(tasks == "a", 5.0, 0.0)  # between larger tasks nothing is drawn
    seed, query = rng.normal(0, 0.3, (4, 1, studies)), rng.normal(0, 1.0, (1, 49, studies))
    values = level[:, None] + seed + query + rng.normal(0, 0.8, (4, 49, studies))
    parts = variance_parts(values, Bootstrap(tasks, 10, 0))
    assert parts.both.mean() == pytest.approx(0.64 / (4 * 49), rel=0.03)
    assert parts.queries.mean() == pytest.approx(1 / 49 + 0.64 / (4 * 49), rel=0.03)
    assert parts.seeds.mean() == pytest.approx(0.09 / 4 + 0.64 / (4 * 49), rel=0.06)


def test_one_seed_says_nothing_of_seeds():
    parts = variance_parts(np.random.default_rng(0).random((1, 40, 1)), Bootstrap(ONE_TASK, 10, 0))
    assert (parts.seeds, parts.both) == (0, 0)


def test_constant_values_have_no_width_and_p_of_one_at_zero():
    found = resamples_of(np.zeros((5, 40, 1)), count=200)
    (got,) = compare(found, 0.95)
    assert (got.mean, got.low, got.high, got.p) == (0, 0, 0, 1)
    (one,) = compare(resamples_of(np.full((5, 40, 1), 0.1), count=200), 0.95)
    assert (one.low, one.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert one.p == pytest.approx(2 / 201)


def test_bounds_and_p_of_hand_made_resamples():
    resampled = np.arange(-2.0, 97)[:, None]  # 99: two below 0, one at 0
    (got,) = compare(Means(np.array([47.0]), resampled), 0.9)
    assert got.p == pytest.approx(2 * (1 + 3) / 100)
    assert (got.low, got.high) == (pytest.approx(2.9), pytest.approx(91.1))
    assert (got.at_least, got.at_most) == (pytest.approx(7.8), pytest.approx(86.2))
    (mirrored,) = compare(Means(np.array([-47.0]), -resampled), 0.9)
    assert mirrored.p == pytest.approx(got.p)


def test_resamples_are_paired_over_policies():
    values = np.random.default_rng(4).random((5, 40, 1))
    one, other = resamples_of(values), resamples_of(values + 0.25)
    np.testing.assert_allclose(other.resampled - one.resampled, 0.25)
    both = resamples_of(np.concatenate([values, values + 0.25], axis=2))
    np.testing.assert_allclose(both.resampled[:, :1], one.resampled)


def test_differences_pair_seeds_and_queries():
    mine, theirs = np.arange(6.0).reshape(2, 3), np.array([1.0, 1, 1])
    expected = mine - 1
    for other in (theirs, theirs[None]):
        np.testing.assert_array_equal(difference(mine, other)[:, :, 0], expected)
        np.testing.assert_array_equal(difference(other, mine)[:, :, 0], -expected)
    np.testing.assert_array_equal(difference(mine, mine), np.zeros((2, 3, 1)))
    assert difference(theirs, theirs).shape == (1, 3, 1)
    with pytest.raises(ValueError, match="queries"):
        difference(mine, np.zeros(4))
    with pytest.raises(ValueError, match="seeds"):
        difference(mine, np.zeros((3, 3)))


def test_other_shapes_than_seeds_and_queries_are_refused():
    crossed = Crossed(Bootstrap(ONE_TASK, 100, 0), 5)
    for shape in ((4, 40, 1), (5, 39, 1), (5, 40)):
        with pytest.raises(ValueError, match="shape"):
            crossed.overall(np.zeros(shape))


def test_a_task_is_resampled_from_its_own_and_one_query_has_the_whole_range():
    rng = np.random.default_rng(5)
    tasks = np.array(["a"] + ["b"] * 30)
    values = rng.random((3, 31, 1))
    crossed = Crossed(Bootstrap(tasks, 500, 0), 3)
    means = crossed.by_task(values, np.zeros(1), np.ones(1))
    assert intervals(means["a"], 0.95)[0]["low"] == 0
    assert intervals(means["a"], 0.95)[0]["high"] == 1
    assert means["a"].measured == pytest.approx(values[:, 0].mean())
    alone = Crossed(Bootstrap(tasks[1:], 500, 0), 3).overall(values[:, 1:])
    np.testing.assert_allclose(means["b"].resampled, alone.resampled)


def test_small_tasks_are_one_stratum():
    tasks = np.array(["a"] * SMALL + ["b"] * 4 + ["c"])
    strata = Bootstrap(tasks, 10, 0).strata
    assert {name: len(rows) for name, rows in strata.items()} == {"/a": SMALL, "": 5}
    # What tells b from c counts as chance, else five alike would have no width.
    values = np.where(tasks == "c", 1.0, 0.0)[None, :, None]
    assert resamples_of(values, tasks).resampled.std() > 0.01


@pytest.mark.parametrize(
    ("seed_spread", "query_spread", "together"),
    [(0, 0.55, 0), (0, 0, 0.55), (0.01, 0.5, 0.3), (0.03, 0.5, 0.3), (0.2, 0.3, 0.3)],
)
def test_coverage_with_seeds_and_queries_drawn(seed_spread, query_spread, together):
    rng = np.random.default_rng(6)
    studies, tasks = 1000, np.repeat(list("abcdef"), 30)
    values = (
        rng.normal(0, seed_spread, (5, 1, studies))
        + rng.normal(0, query_spread, (1, 180, studies))
        + rng.normal(0, together, (5, 180, studies))
    )
    low, high = resamples_of(values, tasks, 2000).ends(0.95)
    # The binomial's standard error is .007.
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.975

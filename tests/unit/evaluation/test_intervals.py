"""The bootstrap against closed forms."""

import numpy as np
import pytest

from hierrouter.evaluation.statistics import intervals as module
from hierrouter.evaluation.statistics.intervals import SMALL, Bootstrap, intervals


def by_task(bootstrap, values):
    ends = np.zeros(values.shape[1])
    return bootstrap.by_task(values, ends, ends + 1)


def overall(bootstrap, values):
    return bootstrap.overall(values, by_task(bootstrap, values))


def coverage(counts, truths, seed, nominal=0.9, experiments=400):
    """How often the interval of many experiments with right or wrong answers holds the truth."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat([f"task{k}" for k in range(len(counts))], counts)
    truth = np.repeat(truths, counts)
    trials = (rng.random((len(tasks), experiments)) < truth[:, None]).astype(float)
    found = intervals(overall(Bootstrap(tasks, 600, 5), trials), nominal)
    return np.mean([one["low"] <= truth.mean() <= one["high"] for one in found])


def test_constant_values_have_no_width():
    tasks = np.array(["a"] * 15 + ["b"] * 11)
    # Within each task all queries are alike, so resampling within tasks changes nothing.
    values = np.where(tasks == "a", 0.3, 0.9)[:, None]
    (found,) = intervals(overall(Bootstrap(tasks, 200, 0), values), 0.95)
    assert found["mean"] == pytest.approx((15 * 0.3 + 11 * 0.9) / 26)
    assert found["low"] == pytest.approx(found["mean"])
    assert found["high"] == pytest.approx(found["mean"])


def test_every_resample_keeps_the_count_of_larger_tasks_and_of_the_small_together():
    tasks = np.array(["a"] * 30 + ["b"] * 5 + ["c"] * SMALL + ["d"])
    columns = [tasks == "a", tasks == "c", np.isin(tasks, ["b", "d"]), tasks == "b"]
    found = overall(Bootstrap(tasks, 50, 3), np.stack(columns, axis=1).astype(float)).resampled
    np.testing.assert_allclose(found[:, :3], np.tile([30, SMALL, 6], (50, 1)) / len(tasks))
    assert len(np.unique(found[:, 3])) > 1  # how many of the small are b varies
    drawn = np.concatenate(list(Bootstrap(tasks, 50, 3).weights("/a", 30)))
    assert (drawn.sum(axis=1) == 30).all()
    assert len(np.unique(drawn, axis=0)) == 50


def test_single_queries_of_six_tasks_do_not_pass_for_certainty():
    tasks = np.array(list("abcdef"))
    values = np.array([1.0, 0, 1, 1, 0, 1])[:, None]
    means = by_task(Bootstrap(tasks, 1000, 0), values)
    (found,) = intervals(Bootstrap(tasks, 1000, 0).overall(values, means), 0.95)
    assert found["mean"] == pytest.approx(4 / 6)
    # The binomial's quantiles: P(at most 1 of 6 right) = .018, P(at most 2) = .1.
    assert found["low"] == pytest.approx(2 / 6)
    assert found["high"] == 1


def test_a_task_of_one_query_has_the_whole_range():
    tasks = np.array(["a", "b", "b"])
    values = np.array([[1.0, 0.4], [1, 0.1], [0, 0.3]])
    means = Bootstrap(tasks, 500, 0).by_task(values, np.array([0.0, 2]), np.array([1.0, 0]))
    quality, cost = intervals(means["a"], 0.95)
    assert quality == {"mean": 1, "low": 0, "high": 1}
    assert cost == {"mean": 0.4, "low": 0, "high": 2}
    reward = means["a"].resampled @ [1, -0.1]  # the worst quality goes with the highest cost
    assert (reward.min(), reward.max()) == (pytest.approx(-0.2), 1)
    own = intervals(means["b"], 0.95)[1]
    assert (own["low"], own["high"]) == (pytest.approx(0.1), pytest.approx(0.3))


@pytest.mark.parametrize(
    ("counts", "truths"),
    [
        ([1] * 12, [0.3, 0.7] * 6),
        ([1, 2, 3, 1, 2, 3], [0.3, 0.5, 0.6, 0.7, 0.4, 0.5]),
        ([3] * 6, [0.2, 0.8, 0.5, 0.3, 0.7, 0.5]),
        ([2] * 10 + [30], [0.5] * 10 + [0.7]),
    ],
)
def test_coverage_with_few_queries_a_task_is_not_far_under_the_stated(counts, truths):
    # Percentile intervals of a dozen queries come a few points short; what tells tasks apart makes
    # them wider.
    assert 0.84 <= coverage(counts, truths, seed=6) <= 0.97


def test_large_samples_agree_with_the_normal_approximation():
    rng = np.random.default_rng(1)
    tasks = np.repeat(["a", "b"], [1500, 500])
    values = np.where(tasks == "a", rng.random(2000) < 0.8, rng.random(2000) < 0.3).astype(float)
    (found,) = intervals(overall(Bootstrap(tasks, 8000, 2), values[:, None]), 0.95)
    within = sum((tasks == t).sum() * values[tasks == t].var() for t in ("a", "b")) / 2000**2
    half = 1.96 * np.sqrt(within)
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.08 * half)
    # Unstratified, the spread between the tasks would make it wider by far more than that.
    assert 1.96 * np.sqrt(values.var() / 2000) > 1.1 * half


def test_coverage_is_as_stated():
    # The binomial's standard error is .015; discreteness costs a little.
    assert 0.84 <= coverage([60, 60], [0.7, 0.2], seed=4) <= 0.95


def test_resamples_are_paired_across_calls_and_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b"], [40, 20])
    x = rng.random(60)
    bootstrap = Bootstrap(tasks, 300, 7)
    one = overall(bootstrap, x[:, None]).resampled
    other = overall(bootstrap, (x + 0.25)[:, None]).resampled
    np.testing.assert_allclose(other - one, 0.25)
    monkeypatch.setattr(module, "CHUNK", 100)
    np.testing.assert_allclose(overall(bootstrap, x[:, None]).resampled, one)


def test_the_seed_decides():
    values = np.random.default_rng(0).random((50, 1))
    tasks = np.array(["a"] * 50)
    first, same, other = (
        overall(Bootstrap(tasks, 200, seed), values).resampled for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_confidence_sets_the_quantiles():
    values = np.random.default_rng(0).random((50, 1))
    means = overall(Bootstrap(np.array(["a"] * 50), 1000, 0), values)
    (narrow,), (wide,) = intervals(means, 0.5), intervals(means, 0.99)
    inside = (means.resampled >= narrow["low"]) & (means.resampled <= narrow["high"])
    assert inside.mean() == pytest.approx(0.5, abs=0.01)
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]

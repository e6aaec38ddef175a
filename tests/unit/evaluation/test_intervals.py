"""The bootstrap against closed forms."""

import numpy as np
import pytest

from hierrouter.evaluation import intervals as module
from hierrouter.evaluation.intervals import Bootstrap, intervals


def overall(bootstrap, values):
    return bootstrap.overall(bootstrap.by_task(values))


def test_constant_values_have_no_width():
    tasks = np.array(["a"] * 7 + ["b"] * 5)
    # Within each task all queries are alike, so resampling within tasks changes nothing.
    values = np.where(tasks == "a", 0.3, 0.9)[:, None]
    (found,) = intervals(overall(Bootstrap(tasks, 200, 0), values), 0.95)
    assert found["mean"] == pytest.approx((7 * 0.3 + 5 * 0.9) / 12)
    assert found["low"] == pytest.approx(found["mean"])
    assert found["high"] == pytest.approx(found["mean"])


def test_every_resample_keeps_each_tasks_count():
    tasks = np.array(["a"] * 30 + ["b"] * 2 + ["c"])
    bootstrap = Bootstrap(tasks, 50, 3)
    for task, count in (("a", 30), ("b", 2), ("c", 1)):
        drawn = np.concatenate(list(bootstrap.weights(task)))
        assert drawn.shape == (50, count)
        assert (drawn.sum(axis=1) == count).all()
    assert len(np.unique(np.concatenate(list(bootstrap.weights("a"))), axis=0)) == 50


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
    rng = np.random.default_rng(4)
    tasks = np.repeat(["a", "b"], 60)
    truth = np.where(tasks == "a", 0.7, 0.2)
    trials = (rng.random((120, 400)) < truth[:, None]).astype(float)  # 400 experiments, one each
    found = intervals(overall(Bootstrap(tasks, 600, 5), trials), 0.9)
    covered = np.mean([one["low"] <= truth.mean() <= one["high"] for one in found])
    # The binomial's standard error is .015; discreteness costs a little.
    assert 0.84 <= covered <= 0.95


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

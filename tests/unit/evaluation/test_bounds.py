"""One-sided bounds against closed forms, draws, and the case that a plain bootstrap gets wrong."""

import numpy as np
import pytest
from scipy.stats import beta

from hierrouter.evaluation.statistics.bounds import guarded, least_mean
from hierrouter.evaluation.statistics.crossed import Crossed, compare
from hierrouter.evaluation.statistics.intervals import Bootstrap


@pytest.mark.parametrize("confidence", [0.95, 0.975, 1 - 0.05 / 110, 1 - 1e-7])
@pytest.mark.parametrize(("queries", "lost"), [(30, 0), (30, 1), (30, 29), (300, 0), (300, 12)])
def test_of_two_values_it_is_the_exact_binomial_bound(queries, lost, confidence):
    won = np.arange(queries) >= lost
    found = least_mean(won.astype(float), 0.0, confidence)
    exact = beta.ppf(1 - confidence, queries - lost, lost + 1)
    if lost > queries / 2:
        # Next to nothing is left; a bound that is sought no nearer to the worst is the worst.
        assert 0.95 * exact - 1e-6 <= found <= exact
        return
    assert found == pytest.approx(exact, rel=0.002)
    # Whatever the two are.
    assert least_mean(np.where(won, 0.02, -1.0), -1.0, confidence) == pytest.approx(
        1.02 * found - 1.0, abs=1e-6
    )


@pytest.mark.parametrize("confidence", [0.9, 0.975, 0.999])
def test_it_is_the_quantile_of_draws(confidence):
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0.0, 1.0], 80, p=[0.1, 0.6, 0.3]) + rng.normal(0, 0.1, 80)
    weights = rng.exponential(size=(100_000, 81))
    drawn = weights @ np.append(values, -1.5) / weights.sum(axis=1)
    expected = np.quantile(drawn, 1 - confidence)
    assert least_mean(values, -1.5, confidence) == pytest.approx(expected, abs=0.01)


def test_the_ends():
    assert least_mean(np.full(40, -1.0), -1.0, 0.95) == -1.0
    # One better value among very many worst ones, and no error to speak of.
    nearly = least_mean(np.append(np.full(5000, -1.0), 1.0), -1.0, 1 - 1e-9)
    assert nearly == pytest.approx(-1.0, abs=1e-3)
    assert 0.999 < least_mean(np.append(np.ones(100_000), 1 - 1e-9), 0.0, 0.95) < 1.0
    many = np.random.default_rng(1).normal(0.1, 1.0, 100_000)
    assert least_mean(many, many.min(), 0.975) == pytest.approx(
        many.mean() - 1.96 * many.std() / np.sqrt(len(many)), abs=2e-4
    )


@pytest.mark.parametrize(("queries", "share"), [(30, 0.02), (30, 0.05), (100, 0.01), (200, 0.01)])
def test_a_small_saving_with_a_rare_loss_is_no_gain(queries, share):
    """One that saves as much as it loses must not come out above 0 in more than 5% of studies."""
    studies = 400
    lost = np.random.default_rng(2).random((queries, studies)) < share
    values = np.where(lost, -1.0, share / (1 - share))  # of mean 0
    means = Crossed(Bootstrap(np.array(["t"] * queries), 400, 3), 1).overall(values[None])
    plain = np.mean([found.at_least > 0 for found in compare(means, 0.95)])
    assert plain > 0.1
    ends = np.full(studies, -1.0), np.full(studies, 1.0)
    lower, _ = guarded(means, queries, *ends, 0.95, 1)
    assert (lower > 0).mean() <= 0.05 + 2 * 0.011
    exact = [least_mean(column, -1.0, 0.95) > 0 for column in values.T]
    assert np.mean(exact) <= 0.05 + 2 * 0.011
    # The other way round: one that loses as rarely as it saves is not shown to be worse.
    turned = Crossed(Bootstrap(np.array(["t"] * queries), 400, 3), 1).overall(-values[None])
    _, upper = guarded(turned, queries, *ends, 0.95, 1)
    assert (upper < 0).mean() <= 0.05 + 2 * 0.011


def test_little_is_lost_where_losses_are_no_rarity():
    values = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], 1000, p=[0.1, 0.7, 0.2])
    normal = values.mean() - 1.645 * values.std() / np.sqrt(1000)
    assert normal - 0.004 < least_mean(values, -1.0, 0.95) < normal
    means = Crossed(Bootstrap(np.array(["t"] * 1000), 4000, 3), 1).overall(values[None, :, None])
    lower, upper = guarded(means, 1000, np.array([-1.0]), np.array([1.0]), 0.95, 1)
    assert lower[0] == pytest.approx(least_mean(values, -1.0, 0.95), abs=0.002)
    assert upper[0] == pytest.approx(-least_mean(-values, -1.0, 0.95), abs=0.002)

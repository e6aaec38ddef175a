"""Cascades with a threshold: the best one on train, by brute force, and what test gets of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hierrouter.evaluation.policies.cascades import Threshold, tune
from hierrouter.evaluation.policies.play import cascades, play_all
from hierrouter.routes.outcomes import SIGNALS


def with_signals(outcomes, seed=0):
    """Two answers each; a mean log-probability that tells something of a right answer."""
    rng = np.random.default_rng(seed)
    quality = outcomes.solve_quality[:, 0]
    shown = np.stack(
        [
            rng.normal(quality) - 3,
            rng.normal(size=quality.shape) - 5,
            np.full(quality.shape, 9.0),
            rng.integers(0, 5, quality.shape) > 0,
        ],
        axis=2,
    )
    contexts = outcomes.solve_quality.shape[1]
    return replace(outcomes, signals=np.repeat(shown[:, None], contexts, axis=1))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_that_there_is(make_outcomes, seed, alpha) -> None:
    train = with_signals(make_outcomes(40, 2, 1, seed), seed)
    threshold = tune(train, 0, 1, alpha, 0.7)
    quality, cost = train.solve_quality[:, 0], train.solve_cost[:, 0] / 0.7

    def gained(accepted) -> float:
        kept = quality[:, 0] - alpha * cost[:, 0]
        passed = quality[:, 1] - alpha * cost.sum(axis=1)
        return float(np.where(accepted, kept, passed).mean())

    best = -np.inf
    for name in ("logprob_mean", "logprob_min"):
        signal = train.signals[:, 0, 0, SIGNALS.index(name)]
        finished = train.signals[:, 0, 0, SIGNALS.index("finished")] > 0
        for least in [*signal, np.inf]:
            best = max(best, gained((signal >= least) & finished))
        best = max(best, gained(np.ones(len(train), dtype=bool)))
    assert gained(threshold.accepts(train, 0)) == pytest.approx(best)


def test_both_answers_are_paid_for_where_the_first_is_not_accepted(
    make_outcomes, make_arena
) -> None:
    outcomes = with_signals(make_outcomes(30, 3, 2))
    arena = make_arena(outcomes)
    names = [played.name for played in cascades(arena, 0.1)]
    pairs = itertools.permutations("ABC", 2)
    assert names == [f"cascade:{first}:{second}" for first, second in pairs]
    played = cascades(arena, 0.0)[0]
    cost = arena.test.solve_cost[:, 0]
    escalated = played.taken == 1
    assert played.routes == ("A", "A!B")
    np.testing.assert_allclose(
        played.cost, np.where(escalated, cost[:, 0] + cost[:, 1], cost[:, 0])
    )
    quality = arena.test.solve_quality[:, 0]
    np.testing.assert_allclose(played.quality, np.where(escalated, quality[:, 1], quality[:, 0]))


def test_cut_off_answers_and_unknown_probabilities_are_doubtful(make_outcomes) -> None:
    outcomes = with_signals(make_outcomes(4, 1, 1))
    outcomes.signals[:, 0, 0] = [[-1, -2, 9, 1], [-1, -2, 9, 0], [np.nan, -2, 9, 1], [-3, -9, 9, 1]]
    assert Threshold("logprob_mean", -2.0).accepts(outcomes, 0).tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert Threshold("logprob_min", -5.0).accepts(outcomes, 0).tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert Threshold("logprob_min", -np.inf).accepts(outcomes, 0).all()
    assert not Threshold("logprob_min", np.inf).accepts(outcomes, 0).any()


def test_without_what_answers_show_there_are_none(make_outcomes, make_arena) -> None:
    outcomes = make_outcomes(12, 2, 1)
    assert cascades(make_arena(outcomes), 0.1) == []
    unknown = with_signals(outcomes)
    unknown.signals[:, 0, 0, :2] = np.nan
    names = [name for name in play_all(make_arena(unknown), 0.1) if name.startswith("cascade")]
    assert names == ["cascade:B:A"]


def test_nothing_of_the_test_queries_is_used_to_tune(make_outcomes, make_arena) -> None:
    outcomes = with_signals(make_outcomes(30, 2, 1))
    changed = replace(
        outcomes,
        solve_quality=np.where(outcomes.train[:, None, None], outcomes.solve_quality, 0.5),
    )
    for policy in ("cascade:A:B", "knn", "ridge"):
        before = play_all(make_arena(outcomes), 0.1)[policy][0].taken
        after = play_all(make_arena(changed), 0.1)[policy][0].taken
        assert before.tolist() == after.tolist()


def test_the_majority_is_returned_and_everybody_paid(make_outcomes, make_arena) -> None:
    outcomes = make_outcomes(30, 3, 1)
    quality, said = outcomes.solve_quality.copy(), np.full((30, 1, 3), -1)
    quality[:, 0] = np.array([0.2, 0.9, 0.4])
    for row, (answers, returned) in enumerate(MAJORITIES * 6):
        said[row, 0] = answers
        quality[row, 0, returned] += 0.01
    arena = make_arena(replace(outcomes, solve_quality=quality, said=said))
    played = play_all(arena, 0.1)["majority"][0]
    wanted = [returned for _, returned in MAJORITIES * 6]
    assert list(played.taken) == [
        each for each, train in zip(wanted, outcomes.train, strict=True) if not train
    ]
    np.testing.assert_allclose(played.cost, arena.test.solve_cost[:, 0].sum(axis=1))
    assert played.routes == ("A!B!C=A", "A!B!C=B", "A!B!C")
    assert "majority" not in play_all(make_arena(outcomes), 0.1)


MAJORITIES = [
    ([0, 1, 0], 2),  # of the two that agree, the better one
    ([0, 0, 1], 1),
    ([0, 1, 2], 1),  # all differ: the best one
    ([-1, -1, 3], 2),  # what says nothing agrees with nobody
    ([-1, -1, -1], 1),
]

"""Stacked predictors: what each is fitted to, what each is worth, and that luck is not counted."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from hierrouter.learning.features import Features
from hierrouter.learning.stacking import (
    PRIOR,
    Seen,
    _learners,
    _ridge,
    _shares,
    _stacked,
    fit_scores,
    see,
)
from hierrouter.routes.parts import PARTS, drawn_parts

WIDTH = 5


def numbers(names: np.ndarray) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


def seen_of(
    n: int, tasks: str = "t", seed: int = 0, centres: int = 4, spread: float = 1.0
) -> tuple[Seen, np.ndarray]:
    """N bare queries as `fit_scores` takes them, and their embeddings."""
    rng = np.random.default_rng(seed)
    queries = (spread * rng.normal(size=(n, WIDTH)) + 1).astype(np.float32)
    names = np.array([tasks[k % len(tasks)] for k in range(n)])
    queries[:, 0] += 3 * (names == "b")
    features = Features.fit(queries, queries[:0], names, None, centres, seed)
    seen = see(
        features, features(queries, queries), np.arange(n), numbers(names), drawn_parts(n, seed)
    )
    return seen, queries


def noise(n: int, columns: int = 2, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, size=(n, columns)).astype(float)


def test_a_linear_score_is_found() -> None:
    seen, queries = seen_of(300)
    scores = np.stack([queries[:, 1], 2 - 3 * queries[:, 2]], axis=1).astype(float)
    weights, held = fit_scores(seen, scores)
    predicted = seen.state @ weights.T
    assert np.square(predicted - scores).mean() < 0.01 * scores.var()
    assert np.corrcoef(held[:, 0], scores[:, 0])[0, 1] > 0.995
    assert weights.dtype == np.float32
    assert weights.shape == (2, seen.features.blocks[-1].stop)


def test_the_means_of_tasks_are_found() -> None:
    seen, queries = seen_of(200, tasks="ab", spread=0.1)
    isb = queries[:, 0] > 2.5
    weights, _ = fit_scores(seen, np.where(isb, 0.75, 0.25)[:, None])
    np.testing.assert_allclose(seen.state @ weights[0], np.where(isb, 0.75, 0.25), atol=0.1)


def test_ridge_is_the_closed_form_of_every_column_by_itself() -> None:
    rng = np.random.default_rng(0)
    inputs, scores = rng.normal(size=(40, 3)), rng.normal(size=(40, 4))
    scores[rng.random((40, 4)) < 0.3] = np.nan
    scores[:, 3] = np.nan
    intercepts, weights = _ridge(inputs, scores, 0.3)
    for column in range(3):
        rows = ~np.isnan(scores[:, column])
        x, y = inputs[rows], scores[rows, column]
        centred = x - x.mean(axis=0)
        gram = centred.T @ centred + 0.3 * rows.sum() * np.eye(3)
        expected = np.linalg.solve(gram, centred.T @ (y - y.mean()))
        np.testing.assert_allclose(weights[column], expected, rtol=1e-6)
        np.testing.assert_allclose(intercepts[column], y.mean() - x.mean(axis=0) @ expected)
    assert not weights[3].any()
    assert intercepts[3] == 0


def test_a_perfect_learner_gets_all_the_shares_and_noise_none() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(400, 2))
    held = [rng.normal(size=(400, 2)) for _ in range(3)]
    known = rng.random((400, 2)) < 0.8
    np.testing.assert_allclose(_shares([*held, scores], scores, known), [0, 0, 0, 1], atol=1e-6)
    # Of what is not known nothing is looked at.
    unknown = np.where(known, scores, np.nan)
    np.testing.assert_allclose(_shares([*held, scores], unknown, known), [0, 0, 0, 1], atol=1e-6)
    assert _shares(held, scores, known).max() < 0.1
    # Two halves of the truth make up the whole; a learner that says the contrary gets nothing.
    halves = [np.where([True, False], scores, 0), np.where([False, True], scores, 0), -scores]
    np.testing.assert_allclose(_shares(halves, scores, known), [1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(_shares([0.5 * scores], scores, known), [2], rtol=1e-6)


def test_shares_of_nothing_are_nothing() -> None:
    scores, known = noise(10) - 0.5, np.ones((10, 2), bool)
    assert _shares([], scores, known).shape == (0,)
    assert _shares([scores], scores, ~known).tolist() == [0]
    assert _shares([0 * scores], scores, known).tolist() == [0]
    rounding = 1e-17 * np.random.default_rng(0).normal(size=(10, 2))
    assert _shares([rounding], scores, known).tolist() == [0]
    np.testing.assert_allclose(_shares([scores, scores], scores, known).sum(), 1, rtol=1e-6)


def test_from_noise_nothing_is_learned_but_the_mean() -> None:
    spreads = []
    for seed in range(5):
        seen, _ = seen_of(400, tasks="ab", seed=seed)
        scores = noise(400, seed=100 + seed)
        weights, _ = fit_scores(seen, scores)
        predicted = seen.state @ weights.T
        np.testing.assert_allclose(predicted.mean(axis=0), scores.mean(axis=0), atol=0.02)
        spreads.append(predicted.std())
    # Scores deviate by .5; what is said of them by a small part of it.
    assert np.mean(spreads) < 0.05


def test_where_all_queries_look_the_same_each_is_predicted_by_the_mean_of_the_others() -> None:
    """Its own outcome, and those of its part, say nothing in what is predicted of a query."""
    n = 50
    same = np.ones((n, WIDTH), np.float32)
    names = np.array(["t"] * n)
    features = Features.fit(same, same[:0], names, None, 4, 0)
    seen = see(features, features(same, same), np.arange(n), numbers(names), drawn_parts(n, 0))
    scores = noise(n)
    weights, held = fit_scores(seen, scores)
    for part in range(PARTS):
        rest = scores[seen.fold != part].mean(axis=0)
        left = seen.fold == part
        np.testing.assert_allclose(held[left], np.tile(rest, (left.sum(), 1)), atol=1e-9)
    np.testing.assert_allclose(
        seen.state @ weights.T, np.tile(scores.mean(axis=0), (n, 1)), rtol=1e-5
    )


@pytest.mark.parametrize("tasks", ["t", "ab"])
def test_its_own_outcome_does_not_predict_a_query(tasks: str) -> None:
    """Shares are common to a group; a first score of great numbers fixes them here."""
    seen, queries = seen_of(60, tasks=tasks)
    scores = np.concatenate([1e6 * queries[:, :1].astype(float), noise(60, 1)], axis=1)
    group = np.zeros(2, np.int64)
    _, before = _stacked(seen, scores, group)
    query = 17
    changed = scores.copy()
    changed[query, 1] += 1.0
    _, after = _stacked(seen, changed, group)
    moved = np.abs(after - before)[:, 1]
    own = seen.fold == seen.fold[query]
    assert moved[own].max() < 1e-4
    assert moved[~own].max() > 5e-3
    assert (moved[~own] > 1e-3).mean() > 0.9


def test_its_own_task_does_not_say_what_a_query_is_like() -> None:
    n = 60
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(n, WIDTH)).astype(np.float32)
    names = np.array(["a", "b", "c"] * (n // 3))
    features = Features.fit(queries, queries[:0], names, None, 4, 0)
    state = features(queries, queries)
    other = names.copy()
    other[7] = "b" if names[7] == "a" else "a"
    one, two = (
        see(features, state, np.arange(n), numbers(each), drawn_parts(n, 0))
        for each in (names, other)
    )
    chances = features.blocks[1]
    own = one.fold == one.fold[7]
    assert one.held[own].tobytes() == two.held[own].tobytes()
    assert (one.held[~own][:, chances] != two.held[~own][:, chances]).any()
    np.testing.assert_allclose(one.held[:, chances].sum(axis=1), 1, rtol=1e-5)
    rest = [part for each, part in enumerate(features.blocks) if each != 1]
    for part in rest:
        assert (one.held[:, part] == state[:, part]).all()


def test_all_contexts_of_a_query_are_in_one_part() -> None:
    n, each = 23, 4
    queries = np.random.default_rng(0).normal(size=(n, WIDTH)).astype(np.float32)
    names = np.array(["a", "b"] * 12)[:n]
    features = Features.fit(queries, queries, names, 3, 4, 0)
    query = np.repeat(np.arange(n), each)
    seen = see(
        features, features(queries[query], queries[query]), query, numbers(names), drawn_parts(n, 0)
    )
    parts = seen.fold.reshape(n, each)
    assert (parts == parts[:, :1]).all()
    sizes = np.bincount(parts[:, 0], minlength=PARTS)
    assert sizes.max() - sizes.min() <= 1
    some = seen.select(np.array([5, 6, 20]))
    assert (some.fold == seen.fold[[5, 6, 20]]).all()
    assert (some.held == seen.held[[5, 6, 20]]).all()


def test_a_task_that_the_others_lack_is_not_likely() -> None:
    """The only query of a task is predicted by heads that have never met the task."""
    queries = np.random.default_rng(0).normal(size=(30, WIDTH)).astype(np.float32)
    names = np.array(["a"] * 29 + ["z"])
    features = Features.fit(queries, queries[:0], names, None, 4, 0)
    seen = see(
        features, features(queries, queries), np.arange(30), numbers(names), drawn_parts(30, 0)
    )
    own = seen.fold == seen.fold[29]
    assert seen.held[own][:, features.blocks[1]].tolist() == [[1.0, 0.0]] * int(own.sum())


def test_a_task_of_which_nothing_is_fitted_has_the_mean_of_all() -> None:
    seen, _ = seen_of(90, tasks="abc")
    rows = np.flatnonzero(seen.task != 0)
    few = see(
        seen.features,
        seen.state[rows].astype(np.float32),
        np.arange(60),
        seen.task[rows],
        seen.fold[rows],
    )
    scores = np.where(few.task == 1, 0.2, 0.8)[:, None]
    learned = _learners(few)[0](np.arange(60), scores)[0, seen.features.blocks[1]]
    drawn = 0.3 * 30 / (30 + PRIOR)
    np.testing.assert_allclose(learned, [0.5, 0.5 - drawn, 0.5 + drawn])
    assert (few.held[:, seen.features.blocks[1].start] == 0).all()


def test_only_what_is_known_counts() -> None:
    seen, queries = seen_of(300, tasks="ab")
    truth = np.stack([queries[:, 1], queries[:, 2], 0 * queries[:, 1]], axis=1).astype(float)
    scores = truth.copy()
    scores[np.random.default_rng(0).random(scores.shape) < 0.4] = np.nan
    scores[:, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights, held = fit_scores(seen, scores)
    assert np.isfinite(weights).all()
    assert np.isfinite(held).all()
    predicted = seen.state @ weights.T
    assert np.abs(predicted - truth)[:, :2].max() < 0.6
    assert not weights[2].any()  # of what is never known 0 is said


def test_what_is_known_seldom_is_drawn_towards_the_others() -> None:
    """Two of two right is no proof: of two like columns the one known always is as good."""
    seen, _ = seen_of(200)
    rng = np.random.default_rng(3)
    scores = (rng.random((200, 4)) < [0.5, 0.6, 0.7, 0.6]).astype(float)
    scores[:, 3] = np.nan
    scores[[3, 90], 3] = 1.0
    weights, held = fit_scores(seen, scores)
    predicted = (seen.state @ weights.T).mean(axis=0)
    np.testing.assert_allclose(predicted[:3], np.nanmean(scores[:, :3], axis=0), atol=0.02)
    assert 0.5 < predicted[3] < predicted[2]
    assert np.isfinite(held).all()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_never_known_is_no_obstacle_where_levels_explain_all() -> None:
    """As of a model that was never asked, where all is free."""
    seen, _ = seen_of(20)
    scores = np.tile([0.0, 0.0, np.nan], (20, 1))
    weights, held = fit_scores(seen, scores)
    assert not weights.any()
    assert not held.any()


@pytest.mark.parametrize("whole_part", [False, True], ids=["one outcome", "one part"])
def test_what_is_known_in_one_part_alone_leaves_the_others_as_they_are(whole_part: bool) -> None:
    """The other parts tell nothing of it: what is said there of it then must not count."""
    seen, queries = seen_of(80, tasks="ab")
    noisy = 0.003 * np.random.default_rng(0).normal(size=(80, 2))
    costs = np.outer(1 + 0.4 * queries[:, 1], [0.02, 0.05]) + noisy
    rare = np.full(80, np.nan)
    rare[seen.fold == seen.fold[3] if whole_part else [3]] = 1.0
    weights, held = fit_scores(seen, costs)
    more, held_more = fit_scores(seen, np.column_stack([costs, rare]))
    off = np.square(held - costs).mean(axis=0)
    assert (np.square(held_more[:, :2] - costs).mean(axis=0) < 1.1 * off).all()
    np.testing.assert_allclose(seen.state @ more[:2].T, seen.state @ weights.T, atol=0.002)
    np.testing.assert_allclose(seen.state @ more[2], 1, atol=0.1)


def test_a_call_that_got_the_hard_queries_is_not_taken_for_a_bad_one() -> None:
    seen, _ = seen_of(400)
    rng = np.random.default_rng(5)
    hard = rng.random(400) < 0.5  # nothing in the embedding tells which
    scores = (rng.random((400, 3)) < np.where(hard, 0.2, 0.8)[:, None] + [0, 0.1, 0.2]).astype(
        float
    )
    plain = scores.mean(axis=0)
    scores[~hard, 2] = np.nan
    assert np.nanmean(scores[:, 2]) < plain[0] < plain[2]  # as it is logged, it looks the worst
    weights, _ = fit_scores(seen, scores)
    predicted = (seen.state @ weights.T).mean(axis=0)
    np.testing.assert_allclose(predicted, plain, atol=0.08)
    assert predicted.argmax() == 2


def test_how_hard_a_query_is_does_not_drown_what_tells_the_calls_apart() -> None:
    """Scores share a strong predictable part; what is said of their difference stays small."""
    off = []
    for seed in range(5):
        seen, queries = seen_of(150, seed=seed)
        rng = np.random.default_rng(50 + seed)
        shared = 3.0 * queries[:, 1:2]
        scores = shared + rng.normal(size=(150, 2)) + [0.0, 0.2]
        weights, _ = fit_scores(seen, scores.astype(float))
        difference = seen.state @ (weights[1] - weights[0])
        off.append(np.std(difference))
    # Plain ridge makes of noise of deviation 1.4 a difference of deviation .26.
    assert np.mean(off) < 0.13


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("tasks", ["t", "ab"])
def test_fewer_queries_than_parts(n: int, tasks: str) -> None:
    seen, _ = seen_of(n, tasks=tasks)
    scores = noise(n, 3) + 0.5
    weights, held = fit_scores(seen, scores)
    assert np.isfinite(weights).all()
    assert held.shape == (n, 3)
    assert np.isfinite(held).all()
    if n == 1:
        np.testing.assert_allclose(seen.state @ weights.T, scores, rtol=1e-6)


def test_constant_scores_are_predicted_as_they_are() -> None:
    seen, _ = seen_of(50, tasks="ab")
    scores = np.tile([0.1, 0.7, 123.4], (50, 1))
    weights, held = fit_scores(seen, scores)
    np.testing.assert_allclose(seen.state @ weights.T, scores, rtol=1e-5)
    np.testing.assert_allclose(held, scores, rtol=1e-9)


def test_typical_queries_give_means_drawn_towards_the_mean() -> None:
    seen, _ = seen_of(80, centres=8)
    scores = noise(80, 1)
    block = seen.features.blocks[3]
    share = seen.state[:, block]
    centre = scores.mean()
    expected = centre + share.T @ (scores[:, 0] - centre) / (share.sum(axis=0) + PRIOR)
    learned = _learners(seen)[0](np.arange(80), scores)
    np.testing.assert_allclose(learned[0, block], expected, rtol=1e-9)
    assert np.count_nonzero(learned) <= block.stop - block.start

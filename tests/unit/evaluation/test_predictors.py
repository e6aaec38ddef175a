"""kNN and ridge as baselines: closed forms on hand-made points, and tuning without the test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierrouter.evaluation.policies.predictors import Predictions, nearest, ridge
from hierrouter.routes.outcomes import RouteTable
from hierrouter.routes.parts import drawn_parts


def table(quality, cost=None) -> RouteTable:
    quality = np.array(quality, dtype=np.float64)
    cost = np.zeros_like(quality) if cost is None else np.array(cost, dtype=np.float64)
    names = tuple("AB"[: quality.shape[1]])
    return RouteTable(names, tuple((k,) for k in range(len(names))), quality, cost)


def on_a_circle(degrees) -> np.ndarray:
    angle = np.radians(np.array(degrees, dtype=np.float64))
    # Lengths differ: the cosine must not heed them.
    length = 1 + np.arange(len(angle)) % 3
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    return points.astype(np.float32)


def test_neighbours_are_those_of_the_smallest_angle_and_never_the_query_itself() -> None:
    train = on_a_circle([0, 10, 30, 90])
    found = nearest(train, on_a_circle([2, 80]), table([[1, 0], [0, 1], [0, 0], [1, 1]]), (1, 2))
    assert found.values == (1, 2)
    # k = 1: neighbours are 10, 0, 10 and 30 degrees.
    assert found.fitted[0, :, :2].tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]
    # k = 2: the means of (10, 30), (0, 30), (10, 0) and (30, 10).
    assert found.fitted[1, :, :2].tolist() == [[0, 0.5], [0.5, 0], [0.5, 0.5], [0, 0.5]]
    assert found.test[0, :, :2].tolist() == [[1, 0], [1, 1]]
    assert found.test[1, :, :2].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_no_neighbour_is_of_a_query_s_own_part() -> None:
    train = on_a_circle([0, 1, 10, 30, 31, 90])
    outcomes = table([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [1, 1]])
    parts = np.array([0, 0, 1, 2, 2, 1])
    found = nearest(train, on_a_circle([0]), outcomes, (1, 2, 5), parts)
    assert found.values == (1, 2)  # no part leaves 5
    # 0 and 1 degrees have 10; 10 has 1; 30 and 31 have 10; 90 has 31.
    assert found.fitted[0, :, :2].tolist() == [[0, 1], [0, 1], [1, 0], [0, 1], [0, 1], [0, 0]]
    # Queries to come have all for neighbours.
    assert found.test[0, :, :2].tolist() == [[1, 0]]
    # One part is none.
    alike = nearest(train, on_a_circle([0]), outcomes, (1,), np.zeros(6, np.int64))
    assert alike.fitted[0, 0, :2].tolist() == [1, 0]


@pytest.mark.parametrize(("count", "values"), [(1, (1,)), (3, (2,)), (7, (5,)), (30, (5, 10, 20))])
def test_few_queries_have_few_neighbours(count, values) -> None:
    found = nearest(on_a_circle(range(count)), on_a_circle([1]), table([[1, 0]] * count))
    assert found.values == values
    assert found.test[0, 0, :2].tolist() == [1, 0]


def test_the_value_is_chosen_by_what_its_routes_gave_on_train() -> None:
    rng = np.random.default_rng(0)
    # Two clusters of 20, in which A and B are right, each surrounded by all others at k = 39.
    train = on_a_circle([*rng.uniform(0, 5, 20), *rng.uniform(80, 85, 20)])
    outcomes = table([[1, 0]] * 20 + [[0, 1]] * 20)
    found = nearest(train, on_a_circle([1, 84]), outcomes, (5, 39))
    value, taken, foretold = found.choose(outcomes, 0.0, 1.0)
    assert value == 5
    assert taken.tolist() == [0, 1]
    assert foretold.tolist() == [1, 1]


def test_what_is_taken_pays_at_its_alpha() -> None:
    train = on_a_circle(range(12))
    outcomes = table([[0.6, 1.0]] * 12, [[1.0, 3.0]] * 12)
    for predictions in (
        nearest(train, train, outcomes, (5,)),
        ridge(train, train, outcomes, drawn_parts(12, 0)),
    ):
        # B is worth it below .4 quality for 2 dollars, here one cost unit.
        assert set(predictions.choose(outcomes, 0.39, 2.0)[1]) == {1}
        assert set(predictions.choose(outcomes, 0.41, 2.0)[1]) == {0}


def test_ridge_is_the_closed_form_and_predicts_each_part_from_the_others() -> None:
    rng = np.random.default_rng(1)
    train, test = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    outcomes = table(rng.uniform(size=(30, 2)), rng.uniform(size=(30, 2)))
    folds = drawn_parts(30, 1)
    found = ridge(train.astype(np.float32), test.astype(np.float32), outcomes, folds, (3.0,))

    centre = train.mean(axis=0)
    spread = np.sqrt(np.square(train - centre).mean())
    known, asked = (train - centre) / spread, (test - centre) / spread
    targets = np.concatenate([outcomes.quality, outcomes.cost], axis=1)

    def solved(x, y, at):
        middle, mean = x.mean(axis=0), y.mean(axis=0)
        inner = (x - middle).T @ (x - middle) + 3.0 * np.eye(4)
        return (at - middle) @ np.linalg.solve(inner, (x - middle).T @ (y - mean)) + mean

    np.testing.assert_allclose(found.test[0], solved(known, targets, asked), atol=1e-4)
    part = folds == 2
    expected = solved(known[~part], targets[~part], known[part])
    np.testing.assert_allclose(found.fitted[0][part], expected, atol=1e-4)


def test_ties_go_to_the_cheaper_route() -> None:
    train = on_a_circle(range(12))
    # A third of the queries is right with both, so that sums in float32 are not exact.
    outcomes = table([[1, 1], [0, 0], [0, 0]] * 4, [[3.0, 1.0]] * 12)
    for predictions in (
        nearest(train, train, outcomes, (5, 9)),
        ridge(train, train, outcomes, drawn_parts(12, 0)),
    ):
        assert set(predictions.choose(outcomes, 0.0, 1.0).taken) == {1}
    third = np.float32(1) / np.float32(3)
    near = np.array([[[third, np.nextafter(third, np.float32(0)), 3.0, 1.0]]], dtype=np.float32)
    assert Predictions((1,), near, near).choose(outcomes, 0.0, 1.0).taken.tolist() == [1]


def permuted_world(seed=5, count=400):
    """A or B is right, as the first coordinate says, and which of all is then drawn anew."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2 * count, 8)).astype(np.float32)
    right = points[:, :1] > 0
    outcomes = np.concatenate([right, ~right], axis=1).astype(np.float64)
    return points, outcomes, outcomes[rng.permutation(2 * count)]


def found_nothing(make, points, outcomes, count=400):
    """Whether predictions gain no more on test than noise, and do not believe that they do."""
    train, test = table(outcomes[:count]), outcomes[count:]
    predictions = make(points[:count], points[count:], train)
    taken = predictions.choose(train, 0.0, 1.0).taken
    best = int(train.quality.mean(axis=0).argmax())
    gain = test[np.arange(count), taken] - test[:, best]
    noise = 3 * gain.std() / np.sqrt(count) + 1e-9
    rows = np.arange(count)
    believed = max(
        train.quality[rows, fitted[:, :2].argmax(axis=1)].mean() for fitted in predictions.fitted
    )
    # Of some values of what is tuned the luckiest is told: four standard errors of half and half.
    return gain.mean() < noise and abs(believed - 0.5) < 4 * 0.5 / np.sqrt(count)


def by_neighbours(train, test, outcomes):
    return nearest(train, test, outcomes)


def by_ridge(train, test, outcomes):
    return ridge(train, test, outcomes, drawn_parts(len(train), 0))


@pytest.mark.parametrize("make", [by_neighbours, by_ridge])
def test_permuted_outcomes_give_nothing(make) -> None:
    """What is tuned on train alone finds nothing where there is nothing, and says so."""
    points, outcomes, permuted = permuted_world()
    assert found_nothing(make, points, permuted)
    assert not found_nothing(make, points, outcomes)  # there was something before


def test_a_leak_does_not_pass_for_nothing() -> None:
    points, _, permuted = permuted_world()

    def predicted_with_itself(train, test, outcomes):
        seen = np.concatenate([outcomes.quality, outcomes.cost], axis=1).astype(np.float32)
        return replace(nearest(train, test, outcomes), fitted=np.stack([seen] * 6))

    def knowing_the_test(train, test, outcomes):
        seen = np.concatenate([permuted[400:], np.zeros((400, 2))], axis=1).astype(np.float32)
        return replace(nearest(train, test, outcomes), test=np.stack([seen] * 6))

    assert not found_nothing(predicted_with_itself, points, permuted)
    assert not found_nothing(knowing_the_test, points, permuted)

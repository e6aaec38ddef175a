"""What the decomposed policy sees: every block of u(s) against the same worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hierrouter.learning.features import (
    QUERIES_PER_CENTRE,
    SHARPNESS,
    TASK_STRENGTH,
    Features,
    posterior,
    task_head,
)
from hierrouter.learning.projection import Projection


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fitted(n: int = 64, replies: int = 30, tasks: str = "ab", **changes) -> Features:
    names = np.array([tasks[k % len(tasks)] for k in range(n)])
    queries = draw(n, 6) + 2 * (names == "a")[:, None]
    options = {"width": 4, "centres": 5, "seed": 0, **changes}
    return Features.fit(queries.astype(np.float32), draw(replies, 6, seed=1), names, **options)


def test_every_block_of_a_hand_made_context() -> None:
    features = Features(
        query=Projection(
            np.array([1.0, 0.0], np.float32), np.array([[0.0, 2.0]], np.float32), np.float32(4)
        ),
        context=Projection(
            np.zeros(2, np.float32), np.array([[1.0, 1.0]], np.float32), np.float32(0.5)
        ),
        task_weight=np.array([[0.0], [1.0]], np.float32),
        task_bias=np.array([0.0, -0.5], np.float32),
        centres=np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
    )
    seen = features(np.array([[3.0, 4.0]], np.float32), np.array([[0.5, 0.25]], np.float32))
    projected = 4 * 2 / 4  # the mean's column is not looked at
    odds = np.exp(np.array([0.0, projected - 0.5]))
    near = np.exp(SHARPNESS * np.array([0.6, 0.8]))
    expected = [1, *(odds / odds.sum()), projected, *(near / near.sum()), 0.75 / 0.5]
    np.testing.assert_allclose(seen, [expected], rtol=1e-5)
    one, tasks, query, centres, context = features.blocks
    assert [one, tasks, query, centres, context] == [
        slice(0, 1),
        slice(1, 3),
        slice(3, 4),
        slice(4, 6),
        slice(6, 7),
    ]


def test_leading_dimensions_do_not_matter() -> None:
    features = fitted()
    query, context = draw(5, 3, 6, seed=4), draw(5, 3, 6, seed=5)
    whole = features(query, context)
    assert whole.shape == (5, 3, features.blocks[-1].stop)
    assert whole.dtype == np.float32
    flat = features(query.reshape(-1, 6), context.reshape(-1, 6))
    np.testing.assert_allclose(whole.reshape(flat.shape), flat, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tasks", ["ab", "abc"])
def test_the_task_block_is_the_chance_of_each_training_task(tasks: str) -> None:
    names = np.array([tasks[k % len(tasks)] for k in range(60)])
    inputs = draw(60, 3)
    weight, bias = task_head(inputs, names)
    assert weight.shape == (len(tasks), 3)
    model = LogisticRegression(C=TASK_STRENGTH, max_iter=300).fit(inputs.astype(float), names)
    expected = model.predict_proba(inputs.astype(float))
    np.testing.assert_allclose(posterior(inputs, weight, bias), expected, atol=1e-5)


def test_of_one_task_nothing_is_to_be_told() -> None:
    features = fitted(tasks="a")
    assert features.task_bias.shape == (0,)
    assert features.blocks[1] == slice(1, 1)
    assert features(draw(2, 6), draw(2, 6)).shape == (2, features.blocks[-1].stop)


@pytest.mark.parametrize(
    ("queries", "most", "expected"),
    [
        (QUERIES_PER_CENTRE * 4, 64, 4),
        (QUERIES_PER_CENTRE * 4, 3, 3),
        (QUERIES_PER_CENTRE, 64, 0),  # one typical query tells nothing
        (3, 64, 0),
        (QUERIES_PER_CENTRE * 4, 0, 0),
    ],
)
def test_typical_queries_are_as_many_as_there_are_queries_for(
    queries: int, most: int, expected: int
) -> None:
    features = fitted(n=queries, centres=most)
    assert len(features.centres) == expected
    np.testing.assert_allclose(np.linalg.norm(features.centres, axis=1), 1, rtol=1e-5)


def test_typical_queries_of_few_distinct_ones_are_these() -> None:
    distinct = np.array([[3.0, 0, 0], [0, 0.5, 0]], np.float32)
    queries = np.tile(distinct, (40, 1))
    tasks = np.array(["t"] * 80)
    features = Features.fit(queries, queries[:0], tasks, 2, 10, 0)
    assert sorted(map(tuple, features.centres.tolist())) == [(0, 1, 0), (1, 0, 0)]


def test_of_a_bare_query_alone_no_context_is_seen() -> None:
    features = fitted(replies=0)
    query = draw(3, 6)
    assert features.blocks[-1].start == features.blocks[-1].stop
    assert (features(query, query) == features(query, draw(3, 6, seed=9))).all()


def test_what_has_no_length_or_no_spread_gives_numbers() -> None:
    same = np.ones((40, 5), np.float32)
    features = Features.fit(same, same, np.array(["a", "b"] * 20), 3, 4, 0)
    blank = np.zeros((2, 5), np.float32)
    for query in (same[:2], blank):
        assert np.isfinite(features(query, blank)).all()
    # Tasks that cannot be told apart are as likely as they were.
    np.testing.assert_allclose(features(same[:1], same[:1])[0, features.blocks[1]], 0.5, atol=1e-4)


def test_projected_training_queries_are_centred_and_of_one_scale() -> None:
    queries = 3 * draw(50, 6) + 7
    projection = Projection.fit(queries, 4)
    projected = projection(queries)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.square(projected).mean(), 1, rtol=1e-5)
    assert len(Projection.fit(queries[:3], 64).components) == 3
    as_it_is = Projection.fit(queries, None)
    assert (as_it_is(queries) == queries).all()


def test_arrays_come_back_the_same_and_have_the_shapes_they_say() -> None:
    features = fitted()
    arrays = features.arrays()
    assert {name: each.shape for name, each in arrays.items()} == features.shapes(6)
    assert all(each.dtype == np.float32 for each in arrays.values())
    again = Features.from_arrays(arrays)
    query, context = draw(7, 6, seed=2), draw(7, 6, seed=3)
    assert again(query, context).tobytes() == features(query, context).tobytes()
    names = {each.name for each in fields(Features)} - {"answers"}  # of what ends with an answer
    assert names == {name.split(".")[0] for name in arrays}
    for name in arrays:
        with pytest.raises(KeyError):
            Features.from_arrays({key: each for key, each in arrays.items() if key != name})


PINNED = """
import json
import numpy as np
from threadpoolctl import threadpool_info
from hierrouter.learning.threads import threads
with threads(1):
    from hierrouter.learning.features import Features
    queries = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    Features.fit(queries, queries, np.array(["a", "b"] * 32), 4, 5, 0)
    print(json.dumps([[each["filepath"], each["num_threads"]] for each in threadpool_info()]))
"""


def test_what_is_fitted_on_one_thread_runs_on_one_in_every_library() -> None:
    """Sums of several threads depend on how many there are."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", PINNED],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        check=True,
    )
    pools = json.loads(done.stdout)
    assert any("gomp" in file or "omp" in file for file, _ in pools)
    assert {number for _, number in pools} == {1}

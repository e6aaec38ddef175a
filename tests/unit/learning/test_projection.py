"""The projection before a policy: one scale, no dead dimensions blown up, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from hierrouter.learning.projection import Projection


def test_projection_brings_training_contexts_to_one_scale() -> None:
    rng = np.random.default_rng(0)
    embeddings = (rng.normal(size=(500, 6)) * [3, 2, 1, 0.5, 0.1, 0.01] + 4).astype(np.float32)
    projection = Projection.fit(embeddings, 3)
    states = projection(embeddings)
    assert states.shape == (500, 3)
    np.testing.assert_allclose(states.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.square(states).mean(), 1, rtol=1e-4)
    # One scale for all: the components keep their proportions, 3 : 2 : 1.
    spread = states.std(axis=0)
    np.testing.assert_allclose(spread / spread[2], [3, 2, 1], rtol=0.1)


def test_projection_of_all_dimensions_keeps_distances() -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    projection = Projection.fit(embeddings, 5)
    states = projection(embeddings)
    wanted = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
    found = np.linalg.norm(states[:, None] - states, axis=2) * projection.scale
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_dead_dimensions_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    embeddings = np.full((100, 8), 0.25, dtype=np.float32)
    embeddings[:, 0] = rng.normal(size=100)
    embeddings[:, 1] += rng.normal(size=100).astype(np.float32) * 1e-8
    projection = Projection.fit(embeddings, 8)
    unseen = embeddings + np.float32(1e-6)
    assert np.abs(projection(embeddings)).max() < 20
    assert np.abs(projection(unseen) - projection(embeddings)).max() < 1e-4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 2, 50])
def test_contexts_that_are_all_alike(count: int) -> None:
    embeddings = np.full((count, 4), 3.3, dtype=np.float32)
    projection = Projection.fit(embeddings, 3)
    assert projection.scale == 1
    assert (np.abs(projection(embeddings)) < 1e-5).all()


def test_no_width_leaves_the_embedding_as_it_is() -> None:
    embeddings = np.random.default_rng(0).normal(size=(9, 4, 6)).astype(np.float32)
    assert (Projection.fit(embeddings.reshape(-1, 6), None)(embeddings) == embeddings).all()


def test_width_is_cut_to_what_the_contexts_can_give() -> None:
    embeddings = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    assert Projection.fit(embeddings, 32)(embeddings).shape == (3, 3)


def test_arrays_go_and_come_back() -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    before = Projection.fit(embeddings, 3)
    named = before.arrays("query")
    after = Projection.from_arrays(named, "query")
    for name in before.__dataclass_fields__:
        one, other = getattr(before, name), getattr(after, name)
        assert one.shape == other.shape == before.shapes("query", 5)[f"query.{name}"]
        assert one.tobytes() == other.tobytes()
    named.pop("query.scale")
    with pytest.raises(KeyError, match="scale"):
        Projection.from_arrays(named, "query")

"""The policy as plain arrays: the same logits as SB3's policy, and the projection before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from hierrouter.learning.environment import TreeVecEnv
from hierrouter.learning.network import Network, Projection, arrays, from_arrays
from hierrouter.learning.trunk import SharedTrunk


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_numpy_gives_the_logits_of_the_torch_policy(make_outcomes, make_game, activation) -> None:
    outcomes = make_outcomes(models=3, hops=3, width=7)
    env = TreeVecEnv(make_game(outcomes), 4, seed=0)
    model = MaskablePPO(
        "MlpPolicy",
        env,
        n_steps=4,
        batch_size=16,
        seed=1,
        device="cpu",
        policy_kwargs={
            "net_arch": [],
            "features_extractor_class": SharedTrunk,
            "features_extractor_kwargs": {
                "hops": 3,
                "stage_dimensions": 5,
                "hidden": [16, 12],
                "activation": activation,
            },
        },
    )
    with torch.no_grad():  # SB3 starts the action layer at nearly nothing
        model.policy.action_net.weight.mul_(100).add_(0.1)
        model.policy.action_net.bias.normal_()
    network = Network.from_policy(model.policy)
    rng = np.random.default_rng(2)
    state = rng.normal(size=(50, 7)).astype(np.float32)
    cost, lam = (rng.uniform(size=50).astype(np.float32) for _ in range(2))
    for hop in range(3):
        rows = np.concatenate([state, np.stack([cost, lam, np.full(50, hop)], 1)], axis=1)
        with torch.no_grad():
            features = model.policy.extract_features(torch.tensor(rows, dtype=torch.float32))
            expected = model.policy.action_net(features).numpy()
        found = network.logits(state, cost, lam, hop, activation)
        assert found.shape == (50, 7)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.ptp(found) > 1  # the comparison is of something


def test_copied_weights_do_not_follow_the_policy(make_outcomes, make_game) -> None:
    trunk_of = {"hops": 2, "stage_dimensions": 2, "hidden": [4, 4], "activation": "tanh"}
    env = TreeVecEnv(make_game(make_outcomes()), 2, seed=0)
    kwargs = {
        "net_arch": [],
        "features_extractor_class": SharedTrunk,
        "features_extractor_kwargs": trunk_of,
    }
    model = MaskablePPO("MlpPolicy", env, n_steps=4, batch_size=8, policy_kwargs=kwargs)
    network = Network.from_policy(model.policy)
    before = network.first_weight.copy()
    with torch.no_grad():
        model.policy.features_extractor.first.weight.add_(1)
    assert (network.first_weight == before).all()


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


def test_arrays_go_and_come_back(make_outcomes, make_router) -> None:
    router = make_router(make_outcomes())
    named = arrays(router.projection, router.network)
    projection, network = from_arrays(named)
    for before, after in ((router.projection, projection), (router.network, network)):
        for name in before.__dataclass_fields__:
            one, other = getattr(before, name), getattr(after, name)
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
    named.pop("network.stage")
    with pytest.raises(KeyError, match="stage"):
        from_arrays(named)

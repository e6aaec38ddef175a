"""The paper's policy as plain arrays: the same logits as SB3's policy, and what it looks at."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from hierrouter.learning.environment import TreeVecEnv
from hierrouter.learning.mlp import WEIGHTS, Mlp
from hierrouter.learning.projection import Projection
from hierrouter.learning.stages import Stages, stage_count
from hierrouter.learning.trunk import SharedTrunk


def trained(game, activation: str = "tanh", **trunk) -> MaskablePPO:
    """SB3's learner with the paper's trunk."""
    contexts = game.contexts
    return MaskablePPO(
        "MlpPolicy",
        TreeVecEnv(game, 4, seed=0),
        n_steps=4,
        batch_size=16,
        seed=1,
        device="cpu",
        policy_kwargs={
            "net_arch": [],
            "features_extractor_class": SharedTrunk,
            "features_extractor_kwargs": {
                "models": contexts.models,
                "hops": contexts.hops,
                "stage_dimensions": 5,
                "hidden": [16, 12],
                "activation": activation,
                **trunk,
            },
        },
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_numpy_gives_the_logits_of_the_torch_policy(make_outcomes, make_game, activation) -> None:
    outcomes = make_outcomes(models=3, hops=3, width=7)
    model = trained(make_game(outcomes), activation)
    with torch.no_grad():  # SB3 starts the action layer at nearly nothing
        model.policy.action_net.weight.mul_(100).add_(0.1)
        model.policy.action_net.bias.normal_()
    projection = Projection.fit(outcomes.embeddings.reshape(-1, 7), None)
    mlp = Mlp.from_policy(model.policy, projection, activation)
    rng = np.random.default_rng(2)
    state = rng.normal(size=(50, 7)).astype(np.float32)
    cost, alpha = rng.uniform(size=50), rng.uniform(size=50)
    by_hop = []
    for stage in range(stage_count(3, 3)):
        lam = alpha / (1 + alpha)
        extra = np.stack([cost, lam, np.full(50, stage)], 1)
        rows = np.concatenate([state, extra], axis=1)
        with torch.no_grad():
            features = model.policy.extract_features(torch.tensor(rows, dtype=torch.float32))
            expected = model.policy.action_net(features).numpy()
        found = mlp.logits(state, cost, alpha, np.full(50, stage))
        assert found.shape == (50, 7)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.ptp(found) > 1  # the comparison is of something
        by_hop.append(found)
    # Of the stage it sees the hop: 0 is the first, 1 to 3 the second, 4 to 6 the third.
    for first, *rest in (by_hop[:1], by_hop[1:4], by_hop[4:]):
        assert all((first == other).all() for other in rest)
    assert (by_hop[0] != by_hop[1]).any()
    assert (by_hop[1] != by_hop[4]).any()


def test_it_sees_cost_and_context_but_neither_alpha_nor_the_bare_query(
    make_outcomes, make_router
) -> None:
    outcomes = make_outcomes()
    mlp = make_router(outcomes, policy="mlp").policy
    query, context = outcomes.embeddings[:, 0], outcomes.embeddings[:, 1]
    state = mlp.state(query, context)
    assert (state == mlp.state(-query, context)).all()
    assert (state != mlp.state(query, -context)).any()
    zeros, stage = np.zeros(12), np.ones(12, dtype=np.int64)
    found = mlp.logits(state, zeros, zeros, stage)
    assert (found == mlp.logits(state, zeros, zeros + 0.7, stage)).all()
    assert (found != mlp.logits(state, zeros + 0.7, zeros, stage)).any()


def test_copied_weights_do_not_follow_the_policy(make_outcomes, make_game) -> None:
    model = trained(make_game(make_outcomes()))
    projection = Projection.fit(make_outcomes().embeddings.reshape(-1, 4), None)
    mlp = Mlp.from_policy(model.policy, projection, "tanh")
    before = mlp.first_weight.copy()
    with torch.no_grad():
        model.policy.features_extractor.first.weight.add_(1)
    assert (mlp.first_weight == before).all()


def test_arrays_go_and_come_back(make_outcomes, make_router) -> None:
    before = make_router(make_outcomes(), policy="mlp", activation="relu").policy
    named = before.arrays()
    assert {name: array.shape for name, array in named.items()} == before.shapes(
        Stages(2, 2, "early_exit"), 4
    )
    after = Mlp.from_arrays(named, "relu")
    assert after.activation == "relu"
    assert {each.name for each in fields(Mlp)} == {"projection", "activation", *WEIGHTS}
    for name in WEIGHTS:
        one, other = getattr(before, name), getattr(after, name)
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    assert before.projection.components.tobytes() == after.projection.components.tobytes()
    named.pop("stage")
    with pytest.raises(KeyError, match="stage"):
        Mlp.from_arrays(named, "relu")

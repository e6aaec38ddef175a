"""Training: what is learned on worlds whose best route is known, and what never may be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hierrouter.configfile import load_config
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import write_json
from hierrouter.learning import ppo
from hierrouter.learning.card import model_card
from hierrouter.learning.contexts import RecordedContexts
from hierrouter.learning.environment import TreeVecEnv
from hierrouter.learning.greedy import mean_reward
from hierrouter.learning.router import query_hash
from hierrouter.learning.train import fit, validation_mask

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.learning.router import Router
    from hierrouter.routes.outcomes import Outcomes


def contexts_of(router: Router, outcomes: Outcomes) -> RecordedContexts:
    state = router.projection(outcomes.embeddings)
    return RecordedContexts(outcomes, state, router.info.cost_unit_usd)


def test_reward(router: Router, outcomes: Outcomes, alpha: float) -> float:
    test = contexts_of(router, outcomes.select(~outcomes.train))
    return float(mean_reward(router, test, (alpha,))[0])


test_reward.__test__ = False  # type: ignore[attr-defined]


def best_path(outcomes: Outcomes, moves: str, alpha: float, unit: float) -> float:
    """Test reward of the one route that is best on the training queries."""
    reward = outcomes.routes(moves).reward(alpha, unit)  # type: ignore[arg-type]
    column = reward[outcomes.train].mean(axis=0).argmax()
    return float(reward[~outcomes.train, column].mean())


def test_learns_to_answer_directly_where_hops_only_cost(direct, recipe, describe) -> None:
    router, _ = fit(recipe(), direct, describe(direct))
    # Cost unit 1: the right model's direct answer gives 1 - alpha.
    assert router.info.cost_unit_usd == 1
    for alpha in (0.05, 0.5):
        assert test_reward(router, direct, alpha) == pytest.approx(1 - alpha)


def test_learns_to_hop_and_look_where_that_is_the_only_way(hop, recipe, describe) -> None:
    router, _ = fit(recipe(alpha=0.1, iterations=60), hop, describe(hop))
    # Two calls at a cost unit each; the best blind route gets .3 - .1 or at most .25 + .1.
    assert test_reward(router, hop, 0.1) == pytest.approx(1 - 0.1 * 2)
    routes = hop.routes("early_exit")
    taken = router.follow(hop, 0.1)
    assert {routes.names[column] for column in taken} == {"A:A", "A:B", "B:A", "B:B"}


def test_learns_under_the_paper_moves(hop, recipe, describe) -> None:
    router, _ = fit(recipe(alpha=0.1, iterations=60, moves="paper"), hop, describe(hop))
    assert router.info.moves == "paper"
    assert test_reward(router, hop, 0.1) == pytest.approx(1 - 0.1 * 2)


def test_one_router_serves_every_alpha(direct, recipe, describe) -> None:
    # Model A costs a tenth of B. B is right everywhere, A half the time: B pays below alpha = 5/9.
    quality = np.ones_like(direct.solve_quality)
    quality[:, :, 0] = 0.5
    cost = np.ones_like(direct.solve_cost)
    cost[:, :, 0] = 0.1
    world = replace(direct, solve_quality=quality, solve_cost=cost)
    router, _ = fit(recipe(alpha_warmup=0), world, describe(world))
    names = world.routes("early_exit").names
    assert {names[column] for column in router.follow(world, 0.0)} == {"B"}
    assert {names[column] for column in router.follow(world, 0.2)} == {"B"}
    assert {names[column] for column in router.follow(world, 1.0)} == {"A"}


def test_shuffled_rewards_teach_nothing(direct, recipe, describe) -> None:
    """What is learned comes from the pairing of query and reward, not from a leak.

    Rewards are shuffled within each split. Shuffled in training only, the router's arbitrary
    choice for a whole kind of queries would still be right or wrong for all of them at once.
    """
    gains = []
    for seed in range(2):
        mixed = np.arange(len(direct))
        for split in (direct.train, ~direct.train):
            rows = np.flatnonzero(split)
            mixed[rows] = np.random.default_rng(seed).permutation(rows)
        world = replace(direct, solve_quality=direct.solve_quality[mixed])
        router, _ = fit(recipe(alpha=0.1, iterations=10, seed=seed), world, describe(world))
        gains.append(test_reward(router, world, 0.1) - best_path(world, "early_exit", 0.1, 1.0))
    # Unshuffled, the gain is .5. Here it is chance: 80 test queries, a half-width of about .1.
    assert np.mean(gains) < 0.12


def test_the_same_seed_gives_the_same_bytes(direct, recipe, describe, tmp_path: Path) -> None:
    config = recipe(iterations=3, projection=3)
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        seeded = config.model_copy(update={"seed": seed})
        router, curve = fit(seeded, direct, describe(direct))
        router.save(tmp_path / name, curve, model_card(router.info))
    for file in ("router.safetensors", "router.json", "learning_curve.json", "README.md"):
        one, two, other = (
            (tmp_path / name / file).read_bytes() for name in ("one", "two", "other")
        )
        assert one == two
        assert one != other


def test_training_leaves_the_number_of_threads_alone(direct, recipe, describe) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(recipe(iterations=1), direct, describe(direct))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_only_training_queries_matter(direct, recipe, describe) -> None:
    config = recipe(iterations=2)
    spoiled = replace(
        direct,
        solve_quality=np.where(direct.train[:, None, None], direct.solve_quality, 0.0),
        solve_cost=np.where(direct.train[:, None, None], direct.solve_cost, 99.0),
        embeddings=np.where(direct.train[:, None, None], direct.embeddings, 7.0).astype("f4"),
    )
    clean, spoilt = (fit(config, world, describe(world))[0] for world in (direct, spoiled))
    assert clean.network.first_weight.tobytes() == spoilt.network.first_weight.tobytes()
    assert clean.info == spoilt.info


def test_what_a_router_says_of_itself(direct, recipe, describe) -> None:
    router, curve = fit(recipe(iterations=4, evaluate_every=2), direct, describe(direct))
    info = router.info
    train = [name for name, flag in zip(direct.query_ids, direct.train, strict=True) if flag]
    assert info.training_query_hashes == tuple(sorted(map(query_hash, train)))
    assert info.alpha_range == (0.0, 1.0)
    assert info.dimensions == {"embedding": 4, "projection": 4, "actions": 5}
    assert (info.data_seed, info.training_seed) == (5, 42)
    assert info.validation["queries"] == 32  # a fifth of 160
    assert [entry["iteration"] for entry in curve] == [1, 2, 3, 4]
    assert [entry["transitions"] for entry in curve] == [256, 512, 768, 1024]
    assert ["validation_reward" in entry["metrics"] for entry in curve] == [False, True] * 2
    assert {"policy_loss", "value_loss", "entropy_loss", "rollout_reward"} <= set(
        curve[0]["metrics"]
    )
    json.dumps(curve, allow_nan=False)
    card = model_card(info)
    assert "160" in card
    assert "\n| A | A | (none) |\n" in card


# Which checkpoint is kept


def validated(curve: list[dict]) -> dict[int, float]:
    return {
        entry["iteration"]: entry["metrics"]["validation_reward"]
        for entry in curve
        if "validation_reward" in entry["metrics"]
    }


SEED_WITH_AN_EARLY_BEST = 1


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_checkpoint(make_outcomes, recipe, describe, keep: str) -> None:
    noise = make_outcomes(n=90)  # there is nothing to learn, so validation goes up and down
    config = recipe(iterations=12, evaluate_every=1, keep=keep, seed=SEED_WITH_AN_EARLY_BEST)
    router, curve = fit(config, noise, describe(noise))
    rewards = validated(curve)
    best = max(number for number, each in rewards.items() if each == max(rewards.values()))
    assert best < 12, "the test needs a run whose best is not its last"
    expected = best if keep == "best" else 12
    assert router.info.validation["iteration"] == expected
    assert router.info.validation["reward"] == rewards[expected]
    train = noise.select(noise.train)
    held = train.select(validation_mask(train.tasks, 0.2, config.seed))
    again = mean_reward(router, contexts_of(router, held), config.validation_alphas).mean()
    assert again == rewards[expected]


def test_among_equals_the_later_checkpoint_is_kept(direct, recipe, describe) -> None:
    same = replace(
        direct,
        solve_quality=np.ones_like(direct.solve_quality),
        solve_cost=np.zeros_like(direct.solve_cost),
        analyze_cost=np.zeros_like(direct.analyze_cost),
    )
    router, _ = fit(recipe(iterations=4, evaluate_every=1), same, describe(same))
    assert router.info.cost_unit_usd == 1
    assert router.info.validation == {"reward": 1.0, "iteration": 4.0, "queries": 32.0}


def test_the_last_iteration_is_always_evaluated(direct, recipe, describe) -> None:
    _, curve = fit(recipe(iterations=5, evaluate_every=100), direct, describe(direct))
    assert list(validated(curve)) == [5]


# Warm-up of alpha


def test_the_range_of_lambda_grows_in_the_warm_up(direct, recipe, describe, monkeypatch) -> None:
    shares: list[float] = []
    widen = TreeVecEnv.widen

    def noting(self: TreeVecEnv, share: float) -> None:
        shares.append(share)
        widen(self, share)

    monkeypatch.setattr(TreeVecEnv, "widen", noting)
    fit(recipe(iterations=6, alpha_warmup=0.5), direct, describe(direct))
    # Before SB3's first reset, then before each rollout.
    assert shares == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1, 1])
    shares.clear()
    fit(recipe(iterations=3, alpha_warmup=0), direct, describe(direct))
    assert shares == [1, 1, 1, 1]


# Which queries are kept back


def test_each_task_gives_its_share_to_validation() -> None:
    tasks = np.array(["a"] * 50 + ["b"] * 20 + ["c"] * 3)
    held = validation_mask(tasks, 0.2, 7)
    assert {task: int(held[tasks == task].sum()) for task in "abc"} == {"a": 10, "b": 4, "c": 1}
    assert (held == validation_mask(tasks, 0.2, 7)).all()
    assert (held != validation_mask(tasks, 0.2, 8)).any()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_neither_side_is_ever_empty(count: int, share: float) -> None:
    for names in (["a"] * count, [f"t{k}" for k in range(count)]):
        held = validation_mask(np.array(names), share, 0)
        assert 0 < held.sum() < count


# Sizes at the edge


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_training_queries(make_outcomes, recipe, describe, count, hops) -> None:
    few = make_outcomes(n=6, hops=hops)
    few = replace(few, train=np.arange(6) < count)
    router, _ = fit(recipe(iterations=2, projection=32), few, describe(few))
    assert len(router.follow(few, 0.1)) == 6
    assert router.info.validation["queries"] == 1


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_training_queries(make_outcomes, recipe, describe, count: int) -> None:
    none = replace(make_outcomes(n=6), train=np.arange(6) < count)
    with pytest.raises(ConfigError, match=f"{count} training queries, at least 2"):
        fit(recipe(), none, describe(none))


def test_one_task(direct, recipe, describe) -> None:
    assert set(direct.tasks) == {"t"}
    router, _ = fit(recipe(iterations=1), direct, describe(direct))
    assert router.info.validation["queries"] == 32


@pytest.mark.parametrize("minibatches", [3, 256, 1000])
def test_minibatches_must_split_an_iteration(direct, recipe, describe, minibatches: int) -> None:
    with pytest.raises(ConfigError, match=f"training.minibatches: {minibatches}.* 256 transit"):
        fit(recipe(minibatches=minibatches), direct, describe(direct))


def test_divergence_is_one_clear_line(direct, recipe, describe) -> None:
    with pytest.raises(HierRouterError, match=r"diverged.*learning_rate") as caught:
        fit(recipe(learning_rate=1e30, learning_rate_decay=False), direct, describe(direct))
    assert "\n" not in str(caught.value)


# The paper's recipe


def test_the_paper_budget(hop, describe, monkeypatch) -> None:
    config = load_config(paper_yaml()).training
    seen: dict[str, object] = {}
    learner = ppo.MaskablePPO

    class Watched(learner):  # type: ignore[misc, valid-type]
        def train(self) -> None:
            before = self._n_updates
            steps = 0
            step = self.policy.optimizer.step

            def counting(*args, **kwargs):
                nonlocal steps
                steps += 1
                return step(*args, **kwargs)

            self.policy.optimizer.step = counting
            super().train()
            self.policy.optimizer.step = step
            seen["gradient_steps"] = seen.get("gradient_steps", 0) + steps  # type: ignore[operator]
            seen["transitions"] = self.n_steps * self.n_envs
            seen["batch"] = self.batch_size
            seen["epochs"] = self._n_updates - before
            seen["eps"] = self.policy.optimizer.defaults["eps"]
            seen["rate"] = self.policy.optimizer.param_groups[0]["lr"]

    monkeypatch.setattr(ppo, "MaskablePPO", Watched)
    router, curve = fit(config, hop, describe(hop))
    assert len(curve) == 8
    assert seen == {
        "gradient_steps": 8 * 16 * 4,
        "transitions": 256,
        "batch": 16,
        "epochs": 4,
        "eps": 1e-4,
        "rate": 1e-4,
    }
    assert curve[-1]["transitions"] == 2048
    assert router.info.alpha_range == (0.005, 0.005)
    assert router.info.cost_unit_usd == 1
    assert router.info.validation["iteration"] == 8


def test_the_paper_reward_is_in_dollars(hop, describe) -> None:
    config = load_config(paper_yaml()).training
    router, _ = fit(config.model_copy(update={"iterations": 1}), hop, describe(hop))
    taken = router.follow(hop, 0.3)  # brought to .005
    table = hop.routes("paper")
    rows = np.arange(len(hop))
    expected = (table.quality - 0.005 * table.cost)[rows, taken].mean()
    played = mean_reward(router, contexts_of(router, hop), (0.005,))
    assert played[0] == pytest.approx(expected)


def paper_yaml() -> Path:
    from pathlib import Path

    return Path(__file__).parents[3] / "configs" / "paper.yaml"


def test_write_json_takes_the_curve(direct, recipe, describe, tmp_path: Path) -> None:
    _, curve = fit(recipe(iterations=1), direct, describe(direct))
    write_json(tmp_path / "curve.json", curve)


@pytest.mark.parametrize("decay", [True, False])
def test_the_last_update_changes_the_policy_too(direct, recipe, describe, decay: bool) -> None:
    def weights(step: float) -> bytes:
        more = {"learning_rate": step, "learning_rate_decay": decay}
        config = recipe(iterations=1, keep="last", **more)
        return fit(config, direct, describe(direct))[0].network.action_weight.tobytes()

    # An update without effect would leave what the seed gave, whatever the step size.
    assert weights(1e-3) != weights(1e-5)


def test_nothing_is_held_back_where_the_last_policy_is_kept(direct, recipe, describe) -> None:
    config = recipe(iterations=2, keep="last", validation_share=0)
    router, curve = fit(config, direct, describe(direct))
    assert router.info.validation == {"iteration": 2.0, "queries": 0.0}
    assert not validated(curve)
    assert "kept back" not in model_card(router.info)


def test_many_small_tasks_give_their_share_together() -> None:
    tasks = np.repeat(["a", "b", "c", "d", "e", "f"], [2, 2, 2, 2, 2, 1])
    assert validation_mask(tasks, 0.2, seed=1).sum() == 2
    even = np.repeat(["a", "b"], [100, 50])
    mask = validation_mask(even, 0.2, seed=1)
    assert (mask[:100].sum(), mask[100:].sum()) == (20, 10)

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
from hierrouter.learning.actions import ANALYZE, SOLVE
from hierrouter.learning.card import model_card
from hierrouter.learning.contexts import RecordedContexts
from hierrouter.learning.environment import TreeVecEnv
from hierrouter.learning.greedy import mean_reward, rewards_of
from hierrouter.learning.router import query_hash
from hierrouter.learning.train import fit, validation_mask

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.learning.router import Router
    from hierrouter.routes.outcomes import Outcomes


REGRESSION = {"learner": "regression"}
NOTHING = {"start": "nothing"}
# What is kept is what PPO made of its start, not the start.
MOVED = {"start": "regression", "keep": "last"}
MLP = {"policy": "mlp", "start": "nothing", "alpha": 0.1}
DECOMPOSED = pytest.mark.parametrize(
    "learner", [REGRESSION, NOTHING, MOVED], ids=["regression", "ppo", "both"]
)
EVERY = pytest.mark.parametrize(
    "learner", [REGRESSION, NOTHING, MOVED, MLP], ids=["regression", "ppo", "both", "mlp"]
)


def contexts_of(router: Router, outcomes: Outcomes) -> RecordedContexts:
    states = outcomes.states(router.policy.state)
    return RecordedContexts(outcomes, states, router.info.cost_unit_usd)


def test_reward(router: Router, outcomes: Outcomes, alpha: float) -> float:
    test = contexts_of(router, outcomes.select(~outcomes.train))
    return float(mean_reward(router, test, (alpha,))[0])


test_reward.__test__ = False  # type: ignore[attr-defined]


def best_path(outcomes: Outcomes, moves: str, alpha: float, unit: float) -> float:
    """Test reward of the one route that is best on the training queries."""
    reward = outcomes.routes(moves).reward(alpha, unit)  # type: ignore[arg-type]
    column = reward[outcomes.train].mean(axis=0).argmax()
    return float(reward[~outcomes.train, column].mean())


@DECOMPOSED
def test_learns_to_answer_directly_where_hops_only_cost(direct, recipe, describe, learner) -> None:
    router, _ = fit(recipe(**learner), direct, describe(direct))
    # Cost unit 1: the right model's direct answer gives 1 - alpha.
    assert router.info.cost_unit_usd == 1
    for alpha in (0.05, 0.5):
        assert test_reward(router, direct, alpha) == pytest.approx(1 - alpha)


def test_an_mlp_learns_to_answer_directly_for_its_alpha(direct, recipe, describe) -> None:
    router, _ = fit(recipe(**MLP), direct, describe(direct))
    assert router.info.alpha_range == (0.1, 0.1)
    assert test_reward(router, direct, 0.1) == pytest.approx(1 - 0.1)


@EVERY
def test_learns_to_hop_and_look_where_that_is_the_only_way(hop, recipe, describe, learner) -> None:
    router, _ = fit(recipe(**{"alpha": 0.1, "iterations": 60, **learner}), hop, describe(hop))
    # Two calls at a cost unit each; the best blind route gets .3 - .1 or at most .25 + .1.
    assert test_reward(router, hop, 0.1) == pytest.approx(1 - 0.1 * 2)
    routes = hop.routes("early_exit")
    taken = router.follow(hop, 0.1)
    assert {routes.names[column] for column in taken} == {"A:A", "A:B", "B:A", "B:B"}


@EVERY
def test_learns_under_the_paper_moves(hop, recipe, describe, learner) -> None:
    config = recipe(**{"alpha": 0.1, "iterations": 60, "moves": "paper", **learner})
    router, _ = fit(config, hop, describe(hop))
    assert router.info.moves == "paper"
    assert test_reward(router, hop, 0.1) == pytest.approx(1 - 0.1 * 2)


@DECOMPOSED
def test_one_router_serves_every_alpha(direct, recipe, describe, learner) -> None:
    # Model A costs a tenth of B. B is right everywhere, A half the time: B pays below alpha = 5/9.
    quality = np.ones_like(direct.solve_quality)
    quality[:, :, 0] = 0.5
    cost = np.ones_like(direct.solve_cost)
    cost[:, :, 0] = 0.1
    world = replace(direct, solve_quality=quality, solve_cost=cost)
    router, _ = fit(recipe(alpha_warmup=0, **learner), world, describe(world))
    names = world.routes("early_exit").names
    assert {names[column] for column in router.follow(world, 0.0)} == {"B"}
    assert {names[column] for column in router.follow(world, 0.2)} == {"B"}
    assert {names[column] for column in router.follow(world, 1.0)} == {"A"}
    # Beyond what was met in training, too.
    assert {names[column] for column in router.follow(world, 5.0)} == {"A"}


def under_limits(router: Router, outcomes: Outcomes, asked: list[int], most: int) -> np.ndarray:
    """Rewards of the test queries at alpha .1, where these models may be called, so many times."""
    contexts = contexts_of(router, outcomes.select(~outcomes.train))
    mask = np.zeros((len(contexts.depth), 2 * contexts.models + 1), dtype=bool)
    for model in asked:
        mask[:, 2 * model + SOLVE] = True
        mask[:, 2 * model + ANALYZE] = contexts.depth < most - 1
    contexts.masks = lambda rows: mask[rows]  # type: ignore[method-assign]
    return rewards_of(router, contexts, (0.1,))[0]


def test_learned_with_limits_it_serves_with_them_and_without(hop, recipe, describe) -> None:
    config = recipe(alpha=0.1, iterations=60, limited_share=0.5, **NOTHING)
    router, _ = fit(config, hop, describe(hop))
    assert test_reward(router, hop, 0.1) == pytest.approx(1 - 0.1 * 2)
    np.testing.assert_allclose(under_limits(router, hop, [0, 1], 1), 0.3 - 0.1)
    for alone in (0, 1):
        # Where its analysis shows who can answer, it is worth it: in half of the cases that is it.
        reads = (hop.embeddings[:, 0, 0] > 0) == alone
        expected = np.where(reads, hop.solve_quality[:, 1 + alone, alone] - 0.1 * 2, 0.3 - 0.1)
        found = under_limits(router, hop, [alone], 2)
        np.testing.assert_allclose(found, expected[~hop.train])
        np.testing.assert_allclose(under_limits(router, hop, [alone], 1), 0.3 - 0.1)


def skewed(direct: Outcomes) -> Outcomes:
    """Who is right is the sign of column 0, and a few large numbers draw a line away from it."""
    signs = np.array([-1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 20.0, 20.0])
    value = signs[np.arange(len(direct)) % 10]
    embeddings = np.zeros_like(direct.embeddings)
    embeddings[:, :, 0] = value[:, None]
    quality = np.zeros_like(direct.solve_quality)
    quality[np.arange(len(direct)), :, (value > 0).astype(int)] = 1.0
    return replace(direct, embeddings=embeddings, solve_quality=quality)


def test_ppo_goes_on_where_the_regression_is_wrong(direct, recipe, describe) -> None:
    world = skewed(direct)
    config = recipe(alpha=0.1, centres=0, temperature=0.2, iterations=60, learning_rate=1e-2)
    begun, _ = fit(config.model_copy(update=REGRESSION), world, describe(world))
    # Least squares give up the three in ten that lie close to the line.
    assert test_reward(begun, world, 0.1) == pytest.approx(0.7 - 0.1)
    router, _ = fit(config, world, describe(world))
    assert router.info.validation["iteration"] > 0
    assert test_reward(router, world, 0.1) == pytest.approx(1 - 0.1)


def test_one_validation_query_is_not_enough_to_leave_the_regression(
    direct, recipe, describe
) -> None:
    """A gain on it has no spread, so that no number of standard errors holds it back."""
    world = skewed(direct)
    share = 1 / int(world.train.sum())
    for seed in range(6):
        config = recipe(
            alpha=0.1,
            centres=0,
            temperature=0.2,
            iterations=15,
            learning_rate=1e-2,
            seed=seed,
            validation_share=share,
        )
        router, _ = fit(config, world, describe(world))
        assert router.info.validation["queries"] == 1
        assert router.info.validation["iteration"] == 0


@pytest.mark.parametrize(("learner", "said"), [(REGRESSION, "by regression"), (NOTHING, "by PPO")])
def test_the_card_says_by_what_it_was_trained(direct, recipe, describe, learner, said) -> None:
    router, _ = fit(recipe(iterations=1, **learner), direct, describe(direct))
    assert f"Trained {said} on" in model_card(router.info)


@EVERY
def test_shuffled_rewards_teach_nothing(direct, recipe, describe, learner) -> None:
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
        config = recipe(**{"alpha": 0.1, "iterations": 10, "seed": seed, **learner})
        router, _ = fit(config, world, describe(world))
        gains.append(test_reward(router, world, 0.1) - best_path(world, "early_exit", 0.1, 1.0))
    # Unshuffled, the gain is .5. Here it is chance: 80 test queries, a half-width of about .1.
    assert np.mean(gains) < 0.12


@EVERY
def test_the_same_seed_gives_the_same_bytes(
    direct, recipe, describe, tmp_path: Path, learner
) -> None:
    config = recipe(iterations=3, projection=3, **learner)
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        seeded = config.model_copy(update={"seed": seed})
        router, curve = fit(seeded, direct, describe(direct))
        router.save(tmp_path / name, curve, model_card(router.info))
    for file in ("router.safetensors", "router.json", "learning_curve.json", "README.md"):
        one, two, other = (
            (tmp_path / name / file).read_bytes() for name in ("one", "two", "other")
        )
        assert one == two
        # Of a regression the seed is in the weights alone: its reward may be the same.
        if learner is not REGRESSION or file.startswith("router."):
            assert one != other


def test_training_leaves_the_number_of_threads_alone(direct, recipe, describe) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(recipe(iterations=1), direct, describe(direct))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@EVERY
def test_only_training_queries_matter(direct, recipe, describe, learner) -> None:
    config = recipe(iterations=2, **learner)
    spoiled = replace(
        direct,
        solve_quality=np.where(direct.train[:, None, None], direct.solve_quality, 0.0),
        solve_cost=np.where(direct.train[:, None, None], direct.solve_cost, 99.0),
        embeddings=np.where(direct.train[:, None, None], direct.embeddings, 7.0).astype("f4"),
    )
    clean, spoilt = (fit(config, world, describe(world))[0] for world in (direct, spoiled))
    assert clean.info == spoilt.info
    one, other = clean.policy.arrays(), spoilt.policy.arrays()
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes()


def test_what_a_router_says_of_itself(direct, recipe, describe) -> None:
    router, curve = fit(recipe(iterations=4, evaluate_every=2), direct, describe(direct))
    info = router.info
    train = [name for name, flag in zip(direct.query_ids, direct.train, strict=True) if flag]
    assert info.training_query_hashes == tuple(sorted(map(query_hash, train)))
    assert info.alpha_range == (0.0, 1.0)
    # A 1, query and context of width 4, and a typical query for each 8 of 160; no tasks, as of one.
    assert info.dimensions == {"embedding": 4, "state": 1 + 4 + 4 + 20, "actions": 5}
    assert info.policy == "decomposed"
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


SEED_WITH_AN_EARLY_BEST = 2


@pytest.mark.parametrize("policy", [NOTHING, MLP], ids=["decomposed", "mlp"])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_checkpoint(make_outcomes, recipe, describe, keep: str, policy) -> None:
    noise = make_outcomes(n=90)  # there is nothing to learn, so validation goes up and down
    more = {"keep": keep, "seed": SEED_WITH_AN_EARLY_BEST, **policy}
    config = recipe(iterations=12, evaluate_every=1, **more)
    router, curve = fit(config, noise, describe(noise))
    rewards = validated(curve)
    best = max(number for number, each in rewards.items() if each == max(rewards.values()))
    assert best < 12, "the test needs a run whose best is not its last"
    expected = best if keep == "best" else 12
    assert router.info.validation["iteration"] == expected
    assert router.info.validation["reward"] == rewards[expected]
    train = noise.select(noise.train)
    held = train.select(validation_mask(train.tasks, 0.2, config.seed))
    alphas = config.validation_alphas if config.alpha == "sampled" else (config.alpha,)
    again = mean_reward(router, contexts_of(router, held), alphas).mean()
    assert again == pytest.approx(rewards[expected], abs=1e-12)


def test_a_learned_start_that_cannot_be_bettered_is_kept(direct, recipe, describe) -> None:
    config = recipe(iterations=4, evaluate_every=1)
    router, curve = fit(config, direct, describe(direct))
    rewards = validated(curve)
    assert max(rewards.values()) == router.info.validation["reward"]
    assert router.info.validation["iteration"] == 0
    # Which is that of the regression on all training queries, those kept back among them.
    alone, _ = fit(config.model_copy(update=REGRESSION), direct, describe(direct))
    for name, array in alone.policy.arrays().items():
        assert array.tobytes() == router.policy.arrays()[name].tobytes()


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        ({"start": "regression"}, "was {} before it was fitted to these, too"),
        (MOVED, "was {} before it was fitted to these, too"),
        (NOTHING, "is {}"),
        (MLP, "is {}"),
    ],
    ids=["start", "both", "ppo", "mlp"],
)
def test_the_reward_that_is_told_is_said_to_be_of_an_earlier_fit_where_it_is(
    direct, recipe, describe, learner, said
) -> None:
    router, _ = fit(recipe(iterations=1, **learner), direct, describe(direct))
    told = said.format(f"{router.info.validation['reward']:.3f}")
    assert f"the alpha grid {told}.\n" in model_card(router.info)


def test_a_learned_start_is_not_left_for_a_chance_gain(make_outcomes, recipe, describe) -> None:
    noise = make_outcomes(n=90)
    kept = []
    for seed in range(4):
        config = recipe(iterations=6, evaluate_every=1, seed=seed)
        router, curve = fit(config, noise, describe(noise))
        found = router.info.validation
        kept.append((found["iteration"], found["reward"], max(validated(curve).values())))
    # Somewhere a later one was ahead on the few validation queries, and was not believed.
    assert any(iteration == 0 and most > reward for iteration, reward, most in kept)


def test_the_last_policy_from_a_learned_start_is_the_one_that_ppo_moved(
    direct, recipe, describe
) -> None:
    config = recipe(iterations=2, **MOVED)
    router, _ = fit(config, direct, describe(direct))
    alone, _ = fit(config.model_copy(update=REGRESSION), direct, describe(direct))
    assert router.info.validation["iteration"] == 2
    for name in ("quality", "cost"):
        moved = router.policy.arrays()[name] - alone.policy.arrays()[name]
        # Two iterations of Adam: small steps from the start, not a policy of its own.
        assert 0 < np.abs(moved).max() < 0.2


def test_a_regression_has_a_curve_of_one_point(direct, recipe, describe) -> None:
    router, curve = fit(recipe(**REGRESSION), direct, describe(direct))
    assert [entry["iteration"] for entry in curve] == [1]
    assert router.info.validation == {"iteration": 1.0, "queries": 0.0}
    # 1 - alpha, averaged over lambda = 0, .1, … .5.
    lambdas = np.linspace(0, 0.5, 6)
    expected = 1 - (lambdas / (1 - lambdas)).mean()
    assert curve[0]["metrics"]["training_reward"] == pytest.approx(expected)
    assert "kept back" not in model_card(router.info)


def test_among_equals_the_later_checkpoint_is_kept(direct, recipe, describe) -> None:
    same = replace(
        direct,
        solve_quality=np.ones_like(direct.solve_quality),
        solve_cost=np.zeros_like(direct.solve_cost),
        analyze_cost=np.zeros_like(direct.analyze_cost),
    )
    router, _ = fit(recipe(iterations=4, evaluate_every=1, **NOTHING), same, describe(same))
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
@EVERY
@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_training_queries(
    make_outcomes, recipe, describe, count, hops, learner
) -> None:
    few = make_outcomes(n=6, hops=hops)
    few = replace(few, train=np.arange(6) < count)
    router, _ = fit(recipe(iterations=2, projection=32, **learner), few, describe(few))
    assert len(router.follow(few, 0.1)) == 6
    assert router.info.validation["queries"] == (0 if learner is REGRESSION else 1)


@EVERY
@pytest.mark.parametrize(
    "greatest", [{"alpha": 1e4}, {"lambda_max": 0.9999, "alpha_warmup": 0}], ids=["alpha", "lambda"]
)
def test_the_greatest_alpha_is_trained_for(
    make_outcomes, recipe, describe, learner, greatest
) -> None:
    """Though single calls cost a hundred units."""
    world = make_outcomes(n=60)
    world = replace(
        world, solve_cost=world.solve_cost * np.where(np.arange(60) % 20, 1, 100)[:, None, None]
    )
    config = recipe(**{"iterations": 2, "cost_unit_usd": 1.0, **learner, **greatest})
    router, _ = fit(config, world, describe(world))
    assert len(router.follow(world, 1e4)) == 60


@pytest.mark.filterwarnings("error::RuntimeWarning")
@EVERY
def test_tasks_whose_only_query_is_kept_back(make_outcomes, recipe, describe, learner) -> None:
    world = make_outcomes(n=70)
    names = ["a"] * 40 + [f"b{k}" for k in range(20)] + ["a"] * 10
    world = replace(world, tasks=np.array(names), train=np.arange(70) < 60)
    train = world.tasks[world.train]
    fitted = train[~validation_mask(train, 0.2, 42)]
    assert set(fitted) < set(train), "the test needs a task of which nothing is fitted"
    router, _ = fit(recipe(iterations=2, moves="direct", **learner), world, describe(world))
    assert len(router.follow(world, 0.1)) == 70


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


@pytest.mark.parametrize("learner", [NOTHING, MOVED, MLP], ids=["ppo", "both", "mlp"])
def test_divergence_is_one_clear_line(direct, recipe, describe, learner) -> None:
    config = recipe(learning_rate=1e30, learning_rate_decay=False, **learner)
    with pytest.raises(HierRouterError, match=r"diverged.*learning_rate") as caught:
        fit(config, direct, describe(direct))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "mlp", "alpha": 0.1}, "start: nothing"),
        ({**MLP, "learner": "regression"}, "learner: ppo"),
        ({**MLP, "alpha": "sampled"}, "give alpha a number"),
        ({"learner": "regression", "fill": True}, "set learner: ppo"),
    ],
)
def test_settings_that_do_not_go_together(recipe, settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**settings)


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
    taken = router.follow(hop, 0.3)  # not looked at: it was trained for .005
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


@pytest.mark.parametrize(
    ("learner", "name"),
    [(NOTHING, "quality"), (MOVED, "quality"), (MLP, "action_weight")],
    ids=["ppo", "both", "mlp"],
)
@pytest.mark.parametrize("decay", [True, False])
def test_the_last_update_changes_the_policy_too(
    direct, recipe, describe, decay: bool, learner, name: str
) -> None:
    def weights(step: float) -> bytes:
        more = {"learning_rate": step, "learning_rate_decay": decay}
        config = recipe(iterations=1, **{**more, **learner, "keep": "last"})
        return fit(config, direct, describe(direct))[0].policy.arrays()[name].tobytes()

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

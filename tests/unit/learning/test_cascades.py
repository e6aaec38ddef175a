"""Routes that may go on after an answer: what is learned of them, and how they are played."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.routers import arbitrary_info, arbitrary_policy

from hierrouter.errors import ConfigError, DamagedFileError
from hierrouter.learning import workbench
from hierrouter.learning.actions import ACCEPT, SOLVE, action_name
from hierrouter.learning.answers import AnswerScale, shown, width_of
from hierrouter.learning.cascading import recorded_contexts
from hierrouter.learning.environment import Game, TreeVecEnv
from hierrouter.learning.greedy import mean_reward, walk
from hierrouter.learning.rests import Left
from hierrouter.learning.router import Router
from hierrouter.learning.stages import Stages, too_many_stages
from hierrouter.learning.train import fit, validation_mask
from hierrouter.routes.outcomes import Outcomes, cascade_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def with_answers(world: Outcomes, seed: int = 0) -> Outcomes:
    """The same, with answers that show something."""
    rng = np.random.default_rng(seed)
    shape = world.solve_quality.shape
    signals = rng.normal(size=(*shape, 4))
    signals[..., 2] = rng.integers(1, 90, shape)
    signals[..., 3] = rng.integers(0, 2, shape)
    signals[0, 0, 0] = np.nan
    return replace(world, signals=signals, said=rng.integers(-1, 3, shape))


@pytest.fixture
def doubtful(make_outcomes) -> Outcomes:
    """A costs a tenth of B and is right half the time, as its log-probabilities show. B is right.
    The questions show nothing."""
    n = 300
    world = with_answers(make_outcomes(n=n, hops=2, seed=7))
    rng = np.random.default_rng(8)
    right = rng.integers(2, size=n).astype(float)
    quality = np.zeros_like(world.solve_quality)
    quality[:, 0, 0], quality[:, 0, 1] = right, 1.0
    signals = world.signals.copy()
    signals[:, 0, 0, 0] = np.where(right, -0.1, -2.0) + rng.normal(size=n) * 0.05
    cost = np.ones_like(world.solve_cost)
    cost[:, :, 0] = 0.1
    return replace(
        world,
        tasks=np.array(["t"] * n),
        solve_quality=quality,
        solve_cost=cost,
        analyze_cost=np.where(world.analyze_cost > 0, 1.0, 0.0),
        signals=signals,
    )


@pytest.fixture
def agreeing(make_outcomes) -> Outcomes:
    """Of three models two say the same and are right; who errs is drawn. Calls cost next to
    nothing."""
    n = 400
    world = with_answers(make_outcomes(n=n, models=3, hops=3, seed=9))
    wrong = np.random.default_rng(1).integers(3, size=n)
    quality, said = np.ones((n, 3)), np.zeros((n, 3), dtype=int)
    quality[np.arange(n), wrong], said[np.arange(n), wrong] = 0.0, 1
    contexts = world.solve_quality.shape[1]
    return replace(
        world,
        tasks=np.array(["t"] * n),
        solve_quality=np.repeat(quality[:, None], contexts, axis=1),
        said=np.repeat(said[:, None], contexts, axis=1),
        solve_cost=np.full_like(world.solve_cost, 0.001),
        analyze_cost=np.where(world.analyze_cost > 0, 1.0, 0.0),
    )


def seen(world: Outcomes, moves: str) -> Outcomes:
    """What is loaded of a tree for these moves."""
    return world.bare() if moves == "escalate" else world


def names_and_rewards(router: Router, world: Outcomes, alpha: float) -> tuple[set[str], float]:
    """The routes of the test queries, and the mean of what they get."""
    test = seen(world.select(~world.train), router.info.moves)
    table, taken = test.every_route(router.info.moves), router.follow(test, alpha)
    reward = table.reward(alpha, router.info.cost_unit_usd)[np.arange(len(test)), taken]
    return {table.names[column] for column in taken}, float(reward.mean())


@pytest.fixture
def learned(recipe, describe) -> Callable[..., Router]:
    def make(world: Outcomes, **changes) -> Router:
        config = recipe(**{"moves": "cascade"} | changes)
        return fit(config, seen(world, config.moves), describe(world))[0]

    return make


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
def test_asks_another_where_an_answer_looks_doubtful(learned, doubtful, moves: str) -> None:
    router = learned(doubtful, learner="regression", moves=moves)
    names, reward = names_and_rewards(router, doubtful, 0.3)
    assert names == {"A", "A!B"}
    right = doubtful.solve_quality[~doubtful.train, 0, 0].mean()
    assert reward == pytest.approx(right * 0.97 + (1 - right) * 0.67)
    # At no cost B's answer is as good as any; where cost is all, A's is taken as it is.
    assert names_and_rewards(router, doubtful, 0.0)[1] == pytest.approx(1.0)
    assert names_and_rewards(router, doubtful, 2.0)[0] == {"A"}


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
@pytest.mark.parametrize("learner", ["regression", "ppo"])
def test_an_answer_after_which_no_call_is_left_is_worth_what_it_is(
    learned, doubtful, moves: str, learner: str
) -> None:
    """A's looks well with B behind it; alone, half of them are wrong."""
    router = learned(doubtful, learner=learner, moves=moves, iterations=2)
    query = doubtful.embeddings[~doubtful.train, 0]
    nobody, everybody = np.zeros((1, 1, 2), bool), np.ones((1, 1, 2), bool)
    spent, only_answers = np.zeros(1), np.array([False, True, False, True, False])
    for left in (Left(everybody, np.array([1])), Left(nobody, np.array([2]))):
        for vector in query[:20, None]:
            ask = vector, vector, 0, spent, 0.3, only_answers
            assert router.scores(*ask, left=left)[0].argmax() == 3
            # With both at hand A is asked first; and so it is where it alone is to be had.
            assert router.scores(*ask)[0].argmax() == 1
            assert router.scores(*ask[:4], 0.9, only_answers, left=left)[0].argmax() == 1


def test_ppo_finds_it_from_nothing(learned, doubtful) -> None:
    router = learned(doubtful, start="nothing", moves="escalate", alpha=0.3, iterations=80)
    names, reward = names_and_rewards(router, doubtful, 0.3)
    assert {"A", "A!B"} <= names
    assert reward > 0.8


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
def test_ppo_finds_just_what_pays_where_answers_alone_show_anything(
    learned, doubtful, moves: str
) -> None:
    world = replace(doubtful, embeddings=np.zeros_like(doubtful.embeddings))
    changes = {"alpha": 0.3, "iterations": 60, "learning_rate": 1e-2, "centres": 0}
    router = learned(world, start="nothing", moves=moves, **changes)
    names, reward = names_and_rewards(router, world, 0.3)
    assert names == {"A", "A!B"}
    right = world.solve_quality[~world.train, 0, 0].mean()
    assert reward == pytest.approx(right * 0.97 + (1 - right) * 0.67)


def test_returns_what_two_of_three_say(learned, agreeing) -> None:
    router = learned(agreeing, learner="regression", moves="escalate", alpha=0.1, cost_unit_usd=1.0)
    names, reward = names_and_rewards(router, agreeing, 0.1)
    # Two that agree are right; else the third decides, whichever of the two it agrees with.
    assert reward == pytest.approx(1 - 0.1 * 0.001 * (2 + 2 / 3), abs=1e-4)
    assert {len(name.split("=")[0]) for name in names} == {3, 5}
    assert {"=" in name for name in names if len(name.split("=")[0]) == 5} == {True, False}


def test_nothing_is_learned_from_permuted_outcomes(learned, doubtful) -> None:
    order = np.random.default_rng(0).permutation(len(doubtful))
    luck = replace(doubtful, solve_quality=doubtful.solve_quality[order])
    router = learned(luck, learner="regression", moves="escalate")
    # B is right whatever is permuted, and costs one; A gives half for a tenth of it.
    assert names_and_rewards(router, luck, 0.3)[1] == pytest.approx(0.7, abs=0.05)


def test_no_route_goes_on_after_an_answer_for_luck_alone(learned, make_outcomes) -> None:
    """All outcomes are coins and cost next to nothing: somebody always looks better."""
    for seed in range(3):
        world = with_answers(make_outcomes(n=60, hops=2, seed=seed), seed)
        cheap = replace(world, solve_cost=np.full_like(world.solve_cost, 1e-6))
        router = learned(cheap, learner="regression", moves="escalate")
        assert names_and_rewards(router, cheap, 0.0)[0] <= {"A", "B"}


@pytest.mark.parametrize("gates", [(False, True), (True, False)])
def test_a_step_is_not_added_to_a_start_of_another_kind(
    learned, doubtful, monkeypatch, gates: tuple[bool, bool]
) -> None:
    """Going on is worth it by the queries fitted first, and not by all, or the reverse."""
    found = iter(gates)
    monkeypatch.setattr(workbench, "surely_better", lambda *_: next(found))
    changes = {"moves": "escalate", "iterations": 2, "keep": "last", "alpha": 0.3}
    router = learned(doubtful, **changes)
    train = doubtful.select(doubtful.train).bare()
    held = train.select(validation_mask(train.tasks, 0.2, 42))
    unit = router.info.cost_unit_usd
    contexts = recorded_contexts(held, router.policy.state, unit, router.stages)
    reward = mean_reward(router, contexts, (0.3,)).mean()
    assert router.info.validation == {"iteration": 2, "queries": len(held), "reward": reward}


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
def test_a_first_answer_is_accepted_at_every_alpha_where_costs_are_not_linear(
    learned, make_outcomes, moves: str
) -> None:
    """A line through exponential costs says less than nothing of some queries."""
    world = with_answers(make_outcomes(n=200, seed=4), 4)
    cost = np.exp(2 * world.embeddings[:, :1, :1]) * np.ones_like(world.solve_cost)
    world = replace(world, train=np.arange(200) < 140, solve_cost=cost)
    router = learned(world, learner="regression", moves=moves)
    for alpha in (0.0, 10.0, 1e4):
        names, _ = names_and_rewards(router, world, alpha)
        assert not [name for name in names if "!" in name]


def arbitrary(models: int, hops: int, moves: str, seed: int = 0) -> Router:
    policy = arbitrary_policy(4, models, hops, seed, moves=moves)
    return Router(arbitrary_info("ABCD"[:models], hops, policy, moves=moves), policy)


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
@pytest.mark.parametrize(("models", "hops"), [(2, 2), (3, 2), (3, 3), (2, 3), (1, 2), (3, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_plays_the_best_of_its_own_heads_at_every_step(
    make_outcomes, models: int, hops: int, moves: str, seed: int
) -> None:
    world = with_answers(make_outcomes(n=20, models=models, hops=hops, seed=seed), seed)
    world = seen(world, moves)
    router = arbitrary(models, hops, moves, seed)
    table = world.every_route(moves)
    contexts = world.contexts
    for alpha in (0.0, 0.4):
        taken = router.follow(world, alpha)
        for row in range(len(world)):
            route, (quality, cost) = by_hand(router, world, row, alpha)
            assert table.names[taken[row]] == cascade_name(*route, world.models)
            assert table.quality[row, taken[row]] == quality
            assert table.cost[row, taken[row]] == pytest.approx(cost)
            assert route[0] in contexts


def by_hand(router: Router, world: Outcomes, row: int, alpha: float):
    """One query, step by step, as one that is asked live is: paying, and looking at answers."""
    analyses: tuple[int, ...] = ()
    answers: list[int] = []
    paid = 0.0
    query = world.embeddings[row : row + 1, 0]
    while True:
        context = world.contexts.index(analyses)
        who = sorted(answers)
        stage = router.stages.of(analyses, who)
        seen = None
        if who:
            signals, said = world.signals[row, context, who], world.said[row, context, who]
            seen = shown(signals[None], said[None], router.stages.most_answers)
        vectors = query, world.embeddings[row : row + 1, context]
        scores = router.scores(*vectors, stage, np.array([paid]), alpha, None, seen)[0]
        action = int(scores.argmax())
        if action == 2 * len(world.models):
            belief = router.beliefs(*vectors, stage, seen)[0]
            chosen = max(who, key=lambda model: belief[model])
            assert np.isinf(np.delete(belief, who)).all()
            return (analyses, tuple(answers), chosen), (
                world.solve_quality[row, context, chosen],
                paid,
            )
        model = action // 2
        if action % 2 == SOLVE:
            assert model not in answers
            paid += world.solve_cost[row, context, model]
            answers.append(model)
        else:
            assert not answers
            paid += world.analyze_cost[row, context, model]
            analyses = (*analyses, model)
        assert len(analyses) + len(answers) <= router.info.hops


@pytest.mark.parametrize("moves", ["cascade", "escalate"])
@pytest.mark.parametrize("limited", [0.0, 1.0])
def test_an_episode_pays_for_each_answer_and_returns_one_of_them(
    make_outcomes, moves: str, limited: float
) -> None:
    world = seen(with_answers(make_outcomes(n=9, models=3, hops=3)), moves)
    stages = Stages(3, 3, moves)  # type: ignore[arg-type]
    router = arbitrary(3, 3, moves)
    contexts = recorded_contexts(world, router.policy.state, 0.5, stages)
    env = TreeVecEnv(Game(contexts, moves, 0.2, 0.2, limited), 16, 3)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    env.reset()
    ends = 0
    for _ in range(400):
        masks, row = env.action_masks(), env._row.copy()
        assert masks.any(axis=1).all()
        hand = contexts.hand[row]
        assert (masks[:, ACCEPT] == hand.any(axis=1)).all()
        assert not (masks[:, SOLVE:-1:2] & hand).any()
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        _, reward, ended, _ = env.step(actions)
        assert (ended == (actions == 6)).all()
        for slot in np.flatnonzero(ended):
            context = contexts.stage[row[slot]]
            before, who = stages.answered[context - stages.before]
            assert contexts.returned[row[slot]] in who
            query = contexts.query[row[slot]]
            costs = [
                (world.spent[query, at] + world.solve_cost[query, at, list(who)].sum()) / 0.5
                for at, path in enumerate(world.contexts)
                if stages.of(path) == before
            ]
            qualities = [
                world.solve_quality[query, at, contexts.returned[row[slot]]]
                for at, path in enumerate(world.contexts)
                if stages.of(path) == before
            ]
            wanted = [q - 0.25 * c for q, c in zip(qualities, costs, strict=True)]
            assert min(abs(reward[slot] - each) for each in wanted) < 1e-5
            ends += 1
    assert ends > 200


@pytest.mark.parametrize("models", [1, 2, 3, 5])
@pytest.mark.parametrize("hops", [1, 2, 3, 4])
@pytest.mark.parametrize("moves", ["direct", "early_exit", "cascade", "escalate"])
def test_stages_are_numbered_once_each(models: int, hops: int, moves: str) -> None:
    stages = Stages(models, hops, moves)  # type: ignore[arg-type]
    assert len(stages) == len(stages.calls) == len(stages.allowed)
    numbers = []
    for depth in range(1 if moves == "escalate" else hops):
        for path in itertools.product(range(models), repeat=depth):
            numbers.append(stages.of(path))
            assert stages.depth(numbers[-1]) == stages.calls[numbers[-1]] == depth
            assert not stages.allowed[numbers[-1], ACCEPT]
            for count in range(1, min(stages.most_answers, hops - depth) + 1):
                for who in itertools.combinations(range(models), count):
                    number = stages.of(path, who[::-1])
                    numbers.append(number)
                    assert stages.depth(number) == depth
                    assert stages.calls[number] == depth + count
                    others = set(range(models)) - set(who) if depth + count < hops else set()
                    allowed = {2 * model + SOLVE for model in others} | {2 * models}
                    assert set(np.flatnonzero(stages.allowed[number])) == allowed
    assert set(numbers) == set(range(len(stages)))
    assert too_many_stages(models, hops, moves) is None  # type: ignore[arg-type]


def test_too_many_stages_are_refused(make_outcomes, learned, tmp_path: Path) -> None:
    assert too_many_stages(10, 2, "cascade") is None
    line = too_many_stages(10, 4, "cascade")
    assert line is not None
    assert f"tell {len(Stages(10, 4, 'cascade'))} stages apart" in line
    assert f"tell {len(Stages(20, 3, 'escalate'))} stages" in str(
        too_many_stages(20, 3, "escalate")
    )
    world = with_answers(make_outcomes(n=9, models=8, hops=2))
    with pytest.raises(ConfigError, match=r"moves cascade with 8 models and 4 hops tell"):
        learned(replace(world.bare(), hops=4))


def test_a_router_comes_back_the_same(make_outcomes, learned, tmp_path: Path) -> None:
    world = with_answers(make_outcomes(n=30, models=2, hops=2))
    router = learned(world, learner="regression")
    router.save(tmp_path / "one", [], "card")
    learned(world, learner="regression").save(tmp_path / "two", [], "card")
    one, two = ((tmp_path / name / "router.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    again = Router.load(tmp_path / "one")
    for alpha in (0.0, 0.3):
        np.testing.assert_array_equal(again.follow(world, alpha), router.follow(world, alpha))
    assert len(set(router.follow(world, 0.0))) > 1


@pytest.mark.parametrize("moves", ["early_exit", "cascade"])
def test_a_router_that_lacks_or_has_beliefs_against_its_moves_is_refused(
    tmp_path: Path, moves: str
) -> None:
    router = arbitrary(2, 2, moves)
    other = "cascade" if moves == "early_exit" else "early_exit"
    router.info = router.info.model_copy(update={"moves": other})
    router.save(tmp_path / "r", [], "card")
    with pytest.raises(DamagedFileError, match=r"shape|does not hold what moves"):
        Router.load(tmp_path / "r")


def test_imported_outcomes_show_no_answers(make_outcomes, learned) -> None:
    with pytest.raises(ConfigError, match=r"moves: cascade looks at answers"):
        learned(make_outcomes(n=20))


def test_what_answers_show(make_outcomes) -> None:
    signals = np.array([[[-1.0, -3.0, 9.0, 1.0], [-2.0, np.nan, 0.0, 0.0]]])
    found = shown(signals, np.array([[4, 4]]), 3)
    assert found.shape == (1, width_of(3)) == (1, 15)
    np.testing.assert_allclose(found[0, :8], [-1, -3, np.log(10), 1, -2, np.nan, 0, 0])
    # The third is not there: neither are its signals, nor its pairs.
    np.testing.assert_array_equal(found[0, 8:], [np.nan] * 4 + [1, np.nan, np.nan])
    assert shown(signals, np.array([[4, 5]]), 2)[0, -1] == -1
    assert shown(signals, np.array([[4, -1]]), 2)[0, -1] == 0
    scale = AnswerScale.fit(np.array([[0.0, 1, 5, 1], [2.0, np.nan, 5, 0]]), 2)
    np.testing.assert_allclose(scale.mean[:4], [1, 1, np.log(6), 0.5], rtol=1e-6)
    np.testing.assert_array_equal(scale.mean[:4], scale.mean[4:8])
    scaled = scale(np.full((1, 9), np.nan))
    assert (scaled == 0).all()
    assert AnswerScale.from_arrays(scale.arrays()) is not None
    assert not AnswerScale.fit(None, 0).arrays()
    assert action_name(4, "AB") == "accept"


def test_answers_that_say_nothing_of_themselves_are_no_obstacle(learned, doubtful) -> None:
    """As behind an endpoint that gives no log-probabilities."""
    signals = doubtful.signals.copy()
    signals[..., :2] = np.nan
    router = learned(replace(doubtful, signals=signals), learner="regression")
    assert names_and_rewards(router, replace(doubtful, signals=signals), 0.3)[1] > 0.65


def test_walks_tell_what_was_called_and_returned(make_outcomes) -> None:
    world = with_answers(make_outcomes(n=25, models=3, hops=3, seed=2))
    router = arbitrary(3, 3, "cascade", 5)
    contexts = recorded_contexts(world, router.policy.state, 1.0, router.stages)
    walks = walk(router, contexts, (0.0, 0.3))
    for row in range(2):
        for query, route in enumerate(walks.routes[row]):
            assert route.returned in route.answers
            assert len(set(route.answers)) == len(route.answers)
            at = world.contexts.index(route.analyses)
            assert walks.quality[row, query] == world.solve_quality[query, at, route.returned]
            paid = world.spent[query, at] + world.solve_cost[query, at, list(route.answers)].sum()
            assert walks.cost[row, query] == pytest.approx(paid)

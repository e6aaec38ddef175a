"""What calls are worth where a request leaves less of the rest of a route."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.routers import arbitrary_info, arbitrary_policy
from tests.unit.learning.test_cascades import with_answers

from hierrouter.learning.actions import ACCEPT
from hierrouter.learning.ascent import HeadsExtractor
from hierrouter.learning.cascading import recorded_contexts
from hierrouter.learning.environment import Game, TreeVecEnv
from hierrouter.learning.rests import Left, Limit, Rests, _change
from hierrouter.learning.router import Router
from hierrouter.learning.stages import Stages
from hierrouter.learning.train import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from hierrouter.routes.outcomes import Outcomes

ALPHAS = (0.0, 0.1, 0.3)


@pytest.fixture
def regressed(recipe, describe) -> Callable[..., Router]:
    def make(world: Outcomes, **changes) -> Router:
        return fit(recipe(**{"learner": "regression"} | changes), world, describe(world))[0]

    return make


@pytest.fixture
def told_by_a(make_outcomes) -> Outcomes:
    """A's analysis shows which of B and C is right, and after it they are; every direct answer of D
    is right three times in five; nobody else is ever right. All calls cost one."""
    n = 400
    world = make_outcomes(n=n, models=4, hops=2, seed=3)
    right = 1 + np.random.default_rng(4).integers(2, size=n)
    embeddings = 0.01 * world.embeddings
    embeddings[:, 1, 0] = 2.0 * right - 3
    quality = np.zeros_like(world.solve_quality)
    quality[np.arange(n), 1, right] = 1.0
    quality[:, 0, 3] = np.arange(n) % 5 < 3
    return replace(
        world,
        tasks=np.array(["t"] * n),
        embeddings=embeddings.astype(np.float32),
        solve_quality=quality,
        solve_cost=np.ones_like(world.solve_cost),
        analyze_cost=np.where(world.analyze_cost > 0, 1.0, 0.0),
    )


def mean_reward(
    router: Router, world: Outcomes, alpha: float, models: tuple[int, ...], hops: int
) -> float:
    """What it gets on the test queries with some of the models and so many hops."""
    test = world.select(~world.train)
    mask = np.zeros(2 * len(world.models) + 1, dtype=bool)
    mask[ACCEPT] = True
    for model in models:
        mask[[2 * model, 2 * model + 1]] = True
    first = mask.copy()
    if hops == 1:
        first[:ACCEPT:2] = False
    rows = np.arange(len(test))
    left = Left(
        np.isin(np.arange(len(world.models)), models)[None, None].repeat(len(test), 0),
        np.full(len(test), hops),
    )
    query = test.embeddings[:, 0]
    action = router.scores(query, query, 0, np.zeros(len(test)), alpha, first, left=left)
    action = action.argmax(axis=1)
    model, solves = action // 2, action % 2 == 1
    unit = router.info.cost_unit_usd
    quality = test.solve_quality[rows, 0, model]
    cost = test.solve_cost[rows, 0, model] / unit
    for row in np.flatnonzero(~solves):
        context = test.contexts.index((int(model[row]),))
        stage = router.stages.of((int(model[row]),))
        seen = test.embeddings[row : row + 1, context]
        scores = router.scores(query[row : row + 1], seen, stage, np.zeros(1), alpha, mask)
        chosen = int(scores[0].argmax()) // 2
        quality[row] = test.solve_quality[row, context, chosen]
        cost[row] = (
            test.analyze_cost[row, 0, model[row]] + test.solve_cost[row, context, chosen]
        ) / unit
    return float((quality - alpha * cost).mean())


@pytest.mark.parametrize("learner", ["regression", "ppo"])
def test_an_analysis_is_made_only_where_those_that_it_helps_may_be_asked(
    regressed, told_by_a, learner: str
) -> None:
    router = regressed(told_by_a, learner=learner, iterations=2)
    right = told_by_a.solve_quality[~told_by_a.train, 0, 3].mean()
    b = told_by_a.solve_quality[~told_by_a.train, 1, 1].mean()
    for size in range(1, 5):
        for models in itertools.combinations(range(4), size):
            for alpha in ALPHAS:
                options = [-alpha]
                if 3 in models:
                    options.append(right - alpha)
                if 0 in models and (1 in models or 2 in models):
                    both = 1 in models and 2 in models
                    one = b if 1 in models else 1 - b
                    options.append((1.0 if both else one) - 2 * alpha)
                got = mean_reward(router, told_by_a, alpha, models, 2)
                assert got == pytest.approx(max(options), abs=0.02), (models, alpha)


def test_with_one_hop_the_best_direct_answer_is_taken(regressed, told_by_a) -> None:
    router = regressed(told_by_a)
    right = told_by_a.solve_quality[~told_by_a.train, 0, 3].mean()
    for alpha in ALPHAS:
        got = mean_reward(router, told_by_a, alpha, (0, 1, 2, 3), 1)
        assert got == pytest.approx(right - alpha)


@pytest.mark.parametrize("moves", ["paper", "early_exit", "cascade", "escalate"])
@pytest.mark.parametrize(("models", "hops"), [(1, 2), (2, 1), (2, 2), (3, 2), (3, 3), (6, 3)])
def test_calls_and_limits(moves: str, models: int, hops: int) -> None:
    stages = Stages(models, hops, moves)
    rests = Rests(stages)
    for stage, action in rests.calls:
        assert stages.allowed[stage, action]
        made = stages.calls[stage] + 1
        assert made < hops
        if action % 2 and action < 2 * models:
            assert moves in ("cascade", "escalate")
    assert len(set(rests.limits)) == len(rests.limits)
    everything = Limit(frozenset(range(models)), hops)
    assert everything not in rests.limits
    assert all(limit.models or moves in ("cascade", "escalate") for limit in rests.limits)


@pytest.mark.parametrize(("moves", "hops"), [("early_exit", 2), ("early_exit", 3), ("paper", 3)])
def test_other_limits_lie_between_those_that_are_known(moves: str, hops: int) -> None:
    """With signed changes: what was fitted may say that less is worth more."""
    rests = Rests(Stages(6, hops, moves))
    reward = np.random.default_rng(0).normal(-0.3, 0.3, len(rests.limits))
    for most in range(2, hops + 1):
        for size in range(1, 7):
            for who in itertools.combinations(range(6), size):
                limit = Limit(frozenset(who), most)
                got = _change(rests, frozenset(), limit, reward)
                if size == 6 and most == hops:
                    assert got == 0
                elif limit in rests.limits:
                    assert got == reward[rests.limits.index(limit)]
                else:
                    more = [
                        reward[n]
                        for n, each in enumerate(rests.limits)
                        if each.models >= limit.models and each.hops >= most
                    ]
                    assert got <= min([0, *more]) + 1e-9
                    assert got <= max(_change(rests, frozenset(), Limit(limit[0], hops), reward), 0)


def test_fewer_hops_make_no_call_worth_more() -> None:
    rests = Rests(Stages(6, 3, "early_exit"))
    everyone = frozenset(range(6))
    reward = np.zeros(len(rests.limits))
    for number, (who, hops) in enumerate(rests.limits):
        reward[number] = -0.5 if len(who) == 1 else -0.05 if hops == 2 else 0.0
    for size in range(1, 7):
        limit = frozenset(range(size))
        with_three = _change(rests, frozenset(), Limit(limit, 3), reward)
        with_two = _change(rests, frozenset(), Limit(limit, 2), reward)
        assert with_two <= with_three
    assert _change(rests, frozenset(), Limit(everyone, 2), reward) == -0.05


def test_who_has_answered_is_not_counted_on() -> None:
    """Where only B is left after A has answered, what is known of B alone is what counts."""
    stages = Stages(5, 3, "escalate")
    rests = Rests(stages)
    policy = arbitrary_policy(4, 5, 3, 2, moves="escalate")
    state = np.abs(np.random.default_rng(1).normal(size=(1, policy.features.size)))
    state = state.astype(np.float32)
    left = Left(np.array([[[True, True, False, False, False]]]), np.array([3]))

    def expected(stage: int, action: int, who: set[int]) -> float:
        limit = rests.limits.index(Limit(frozenset(who), 3))
        call = rests.calls.index((stage, action))
        quality, cost = policy.rest_quality[limit, call], policy.rest_cost[limit, call]
        return float(state[0] @ quality - 0.3 * (state[0] @ cost))

    alpha, first = np.array([0.3]), stages.of((), (0,))
    for stage, action, who in [(0, 1, {1}), (0, 3, {0}), (first, 3, set())]:
        changes = rests.changes(policy, state, np.array([stage]), alpha, left)
        assert changes[0, action] == pytest.approx(expected(stage, action, who), rel=1e-4)


@pytest.mark.parametrize("moves", ["early_exit", "cascade", "paper"])
def test_ppo_plays_episodes_by_what_their_limits_change(make_outcomes, moves: str) -> None:
    """Its logits, of what the environment shows, are those of the router under these limits."""
    models, hops = 3, 3
    policy = arbitrary_policy(4, models, hops, 5, moves=moves)
    router = Router(arbitrary_info("ABC", hops, policy, moves=moves), policy)
    world = with_answers(make_outcomes(n=12, models=models, hops=hops))
    contexts = recorded_contexts(world, policy.state, 0.5, router.stages)
    env = TreeVecEnv(Game(contexts, moves, 0.0, 0.5, 0.5, policy), 64, 3)
    extractor = HeadsExtractor(policy.quality, policy.cost, float(policy.tau), [4, 4])
    rng = np.random.default_rng(0)
    seen = env.reset()
    assert env.observation_space.shape == seen.shape[1:]
    limited = 0
    for _ in range(12):
        alpha, row = env._lambda / (1 - env._lambda), env._row
        with torch.no_grad():
            logits = extractor.forward_actor(torch.tensor(seen)).numpy()
            extractor.forward_critic(torch.tensor(seen))
        left = Left(env._asked[:, None, :-1:2], env._hops)
        masks = env.action_masks()
        told = router.state_scores(
            contexts.state[row], contexts.stage[row], contexts.spent[row], alpha, masks, left
        )
        best = np.where(masks, logits, -np.inf).max(axis=1, keepdims=True)
        expected = told - told.max(axis=1, keepdims=True)
        np.testing.assert_allclose((logits - best)[masks], expected[masks], atol=2e-3)
        limited += (seen[:, policy.features.size : -3] != 0).any(axis=1).sum()
        seen = env.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))[0]
    assert limited > 50


def test_a_mask_that_leaves_a_model_nothing_takes_it_to_be_gone() -> None:
    stages = Stages(3, 2, "early_exit")
    allowed = stages.allowed[[0, 1]]
    mask = np.array([1, 1, 0, 0, 0, 1, 0], dtype=bool)
    left = Left.of(allowed, allowed & mask, 2)
    assert left.models[:, 0].tolist() == [[True, False, True]] * 2
    assert left.hops.tolist() == [2, 2]

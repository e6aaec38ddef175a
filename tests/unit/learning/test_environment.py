"""The environment against hand-worked episodes, and against what gymnasium and SB3 ask."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor

from hierrouter.learning.environment import EXTRA, RouteEnv, TreeVecEnv

ANALYZE_A, SOLVE_A, ANALYZE_B, SOLVE_B, ACCEPT = range(5)


@pytest.fixture
def hand_made(make_outcomes):
    """One query, two models, two hops: every number chosen by hand."""
    contexts = [[0.0], [1.0], [2.0]]
    return replace(
        make_outcomes(n=1),
        train=np.array([True]),
        embeddings=np.array([contexts], dtype=np.float32),
        analyze_cost=np.array([[[0.1, 0.2], [0, 0], [0, 0]]]),
        solve_cost=np.array([[[0.3, 0.4], [0.5, 0.6], [0.7, 0.8]]]),
        solve_quality=np.array([[[0.0, 1.0], [0.25, 0.5], [0.75, 1.0]]]),
    )


def play(env: TreeVecEnv, actions: list[int]):
    return env.step(np.array(actions))


def test_a_direct_answer_pays_quality_less_alpha_times_relative_cost(hand_made, make_game) -> None:
    lam = 0.2  # alpha = .25
    env = TreeVecEnv(make_game(hand_made, unit=0.5, low=lam, high=lam), 1, seed=0)
    np.testing.assert_allclose(env.reset(), [[0, 0, lam, 0]], rtol=1e-6)
    seen, reward, ended, infos = play(env, [SOLVE_B])
    assert ended.tolist() == [True]
    np.testing.assert_allclose(reward, [1.0 - 0.25 * 0.4 / 0.5], rtol=1e-6)
    np.testing.assert_allclose(infos[0]["terminal_observation"], [0, 0, lam, 0], rtol=1e-6)
    assert infos[0]["TimeLimit.truncated"] is False
    np.testing.assert_allclose(seen, [[0, 0, lam, 0]], rtol=1e-6)  # the next episode


def test_costs_are_summed_over_hops_and_paid_at_the_end(hand_made, make_game) -> None:
    env = TreeVecEnv(make_game(hand_made, unit=0.5, low=0.5, high=0.5), 1, seed=0)  # alpha = 1
    env.reset()
    seen, reward, ended, infos = play(env, [ANALYZE_B])
    # Stage 1 is after an analysis of A, stage 2 after one of B.
    np.testing.assert_allclose(seen, [[2, 0.2 / 0.5, 0.5, 2]], rtol=1e-6)
    assert (reward[0], ended[0], infos) == (0, False, [{}])
    seen, reward, ended, infos = play(env, [SOLVE_A])
    np.testing.assert_allclose(reward, [0.75 - (0.2 + 0.7) / 0.5], rtol=1e-6)
    assert ended[0]
    np.testing.assert_allclose(infos[0]["terminal_observation"], [2, 0.4, 0.5, 2], rtol=1e-6)
    np.testing.assert_allclose(seen, [[0, 0, 0.5, 0]], rtol=1e-6)


def test_slots_end_and_start_on_their_own(make_outcomes, make_game) -> None:
    outcomes = make_outcomes(n=5)
    env = TreeVecEnv(make_game(outcomes), 3, seed=0)
    first = env.reset()
    seen, reward, ended, _ = play(env, [SOLVE_A, ANALYZE_A, SOLVE_B])
    assert ended.tolist() == [True, False, True]
    assert seen[:, -1].tolist() == [0, 1, 0]
    assert seen[1, -2] == first[1, -2]  # lambda stays within an episode
    assert reward[1] == 0


def test_passes_meet_every_query_equally_often(make_outcomes, make_game) -> None:
    n, slots = 7, 3
    outcomes = make_outcomes(n=n)
    of = {outcomes.embeddings[k, 0].tobytes(): k for k in range(n)}
    env = TreeVecEnv(make_game(outcomes), slots, seed=0)
    rows = [env.reset()]
    while len(rows) < n * 4:
        rows.append(play(env, [SOLVE_A] * slots)[0])
    order = [of[row.tobytes()] for each in rows for row in each[:, :-EXTRA]]
    for start in range(0, len(order), n):
        assert sorted(order[start : start + n]) == list(range(n))
    assert order[:n] != order[n : 2 * n]  # shuffled anew
    counts = Counter(order)
    assert set(counts.values()) == {slots * 4}


def test_more_slots_than_queries(make_outcomes, make_game) -> None:
    env = TreeVecEnv(make_game(make_outcomes(n=2)), 7, seed=0)
    assert env.reset().shape == (7, 4 + EXTRA)


def test_lambda_fills_its_range_and_widen_narrows_it(make_outcomes, make_game) -> None:
    env = TreeVecEnv(make_game(make_outcomes(), low=0.1, high=0.5), 4000, seed=0)

    def drawn() -> np.ndarray:
        return env.reset()[:, -2]

    whole = drawn()
    assert 0.1 <= whole.min() < 0.11
    assert 0.49 < whole.max() <= 0.5
    np.testing.assert_allclose(whole.mean(), 0.3, atol=0.01)
    env.widen(0.25)
    part = drawn()
    assert 0.1 <= part.min() < 0.11
    assert 0.19 < part.max() <= 0.2
    env.widen(0)
    assert np.unique(drawn()).tolist() == [np.float32(0.1)]
    env.widen(1)
    assert drawn().max() > 0.49


def test_the_same_seed_gives_the_same_episodes(make_outcomes, make_game) -> None:
    game = make_game(make_outcomes())
    one, two, other = (TreeVecEnv(game, 4, seed) for seed in (3, 3, 4))
    assert (one.reset() == two.reset()).all()
    assert (one.reset() != other.reset()).any()


@pytest.mark.parametrize(("moves", "actions"), [("paper", [SOLVE_A]), ("early_exit", [ACCEPT])])
def test_a_forbidden_action_is_refused(make_outcomes, make_game, moves, actions) -> None:
    env = TreeVecEnv(make_game(make_outcomes(), moves=moves), 1, seed=0)
    env.reset()
    with pytest.raises(ValueError, match="mask forbids"):
        play(env, actions)
    single = RouteEnv(make_game(make_outcomes(), moves=moves))
    single.reset(seed=0)
    _, reward, ended, truncated, info = single.step(actions[0])
    assert (reward, ended, truncated, info) == (-1.0, True, False, {"invalid_action": True})
    with pytest.raises(RuntimeError, match="reset"):
        single.step(0)
    single.reset()
    assert single.step(0)[1] != -1.0


@pytest.mark.parametrize("limited", [0.0, 0.5])
@pytest.mark.parametrize("moves", ["paper", "early_exit"])
@pytest.mark.parametrize("hops", [1, 3])
def test_gymnasium_finds_nothing_to_complain_about(
    make_outcomes, make_game, moves, hops, limited
) -> None:
    outcomes = make_outcomes(hops=hops)
    outcomes.embeddings[:, :, 2] = 0.5  # a dead dimension
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        game = make_game(outcomes, moves=moves, limited=limited)
        check_env(RouteEnv(game), skip_render_check=True)


@pytest.mark.parametrize("limited", [0.0, 0.5])
@pytest.mark.parametrize("moves", ["paper", "early_exit"])
def test_both_environments_play_the_same_game(make_outcomes, make_game, moves, limited) -> None:
    game = make_game(make_outcomes(hops=3), moves=moves, limited=limited)
    single = RouteEnv(game)
    observation, _ = single.reset(seed=11)
    # RouteEnv seeds its one slot from gymnasium's generator.
    many = TreeVecEnv(game, 1, int(gym.utils.seeding.np_random(11)[0].integers(2**31)))
    assert (many.reset()[0] == observation).all()
    choose = np.random.default_rng(5)
    for _ in range(80):
        mask = single.action_masks()
        assert (mask == many.action_masks()[0]).all()
        action = int(choose.choice(np.flatnonzero(mask)))
        observation, reward, ended, truncated, _ = single.step(action)
        seen, rewards, endings, infos = play(many, [action])
        assert (reward, ended, truncated) == (rewards[0], endings[0], False)
        assert (observation == (infos[0]["terminal_observation"] if ended else seen[0])).all()
        assert single.observation_space.contains(observation)
        if ended:
            observation, info = single.reset()
            assert (observation == seen[0]).all()
            assert (info["action_mask"] == single.action_masks()).all()


def test_the_same_seed_restarts_a_single_environment(make_outcomes, make_game) -> None:
    single = RouteEnv(make_game(make_outcomes()))
    first, _ = single.reset(seed=3)
    second, _ = single.reset()
    single.step(SOLVE_A)
    assert (first != second).any()
    again, _ = single.reset(seed=3)
    assert (again == first).all()
    assert (single.reset()[0] == second).all()


def test_reset_before_step(make_outcomes, make_game) -> None:
    with pytest.raises(RuntimeError, match="reset"):
        RouteEnv(make_game(make_outcomes())).step(0)
    single = RouteEnv(make_game(make_outcomes()))
    single.reset(seed=0)
    single.step(SOLVE_A)
    with pytest.raises(RuntimeError, match="reset"):
        single.step(SOLVE_A)


def test_stable_baselines_contract(make_outcomes, make_game) -> None:
    env = TreeVecEnv(make_game(make_outcomes(), moves="paper"), 3, seed=0)
    env.reset()
    assert is_masking_supported(env)
    expected = [[True, False, True, False, False]] * 3
    assert get_action_masks(env).tolist() == expected
    play(env, [ANALYZE_A] * 3)
    expected = [[False, True, False, True, False]] * 3
    assert get_action_masks(env).tolist() == expected
    assert [row.tolist() for row in env.env_method("action_masks", indices=[0, 2])] == expected[:2]
    assert env.get_attr("render_mode") == [None] * 3
    assert len(env.get_attr("action_space", indices=1)) == 1
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    with pytest.raises(AttributeError):
        env.set_attr("render_mode", "human")
    with pytest.raises(AttributeError):
        env.env_method("no_such_thing")
    wrapped = VecCheckNan(VecMonitor(env), raise_exception=True)
    wrapped.reset()
    play(wrapped, [ANALYZE_B] * 3)
    _, rewards, ended, infos = play(wrapped, [SOLVE_B] * 3)
    assert ended.all()
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], rewards, atol=1e-6)
    assert [info["episode"]["l"] for info in infos] == [2] * 3
    assert is_masking_supported(wrapped)
    wrapped.close()


def test_observations_are_not_shared(make_outcomes, make_game) -> None:
    env = TreeVecEnv(make_game(make_outcomes()), 2, seed=0)
    first = env.reset()
    kept = first.copy()
    second = play(env, [ANALYZE_A] * 2)[0]
    second[:] = 9
    assert (first == kept).all()
    assert not (play(env, [SOLVE_A] * 2)[0] == 9).any()


# Stages


def test_the_stage_tells_depth_and_last_model(make_outcomes, make_game) -> None:
    env = TreeVecEnv(make_game(make_outcomes(models=3, hops=3)), 3, seed=0)
    assert env.reset()[:, -1].tolist() == [0, 0, 0]
    seen, *_ = play(env, [0, 2, 4])  # an analysis of each model
    assert seen[:, -1].tolist() == [1, 2, 3]
    seen, *_ = play(env, [4, 2, 0])
    assert seen[:, -1].tolist() == [6, 5, 4]
    assert env.observation_space.contains(seen[0])

"""Episodes in which only some models may be asked and fewer hops be made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierrouter.learning.actions import ANALYZE, SOLVE, allowed_actions
from hierrouter.learning.environment import TreeVecEnv


@pytest.fixture
def limited(make_outcomes, make_game):
    """An environment with limits; `unknown` is the share of answers that are not known."""

    def make(
        share: float = 1.0,
        models: int = 3,
        hops: int = 3,
        moves: str = "early_exit",
        slots: int = 400,
        unknown: float = 0.0,
        seed: int = 0,
    ) -> TreeVecEnv:
        outcomes = make_outcomes(n=30, models=models, hops=hops)
        if unknown:
            lost = np.random.default_rng(5).random(outcomes.solve_quality.shape) < unknown
            lost[lost.all(axis=2), 0] = False  # an answer in each context is known
            outcomes = replace(
                outcomes,
                solve_quality=np.where(lost, np.nan, outcomes.solve_quality),
                solve_cost=np.where(lost, np.nan, outcomes.solve_cost),
            )
        return TreeVecEnv(replace(make_game(outcomes, moves), limited=share), slots, seed)

    return make


def any_of(masks: np.ndarray, random: np.random.Generator, deep: bool = False) -> np.ndarray:
    """An allowed action of each slot; `deep`: an analysis where there is one."""
    wish = random.random(masks.shape)
    if deep:
        wish[:, ANALYZE:-1:2] += 1
    return np.where(masks, wish, -1).argmax(axis=1)


def models_of(masks: np.ndarray, role: int) -> np.ndarray:
    return masks[:, role:-1:2]


@pytest.mark.parametrize("moves", ["direct", "early_exit", "paper"])
@pytest.mark.parametrize("unknown", [0.0, 0.5])
def test_masks_are_a_part_of_what_the_hop_allows_and_never_empty(
    limited, moves: str, unknown: float
) -> None:
    hops = 1 if moves == "direct" else 3
    env = limited(moves=moves, hops=hops, unknown=unknown, slots=60)
    allowed = allowed_actions(3, hops, moves)  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    seen = env.reset()
    fewer = 0
    for _ in range(60):
        depth = (seen[:, -1].astype(int) + 2) // 3
        masks = env.action_masks()
        assert not (masks & ~allowed[depth]).any()
        assert masks.any(axis=1).all()
        fewer += int((masks.sum(axis=1) < allowed[depth].sum(axis=1)).sum())
        seen, reward, _, _ = env.step(any_of(masks, random))
        assert np.isfinite(reward).all()  # of what is not known nothing is taken
    assert fewer > 1000


def test_without_limits_all_may_be_asked(limited) -> None:
    env = limited(share=0.0)
    env.reset()
    assert (env.action_masks() == allowed_actions(3, 3, "early_exit")[0]).all()


def test_a_limit_holds_for_its_episode(limited) -> None:
    """The models asked stay the same; the last hop that is left wants an answer."""
    env = limited(slots=300)
    random = np.random.default_rng(1)
    env.reset()
    first = models_of(env.action_masks(), SOLVE)
    asked = first.copy()
    for _ in range(12):
        masks = env.action_masks()
        assert (models_of(masks, SOLVE) == asked).all()
        analyses = models_of(masks, ANALYZE)
        assert ((analyses == asked).all(axis=1) | ~analyses.any(axis=1)).all()
        _, _, ended, _ = env.step(any_of(masks, random, deep=True))
        asked = np.where(ended[:, None], models_of(env.action_masks(), SOLVE), asked)
    assert len(np.unique(first, axis=0)) == 7  # every subset of three models but the empty one


def test_the_most_calls_are_drawn_evenly(limited) -> None:
    env = limited(slots=6000, models=2)
    random = np.random.default_rng(1)
    env.reset()
    calls = np.zeros(6000, int)
    going = np.ones(6000, bool)
    some = models_of(env.action_masks(), SOLVE).sum(axis=1) == 1  # surely limited
    for _ in range(3):
        _, _, ended, _ = env.step(any_of(env.action_masks(), random, deep=True))
        calls += going
        going &= ~ended
    assert not going.any()
    shares = np.bincount(calls[some], minlength=4)[1:] / some.sum()
    # About 2,000 episodes: a standard error of .01.
    np.testing.assert_allclose(shares, 1 / 3, atol=0.045)


def test_the_papers_moves_keep_all_their_hops(limited) -> None:
    env = limited(moves="paper", slots=200)
    random = np.random.default_rng(0)
    env.reset()
    asked = models_of(env.action_masks(), ANALYZE)
    for hop in (0, 1, 2):
        masks = env.action_masks()
        role, other = (SOLVE, ANALYZE) if hop == 2 else (ANALYZE, SOLVE)
        assert (models_of(masks, role) == asked).all()
        assert not models_of(masks, other).any()
        _, _, ended, _ = env.step(any_of(masks, random))
        assert ended.all() == ended.any() == (hop == 2)
    assert (asked.sum(axis=1) < 3).mean() > 0.3


def test_a_known_answer_is_always_left(limited) -> None:
    """Whoever may be asked, one of them has a known answer to this query."""
    env = limited(models=4, hops=1, moves="direct", unknown=0.6, slots=2000)
    env.reset()
    known = env._contexts.masks(env._row)
    masks = env.action_masks()
    assert known is not None
    assert masks.any(axis=1).all()
    assert not (masks & ~known).any()
    hidden = (known & allowed_actions(4, 1, "direct")[0] & ~masks).any(axis=1)
    assert hidden.mean() > 0.2  # and yet there are limits


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_share_of_limited_episodes(limited, share: float) -> None:
    env = limited(share=share, slots=8000)
    env.reset()
    whole = allowed_actions(3, 3, "early_exit")[0]
    masks = env.action_masks()
    less = float((masks != whole).any(axis=1).mean())
    # A limited episode is as others are if it draws all models (a quarter: the chance of each is
    # itself drawn evenly) and all hops, or none of the models (a quarter).
    # Of the hops only a limit to one shows before the first call.
    shown = share * (1 / 2 + 1 / 4 * 1 / 3)
    assert less == pytest.approx(shown, abs=0.03)


def test_the_same_seed_draws_the_same_limits(limited) -> None:
    one, two, other = (limited(seed=seed) for seed in (3, 3, 4))
    for env in (one, two, other):
        env.reset()
    assert (one.action_masks() == two.action_masks()).all()
    assert (one.action_masks() != other.action_masks()).any()


def test_what_a_limit_forbids_is_refused(limited) -> None:
    env = limited(slots=50)
    env.reset()
    masks = env.action_masks()
    actions = any_of(masks, np.random.default_rng(0))
    slot = int(np.flatnonzero((~masks[:, SOLVE:-1:2]).any(axis=1))[0])
    actions[slot] = 2 * int(np.flatnonzero(~masks[slot, SOLVE:-1:2])[0]) + SOLVE
    with pytest.raises(ValueError, match="mask forbids"):
        env.step(actions)

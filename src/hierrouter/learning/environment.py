"""The MDP of section 3.1 as gymnasium and Stable-Baselines3 know it, over a route tree.

The observation is one row: what the policy sees of the context `c_l`, the relative cost `C_l` so
far, lambda = alpha / (1 + alpha), and the stage (`stages`), which tells the hop index `l`. Where it
is known what limits of a route change (`rests`), that stands in it, too, for every action. The
reward is 0 until the end, then quality minus alpha times relative cost. The tree answers, not a
model; where a tree is filled on demand, what a step visits first is recorded first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from hierrouter.learning.actions import ACCEPT, ANALYZE, SOLVE, action_count
from hierrouter.learning.rests import Left, Rests
from hierrouter.learning.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from hierrouter.learning.contexts import Contexts
    from hierrouter.learning.heads import Heads
    from hierrouter.routes.outcomes import Moves

EXTRA = 3
"""Columns of an observation beside the state: cost, lambda, stage."""


@dataclass(frozen=True)
class Game:
    """What episodes are played on: contexts, moves, and how alpha and limits are drawn."""

    contexts: Contexts
    moves: Moves
    lambda_low: float
    lambda_high: float
    limited: float = 0.0
    """Share of the episodes with some of the models alone and fewer hops, both drawn at random."""
    heads: Heads | None = None
    """What tells how these limits change the value of a call; none: nothing does."""

    @property
    def stages(self) -> Stages:
        """All stages of its routes."""
        return Stages(self.contexts.models, self.contexts.hops, self.moves)

    def observation_space(self) -> gym.spaces.Box:
        """K + 3 numbers, or K + A + 3, between the bounds that the contexts give."""
        least, greatest, most = self.contexts.bounds()
        open_ends = [np.inf] * self.told
        low = np.array([*least, *(-end for end in open_ends), 0, self.lambda_low, 0], np.float32)
        most = np.nextafter(np.float32(most), np.float32(np.inf))
        high = np.array([*greatest, *open_ends, most, 1, len(self.stages)], np.float32)
        high[low == high] += 1  # gymnasium wants room in every dimension, dead ones too
        return gym.spaces.Box(low, high, dtype=np.float32)

    @property
    def told(self) -> int:
        """How many numbers tell what limits change: A, or 0 where nothing does."""
        if not self.limited or self.heads is None or not len(self.heads.rest_quality):
            return 0
        return action_count(self.contexts.models)

    def action_space(self) -> gym.spaces.Discrete:
        """The 2 M + 1 actions."""
        return gym.spaces.Discrete(action_count(self.contexts.models))


class TreeVecEnv(VecEnv):
    """B episodes side by side, each step a few array look-ups.

    Queries come in shuffled passes over all of them, so that every query is met equally often.
    """

    render_mode = None

    def __init__(self, game: Game, episodes: int, seed: int) -> None:
        """Makes B = `episodes` slots; `seed` drives queries and alphas."""
        super().__init__(episodes, game.observation_space(), game.action_space())
        self._contexts = contexts = game.contexts
        self._allowed = game.stages.allowed
        self._told, self._heads, self._rests = game.told, game.heads, Rests(game.stages)
        self._full_range = self._lambda_range = (game.lambda_low, game.lambda_high)
        self._random = np.random.default_rng(seed)
        self._order = np.zeros(0, dtype=np.int64)
        self._row = np.zeros(episodes, dtype=np.int64)
        self._lambda = np.zeros(episodes)
        self._actions = np.zeros(episodes, dtype=np.int64)
        self._limited = game.limited
        self._fixed_hops = game.moves == "paper"
        self._asked = np.ones((episodes, action_count(contexts.models)), dtype=np.bool_)
        self._hops = np.full(episodes, contexts.hops)

    def widen(self, share: float) -> None:
        """Lets lambda be drawn from this share of its range, from the low end."""
        low, high = self._full_range
        self._lambda_range = (low, low + share * (high - low))

    def _draw(self, slots: NDArray[np.int64]) -> None:
        while len(self._order) < len(slots):
            fresh = self._random.permutation(self._contexts.roots)
            self._order = np.concatenate([self._order, fresh])
        self._row[slots], self._order = np.split(self._order, [len(slots)])
        self._lambda[slots] = self._random.uniform(*self._lambda_range, size=len(slots))
        if self._limited:
            self._limit(slots)

    def _limit(self, slots: NDArray[np.int64]) -> None:
        """Draws which models may be asked in new episodes, and how often one may."""
        contexts, count = self._contexts, len(slots)
        limited = self._random.random(count) < self._limited
        asked = self._random.random((count, contexts.models)) < self._random.random((count, 1))
        limited &= asked.any(axis=1)  # where nobody was drawn, all may be asked
        hops = self._random.integers(1, contexts.hops + 1, size=count)
        self._asked[slots] = True
        self._asked[slots, :-1] = np.repeat(asked | ~limited[:, None], 2, axis=1)
        whole = ~limited | self._fixed_hops
        self._hops[slots] = np.where(whole, contexts.hops, hops)

    def _observe(self) -> NDArray[np.float32]:
        contexts, row = self._contexts, self._row
        width = contexts.state.shape[1]
        observation = np.empty((self.num_envs, width + self._told + EXTRA), dtype=np.float32)
        observation[:, :width] = contexts.state[row]
        if self._told and self._heads is not None:
            models = self._asked[:, None, :ACCEPT:2]
            observation[:, width:-EXTRA] = self._rests.changes(
                self._heads,
                contexts.state[row],
                contexts.stage[row],
                self._lambda / (1 - self._lambda),
                Left(models, self._hops),
            )
        observation[:, -3] = contexts.spent[row]
        observation[:, -2] = self._lambda
        observation[:, -1] = contexts.stage[row]
        return observation

    def reset(self) -> NDArray[np.float32]:
        """Starts B new episodes; returns their observations, B x (K + 3) or B x (K + A + 3)."""
        self._draw(np.arange(self.num_envs))
        return self._observe()

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Takes B actions."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Plays them. A finished episode's slot starts a new one at once.

        Raises:
            ValueError: an action that the hop does not allow.
            HierRouterError: contexts that are filled on demand could not be (`Filler.gains`).
        """
        contexts, row, actions = self._contexts, self._row, self._actions
        if not self.action_masks()[np.arange(self.num_envs), actions].all():
            raise ValueError("an action was taken that the mask forbids")
        model, solve = actions // 2, actions % 2 == SOLVE
        alpha = self._lambda / (1 - self._lambda)
        if contexts.after is None:
            contexts.reach(row, model, solve)
            spent = contexts.spent[row] + contexts.price[row, model]
            reward = np.where(solve, contexts.quality[row, model] - alpha * spent, 0.0)
            self._row, ends = np.where(solve, row, contexts.child[row, model]), solve
        else:
            ends = model == contexts.models  # it is accepted
            asked = np.where(ends, contexts.returned[row], model)
            gained = contexts.quality[row, asked] - alpha * contexts.spent[row]
            reward = np.where(ends, gained, 0.0)
            onward = np.where(solve, contexts.after[row, asked], contexts.child[row, asked])
            self._row = np.where(ends, row, onward)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(ends)
        if len(ended):
            final = self._observe()
            for slot in ended:
                infos[slot] = {"terminal_observation": final[slot], "TimeLimit.truncated": False}
            self._draw(ended)
        return self._observe(), reward.astype(np.float32), ends.copy(), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions each slot may take, B x (2 M + 1)."""
        depth = self._contexts.depth[self._row]
        masks: NDArray[np.bool_] = self._allowed[self._contexts.stage[self._row]]
        known = self._contexts.masks(self._row)
        if known is not None:
            masks = masks & known
        if self._limited:
            left = masks & self._asked
            left[depth >= self._hops - 1, ANALYZE:-1:2] = False
            if self._contexts.after is not None:
                left[depth >= self._hops, SOLVE:-1:2] = False
            # Where no answer of those drawn is known, all may be asked.
            masks = np.where(left.any(axis=1, keepdims=True), left, masks)
        return masks

    # What Stable-Baselines3 asks of any vector of environments.

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Only `action_masks`: one row a slot."""
        if method_name != "action_masks":
            raise AttributeError(method_name)
        return list(self.action_masks()[self._slots(indices)])

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute, the same for every slot."""
        return [getattr(self, attr_name)] * len(self._slots(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: slots share everything."""
        raise AttributeError(f"{attr_name} cannot be set for single slots")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """No slot is wrapped."""
        return [False] * len(self._slots(indices))

    def close(self) -> None:
        """Nothing to free."""

    def _slots(self, indices: int | Iterable[int] | None) -> Sequence[int]:
        return list(self._get_indices(indices))


class RouteEnv(gym.Env[np.ndarray, np.int64]):
    """One episode at a time, for people and for gymnasium's tools; the same game."""

    render_mode = None

    def __init__(self, game: Game) -> None:
        """Makes an environment on `game`."""
        self.observation_space = game.observation_space()
        self.action_space = game.action_space()
        self._game = game
        self._slot: TreeVecEnv | None = None
        self._ended = self._drawn = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts a new query; `seed` restarts the sequence of queries and alphas."""
        super().reset(seed=seed)
        if self._slot is None or seed is not None:
            self._slot = TreeVecEnv(self._game, 1, int(self.np_random.integers(2**31)))
            self._drawn = False
        # A slot draws its next query when an episode ends; another draw would skip that query.
        observation = self._slot._observe() if self._drawn else self._slot.reset()
        self._ended = self._drawn = False
        return observation[0], {"action_mask": self.action_masks()}

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Calls a model. An action that the hop does not allow costs the reward -1 and ends it."""
        slot = self._running()
        if not self.action_masks()[int(action)]:
            self._ended = True
            return slot._observe()[0], -1.0, True, False, {"invalid_action": True}
        slot.step_async(np.array([action]))
        observations, rewards, ended, infos = slot.step_wait()
        self._ended = self._drawn = bool(ended[0])
        observation = infos[0]["terminal_observation"] if ended[0] else observations[0]
        return observation, float(rewards[0]), bool(ended[0]), False, {}

    def action_masks(self) -> NDArray[np.bool_]:
        """Which of the 2 M + 1 actions may be taken now."""
        masks: NDArray[np.bool_] = self._running().action_masks()
        mask: NDArray[np.bool_] = masks[0]
        return mask

    def _running(self) -> TreeVecEnv:
        if self._slot is None or self._ended:
            raise RuntimeError("call reset() first")
        return self._slot

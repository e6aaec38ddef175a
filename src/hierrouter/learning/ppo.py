"""PPO by stable-baselines3 (sb3-contrib's MaskablePPO), with the checkpoint chosen exactly."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule

from hierrouter.learning.environment import Game, TreeVecEnv
from hierrouter.learning.network import Network, Projection
from hierrouter.learning.router import Router, RouterInfo, mean_reward
from hierrouter.learning.trunk import SharedTrunk
from hierrouter.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hierrouter.config import TrainingConfig
    from hierrouter.routes.outcomes import Outcomes

CURVES = {
    "train/policy_gradient_loss": "policy_loss",
    "train/value_loss": "value_loss",
    "train/entropy_loss": "entropy_loss",
    "train/approx_kl": "approx_kl",
    "train/clip_fraction": "clip_fraction",
    "train/explained_variance": "explained_variance",
}
"""SB3's names of what it logs of an update, and ours."""


def learn(
    config: TrainingConfig,
    game: Game,
    projection: Projection,
    info: RouterInfo,
    validation: Outcomes,
) -> tuple[Router, list[dict[str, Any]]]:
    """Runs PPO (section 3.3) and returns the router of the kept checkpoint.

    Args:
        config: the recipe.
        game: what episodes are played on.
        projection: from embeddings to the policy's input.
        info: the router's description, but for its validation result.
        validation: queries kept back to choose the checkpoint.

    Returns:
        The router and the learning curve, one entry an iteration.
    """
    outcomes = game.outcomes
    steps = outcomes.hops if config.steps is None else config.steps
    transitions = steps * config.rollouts
    with _one_thread():
        environment = TreeVecEnv(game, config.rollouts, config.seed)
        model = MaskablePPO(
            "MlpPolicy",
            environment,
            n_steps=steps,
            batch_size=max(transitions // config.minibatches, 2),
            n_epochs=config.epochs,
            learning_rate=(
                LinearSchedule(config.learning_rate, 0.0, 1.0)
                if config.learning_rate_decay
                else config.learning_rate
            ),
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            vf_coef=config.value_coefficient,
            ent_coef=config.entropy_coefficient,
            max_grad_norm=config.max_grad_norm,
            normalize_advantage=config.normalize_advantage,
            seed=config.seed,
            device="cpu",
            policy_kwargs={
                "net_arch": [],
                "features_extractor_class": SharedTrunk,
                "features_extractor_kwargs": {
                    "hops": outcomes.hops,
                    "stage_dimensions": config.stage_dimensions,
                    "hidden": config.hidden,
                    "activation": config.activation,
                },
                "optimizer_kwargs": {"eps": config.adam_eps},
            },
        )
        model.set_logger(Logger(folder=None, output_formats=[]))
        with Progress("training", config.iterations, "iterations") as progress:
            keeper = _Keeper(config, environment, info, projection, validation, progress)
            model.learn(
                config.iterations * transitions, callback=keeper, log_interval=config.iterations + 1
            )
    return keeper.kept, keeper.curve


class _Keeper(BaseCallback):
    """After each update notes the curve; every few, evaluates and keeps the best checkpoint."""

    def __init__(
        self,
        config: TrainingConfig,
        environment: TreeVecEnv,
        info: RouterInfo,
        projection: Projection,
        validation: Outcomes,
        progress: Progress,
    ) -> None:
        super().__init__()
        self._config, self._env, self._info = config, environment, info
        self._projection, self._validation, self._progress = projection, validation, progress
        self._alphas = (
            tuple(config.validation_alphas) if config.alpha == "sampled" else (config.alpha,)
        )
        self._iteration = 0
        self._best = -np.inf
        self.curve: list[dict[str, Any]] = []
        self.kept: Router

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._iteration:
            self._after_update()
        warmup = self._config.alpha_warmup * self._config.iterations
        if warmup:
            self._env.widen(min(self._iteration / warmup, 1.0))

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        episodes = max(float(buffer.episode_starts.sum()), 1.0)
        self._iteration += 1
        self._rollout = {"rollout_reward": float(buffer.rewards.sum()) / episodes}

    def _on_training_end(self) -> None:
        self._after_update()

    def _after_update(self) -> None:
        logged = self.logger.name_to_value
        metrics = self._rollout | {
            ours: float(logged[theirs]) for theirs, ours in CURVES.items() if theirs in logged
        }
        last = self._iteration == self._config.iterations
        if last or self._iteration % self._config.evaluate_every == 0:
            metrics["validation_reward"] = self._consider(last)
        self.curve.append(
            {
                "iteration": self._iteration,
                "transitions": int(self.num_timesteps),
                "metrics": {name: value for name, value in metrics.items() if np.isfinite(value)},
            }
        )
        self._progress.advance(1, f"best on validation {self._best:.3f}")

    def _consider(self, last: bool) -> float:
        router = Router(self._info, self._projection, Network.from_policy(self.model.policy))
        rewards = mean_reward(router, self._validation, self._alphas, self._config.moves)
        reward = float(rewards.mean())
        if (self._config.keep == "best" and reward > self._best) or (
            self._config.keep == "last" and last
        ):
            self._best = reward
            found = {
                "reward": reward,
                "iteration": float(self._iteration),
                "queries": float(len(self._validation)),
            }
            router.info = self._info.model_copy(update={"validation": found})
            self.kept = router
        return reward


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    # Networks this small run many times slower on several threads than on one.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

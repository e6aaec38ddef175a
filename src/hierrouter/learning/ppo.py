"""PPO by stable-baselines3 (sb3-contrib's MaskablePPO), with the checkpoint chosen exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.learning.ascent import DecomposedPolicy
from hierrouter.learning.environment import Game, TreeVecEnv
from hierrouter.learning.greedy import rewards_of
from hierrouter.learning.heads import Heads
from hierrouter.learning.mlp import Mlp
from hierrouter.learning.proof import surely_better
from hierrouter.learning.router import Router, RouterInfo
from hierrouter.learning.threads import threads
from hierrouter.learning.trunk import SharedTrunk
from hierrouter.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hierrouter.config import TrainingConfig
    from hierrouter.learning.contexts import Contexts
    from hierrouter.learning.projection import Projection

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
    start: Heads | Projection,
    info: RouterInfo,
    validation: Contexts,
    label: str = "training",
) -> tuple[Router, list[dict[str, Any]]]:
    """Runs PPO (section 3.3) and returns the router of the kept checkpoint.

    With heads to start from they are the first checkpoint, and a later one must be better than
    they are by more than chance lets two checkpoints differ.

    Args:
        config: the recipe.
        game: what episodes are played on.
        start: the heads of a decomposed policy; or the projection that an MLP sees contexts by.
        info: the router's description, but for its validation result.
        validation: contexts of the queries kept back to choose the checkpoint.
        label: what progress is called.

    Returns:
        The router and the learning curve, one entry an iteration.

    Raises:
        ConfigError: an iteration cannot be split into that many mini-batches.
        HierRouterError: the policy diverged, or filling on demand stopped.
    """
    hops = game.contexts.hops
    steps = hops if config.steps is None else config.steps
    transitions = steps * config.rollouts
    batch = _batch_size(config.minibatches, transitions)
    with threads(1):
        environment = TreeVecEnv(game, config.rollouts, config.seed)
        environment.widen(_share_of_range(config, 0))  # SB3 resets before any callback
        model = MaskablePPO(
            DecomposedPolicy if isinstance(start, Heads) else "MlpPolicy",
            environment,
            n_steps=steps,
            batch_size=batch,
            n_epochs=config.epochs,
            learning_rate=_learning_rate(config),
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            vf_coef=config.value_coefficient,
            ent_coef=config.entropy_coefficient,
            max_grad_norm=config.max_grad_norm,
            normalize_advantage=config.normalize_advantage,
            seed=config.seed,
            device="cpu",
            policy_kwargs=_policy_arguments(config, start, game),
        )
        model.set_logger(Logger(folder=None, output_formats=[]))
        with Progress(label, config.iterations, "iterations") as progress:
            keeper = _Keeper(config, environment, info, start, validation, progress)
            total, never = config.iterations * transitions, config.iterations + 1
            try:
                model.learn(total, callback=keeper, log_interval=never)
            except ValueError as error:
                # torch's distributions refuse logits that are not numbers with a page of them.
                if _is_finite(model):
                    raise
                raise HierRouterError(
                    f"the policy diverged in iteration {len(keeper.curve) + 1}; "
                    f"lower training.learning_rate ({config.learning_rate:g})"
                ) from error
    return keeper.kept, keeper.curve


def _policy_arguments(
    config: TrainingConfig, start: Heads | Projection, game: Game
) -> dict[str, Any]:
    optimizer = {"eps": config.adam_eps}
    if isinstance(start, Heads):
        heads = {
            "quality": start.quality,
            "cost": start.cost,
            "tau": float(start.tau),
            "hidden": config.hidden,
        }
        return {
            "heads": heads,
            "net_arch": [],
            "ortho_init": False,
            "optimizer_kwargs": optimizer,
        }
    return {
        "net_arch": [],
        "features_extractor_class": SharedTrunk,
        "features_extractor_kwargs": {
            "models": game.contexts.models,
            "hops": game.contexts.hops,
            "stage_dimensions": config.stage_dimensions,
            "hidden": config.hidden,
            "activation": config.activation,
        },
        "optimizer_kwargs": optimizer,
    }


def _policy_of(learned: Any, config: TrainingConfig, start: Heads | Projection) -> Heads | Mlp:
    """The policy as SB3 has it now, without torch."""
    if not isinstance(start, Heads):
        return Mlp.from_policy(learned, start, config.activation)
    heads = learned.mlp_extractor
    quality, cost = (each.detach().cpu().numpy().copy() for each in (heads.quality, heads.cost))
    return replace(start, quality=quality, cost=cost)


def _learning_rate(config: TrainingConfig) -> float | Callable[[float], float]:
    """The step size, or how it falls: from the whole in the first update by equal steps.

    SB3 asks with the share of transitions that remains after an update's own, so that a line to 0
    would leave the last update without effect.
    """
    if not config.learning_rate_decay:
        return config.learning_rate
    return lambda remaining: config.learning_rate * (remaining + 1 / config.iterations)


def _share_of_range(config: TrainingConfig, iteration: int) -> float:
    """How much of lambda's range is drawn from after `iteration` iterations."""
    warmup = config.alpha_warmup * config.iterations
    return min(iteration / warmup, 1.0) if warmup else 1.0


class _Keeper(BaseCallback):
    """After each update notes the curve; every few, evaluates and keeps the best checkpoint."""

    def __init__(
        self,
        config: TrainingConfig,
        environment: TreeVecEnv,
        info: RouterInfo,
        start: Heads | Projection,
        validation: Contexts,
        progress: Progress,
    ) -> None:
        super().__init__()
        self._config, self._env, self._info = config, environment, info
        self._start, self._validation, self._progress = start, validation, progress
        self._alphas = (
            tuple(config.validation_alphas) if config.alpha == "sampled" else (config.alpha,)
        )
        self._iteration = 0
        self._best = -np.inf
        self._first: NDArray[np.float64] | None = None
        self.curve: list[dict[str, Any]] = []
        self.kept: Router

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._iteration:
            self._after_update()
        elif isinstance(self._start, Heads) and self._config.keep == "best":
            self._consider(last=False)
        self._env.widen(_share_of_range(self._config, self._iteration))

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
        due = last or self._iteration % self._config.evaluate_every == 0
        if due and (reward := self._consider(last)) is not None:
            metrics["validation_reward"] = reward
        self.curve.append(
            {
                "iteration": self._iteration,
                "transitions": int(self.num_timesteps),
                "metrics": {name: value for name, value in metrics.items() if np.isfinite(value)},
            }
        )
        known = np.isfinite(self._best)
        self._progress.advance(1, f"best on validation {self._best:.3f}" if known else "")

    def _consider(self, last: bool) -> float | None:
        """Keeps the policy if it is the one to keep; its reward on the validation queries."""
        router = Router(self._info, _policy_of(self.model.policy, self._config, self._start))
        queries = len(self._validation.roots)
        found = {"iteration": float(self._iteration), "queries": float(queries)}
        reward = None
        better = True
        if queries:
            each = rewards_of(router, self._validation, self._alphas).mean(axis=0)
            reward = found["reward"] = float(each.mean())
            better = self._beats_start(each)
        # Among equals the later one: it has met more of the range of alpha.
        best = self._config.keep == "best" and reward is not None and reward >= self._best
        if (best and better) or (self._config.keep == "last" and last):
            self._best = -np.inf if reward is None else reward
            router.info = self._info.model_copy(update={"validation": found})
            self.kept = router
        return reward

    def _beats_start(self, rewards: NDArray[np.float64]) -> bool:
        """Whether these rewards are surely above those of a learned start."""
        if self._config.start != "regression":
            return True
        if self._first is None:
            self._first = rewards
            return True
        return surely_better(rewards, self._first)


def _batch_size(minibatches: int, transitions: int) -> int:
    """Transitions in a mini-batch; an uneven rest would make its advantages' deviation 0 or NaN."""
    size, rest = divmod(transitions, minibatches)
    if rest or size < 2:
        raise ConfigError(
            f"training.minibatches: {minibatches} does not split the {transitions} transitions of "
            "an iteration (rollouts x steps) into equal parts of at least 2; choose a divisor"
        )
    return size


def _is_finite(model: MaskablePPO) -> bool:
    return all(bool(torch.isfinite(each).all()) for each in model.policy.parameters())

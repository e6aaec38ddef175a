"""Training with one seed or several, and choosing among them, as a pipeline's stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierrouter.config import EvaluationConfig, TrainingConfig
from hierrouter.configfile import load_part
from hierrouter.errors import HierRouterError
from hierrouter.evaluation.forewarn import forewarn
from hierrouter.learning.router import Router
from hierrouter.learning.train import is_trained, train_router
from hierrouter.progress import say
from hierrouter.stages.settings import parse_seeds, refuse_filling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hierrouter.routes.outcomes import Outcomes


@dataclass(frozen=True)
class Trained:
    """A router that one seed gave.

    Attributes:
        folder: where it lies.
        seed: the training seed.
        reward: on its validation queries, averaged over the alpha grid; none without validation.
    """

    folder: Path
    seed: int
    reward: float | None


def train_seeds(training: str, seeds: str, tree: Path, out: Path) -> dict[str, Any]:
    """Trains one router a seed.

    Args:
        training: the training part of a config, as YAML or JSON; its seed is replaced.
        seeds: whole numbers, separated by commas.
        tree: the route tree.
        out: gets a folder `seed-N` a seed. What is finished there and still fits is kept.

    Returns:
        What to show: the validation reward of each seed.

    Raises:
        ConfigError: `training` or `seeds` is wrong, or the tree has too few training queries.
    """
    config = load_part(TrainingConfig, training, "training")
    refuse_filling(config)
    numbers = parse_seeds(seeds)
    # The evaluation's part of the config is not a part of this stage's cache key: its defaults.
    look: Callable[[Outcomes], None] | None = forewarn(config, EvaluationConfig())
    for position, seed in enumerate(numbers, start=1):
        say(f"seed {seed}, {position} of {len(numbers)}")
        mine, folder = config.model_copy(update={"seed": seed}), out / f"seed-{seed}"
        if is_trained(mine, tree, folder):
            say(f"router: the one in {folder} is kept")
        else:
            train_router(mine, tree, folder, look=look)
            look = None  # the same queries with every seed
    return {
        f"seed {each.seed} validation reward": each.reward
        for each in routers_in([out])
        if each.reward is not None
    }


def routers_in(folders: Iterable[Path]) -> list[Trained]:
    """What `train_seeds` left in these folders, by seed.

    Raises:
        HierRouterError: there is none, or one cannot be read.
    """
    found = []
    for folder in folders:
        for each in folder.glob("seed-*"):
            info = Router.load(each).info
            reward = info.validation.get("reward")
            found.append(Trained(each, info.training_seed, None if reward is None else reward))
    if not found:
        raise HierRouterError(f"no router in {', '.join(map(str, folders))}; was training run?")
    return sorted(found, key=lambda each: each.seed)


def best_of(trained: Sequence[Trained]) -> Trained:
    """The router best on validation; without validation the one of the first seed."""
    return max(trained, key=lambda each: (each.reward or 0.0, -each.seed))

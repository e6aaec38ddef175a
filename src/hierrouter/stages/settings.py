"""What stages check of their settings; a pipeline is compiled with it, so it imports little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from hierrouter.config import TrainingConfig


def refuse_filling(training: TrainingConfig) -> None:
    """Makes sure that training needs no more than what was recorded.

    Raises:
        ConfigError: it would record while it trains, into a tree that no other task sees.
    """
    if training.fill:
        raise ConfigError(
            "training.fill: a pipeline's tasks share no tree that training could fill; record all "
            "that the moves need (training.fill: false), or train with `hierrouter run`"
        )


def parse_seeds(text: str) -> list[int]:
    """Reads "42, 43".

    Raises:
        ConfigError: it is no such list, or a seed stands twice.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(
            f"seeds {text!r}: give whole numbers, each once, separated by commas: 42,43"
        )
    return seeds

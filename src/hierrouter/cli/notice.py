"""What a run is about to do, said before it starts: downloads, disk, time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter import hub
from hierrouter.data.sources import download_bytes
from hierrouter.progress import duration, say
from hierrouter.routes.encoder import HASHING
from hierrouter.routes.estimate import recording_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import Config

ITERATION_SECONDS = 0.1
"""One PPO iteration of about a thousand transitions on one core."""


def announce(config: Config, out: Path) -> None:
    """Says what will be downloaded and roughly how long each stage takes.

    Raises:
        HierRouterError: a model or data set is to be had nowhere.
    """
    downloads = {}
    if not (out / "queries" / "queries.parquet").exists():
        downloads["benchmarks"] = download_bytes(config.data)
    models = needed_models(config)
    for model, revision in sorted(models):
        downloads[model] = hub.describe(model, revision).download_bytes
    wanted = {name: size for name, size in downloads.items() if size}
    if wanted:
        listed = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in wanted.items())
        say(f"to download, once: {sum(wanted.values()) / 1e6:.0f} MB ({listed})")
    tasks = dict.fromkeys(config.data.tasks, config.data.queries_per_task)
    device = _device() if models else "cpu"
    recording = recording_seconds(config.pool, tasks, device)
    training = config.training.iterations * ITERATION_SECONDS
    say(
        f"{sum(tasks.values())} queries, {len(config.pool.models)} models, L = {config.pool.hops}; "
        f"about {duration(recording + 5)} to record on the {device}, {duration(training)} to "
        "train, seconds to evaluate and register; what is already there is not done again"
    )


def needed_models(config: Config) -> set[tuple[str, str]]:
    """The models and the encoder that an experiment loads, as (model, revision)."""
    models = {
        (spec.model, spec.revision)
        for spec in (*config.pool.models, *config.pool.references)
        if spec.backend != "scripted"
    }
    if config.pool.encoder.model != HASHING:
        models.add((config.pool.encoder.model, config.pool.encoder.revision))
    return models


def _device() -> str:
    from hierrouter.pool.devices import choose_device

    return choose_device()

"""What a run is about to do, said before it starts: downloads, disk, time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter import hub
from hierrouter.config import DataConfig, PoolConfig
from hierrouter.data.sources import download_bytes
from hierrouter.pool.weights import mirrored
from hierrouter.progress import duration, say
from hierrouter.routes.calls import Part
from hierrouter.routes.encoder import HASHING, IMPORTED
from hierrouter.routes.nodes import recorded_nodes
from hierrouter.routes.plan import plan_recording, stand_ins
from hierrouter.routes.tree import read_info

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hierrouter.config import Config

UPDATE_SECONDS = 1.6e-5
"""One transition in one epoch of PPO, on one core."""
CONVERT_SECONDS = 50.0
"""Converting a quantised file once."""


def announce(config: Config, out: Path) -> None:
    """Says what will be downloaded and roughly how long each stage takes.

    Raises:
        HierRouterError: a model or data set is to be had nowhere.
    """
    sampled = (out / "queries" / "queries.parquet").exists()
    models = needed_models(config.pool)
    known = _mirrored(read_info(out / "tree")) if (out / "tree" / "tree.json").exists() else {}
    conversions = _say_downloads(models, 0 if sampled else download_bytes(config.data), known)
    device = _device() if models else "cpu"
    training = config.training
    steps = training.steps or config.pool.hops
    transitions = training.iterations * training.rollouts * steps
    preparing = f", after {duration(conversions * CONVERT_SECONDS)} to prepare models"
    say(
        f"{len(config.data.tasks)} tasks of at most {config.data.queries_per_task} queries, "
        f"{len(config.pool.models)} models, L = {config.pool.hops}, on the {device}; roughly:"
    )
    say(f"  sample    {'nothing to do' if sampled else duration(10)}")
    say(f"  record    {duration(_recording(config, out))}{preparing if conversions else ''}")
    filled = f", and at most {transitions:,} calls of models" if training.fill else ""
    say(f"  train     {duration(5 + transitions * training.epochs * UPDATE_SECONDS)}{filled}")
    say("  evaluate  5 s")
    say("  register  15 s")
    say("what is there already is not done again")


def announce_live(tree: Path) -> None:
    """Says what will be downloaded before the pool of a recorded tree can answer.

    Raises:
        HierRouterError: a model or data set is to be had nowhere.
    """
    info = read_info(tree)
    sampled = info["data"].get("config")
    recorded = info["data"].get("tasks", {})
    benchmarks = download_bytes(DataConfig.model_validate(sampled), recorded) if sampled else 0
    models = needed_models(PoolConfig.model_validate(info["pool"]))
    if conversions := _say_downloads(models, benchmarks, _mirrored(info)):
        say(f"and {duration(conversions * CONVERT_SECONDS)} to prepare models, once")


def _mirrored(info: dict[str, Any]) -> dict[str, str]:
    """The digests of mirrors' copies that a tree goes on with, by the hub's name."""
    pool, encoder = info["pool"], info["encoder"]
    made = info["made"]["models"]
    digests = {
        spec["model"]: mirrored(spec["model"], made.get(spec["name"], {}).get("weights"))
        for spec in (*pool["models"], *pool["references"])
    }
    digests[encoder["model"]] = encoder.get("digest")
    return {model: digest for model, digest in digests.items() if digest is not None}


def _say_downloads(models: set[tuple[str, str]], benchmarks: int, known: Mapping[str, str]) -> int:
    """Says what is to be downloaded; how many models will have to be converted then.

    Args:
        models: name and revision of each.
        benchmarks: bytes of the benchmarks.
        known: digests that are remembered of models.
    """
    downloads, remarks, conversions = {"the benchmarks": benchmarks}, {}, 0
    for model, revision in sorted(models):
        source = hub.describe(model, revision, known.get(model))
        downloads[model] = source.download_bytes
        remarks[model] = source.remark
        conversions += bool(source.download_bytes and source.source == "mirror")
    wanted = {name: size for name, size in downloads.items() if size}
    if wanted:
        say(f"to download, once: {sum(wanted.values()) / 1e6:.0f} MB")
        for name, size in wanted.items():
            remark = f" ({remarks[name]})" if remarks.get(name) else ""
            say(f"  {name}: {size / 1e6:.0f} MB{remark}")
    return conversions


def _recording(config: Config, out: Path) -> float:
    """Seconds that recording what is missing will take."""
    part = Part(direct=config.training.fill)
    plan = plan_recording(config.pool, stand_ins(config.data), part)
    return 5 + plan.seconds_on(1) * max(
        0.0, 1 - recorded_nodes(out / "tree") / max(plan.left.nodes, 1)
    )


def needed_models(pool: PoolConfig) -> set[tuple[str, str]]:
    """The models and the encoder that a pool loads, as (model, revision)."""
    models = {
        (spec.model, spec.revision)
        for spec in (*pool.models, *pool.references)
        if spec.backend not in ("scripted", "openai", "imported")
    }
    if pool.encoder.model not in (HASHING, IMPORTED):
        models.add((pool.encoder.model, pool.encoder.revision))
    return models


def _device() -> str:
    from hierrouter.pool.devices import choose_device

    return choose_device()

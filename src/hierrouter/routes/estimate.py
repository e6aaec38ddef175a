"""Roughly how long recording takes, from token limits and model sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.pool.prompts import limit_for
from hierrouter.routes.nodes import full_tree

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.pool.prompts import Role

USED = 0.6
"""Share of a reply's token limit that is used in the mean; the rest ends earlier."""
PROMPT = 160
"""Tokens of an ordinary question with its instruction."""
SPEED = {"cpu": (12.0, 60.0), "cuda": (4000.0, 60000.0)}
"""(written, read) tokens a second in batches, for a model of one billion parameters: two cores
without bfloat16 instructions, and one data-centre GPU. Divide by the model's size."""


def recording_seconds(pool: PoolConfig, tasks: dict[str, int], device: str) -> float:
    """An estimate of the time that recording the full tree takes.

    Args:
        pool: the pool part of a config.
        tasks: number of queries of each task.
        device: "cpu" or "cuda".

    Returns:
        Seconds, within a factor of two or so; scripted models take none.
    """
    specs = {spec.name: spec for spec in pool.models}
    calls = [
        (models, role)
        for depth in range(1, pool.hops + 1)
        for models, role in full_tree(list(specs), pool.hops, depth)
    ]
    calls += [((spec.name,), "solve") for spec in pool.references]
    specs |= {spec.name: spec for spec in pool.references}
    # Members with the same weights share their analyses, and what follows on them.
    distinct = {
        (
            tuple(specs[name].model for name in models),
            specs[models[-1]].instruction if role == "solve" else "",
            role,
        ): (specs[models[-1]], role, len(models))
        for models, role in calls
    }
    return sum(
        queries * call_seconds(spec, role, depth, task, device)
        for spec, role, depth in distinct.values()
        for task, queries in tasks.items()
    )


def call_seconds(spec: ModelSpec, role: Role, depth: int, task: str, device: str) -> float:
    """An estimate of the time of one call within a batch, in seconds.

    Args:
        spec: the model.
        role: what it is asked for.
        depth: number of calls up to and including this one; earlier replies stand in the prompt.
        task: the query's task.
        device: "cpu" or "cuda".
    """
    if spec.backend == "scripted":
        return 0.0
    write, read = SPEED[device]
    size = spec.billion_parameters or 1000 * spec.rate
    written = USED * limit_for(spec, role, task)
    prompt = PROMPT + (depth - 1) * USED * spec.limits.analyze
    return size * (written / write + prompt / read)

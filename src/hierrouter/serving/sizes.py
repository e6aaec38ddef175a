"""What the pods that serve a router and its pool ask for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hierrouter.pool.loaded import needed_bytes

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec, PoolConfig

ROUTER_CPU, ALL_CPU, MODEL_CPU, ACCELERATED_CPU = ("1", "4"), ("4", "8"), ("4", "8"), ("2", "4")
"""Processors, asked for and at most: of a router before endpoints, of one with all models in it, of
a model on processors, and of one on an accelerator."""
ROUTER_GIB, MODEL_GIB = 4.0, 4.0
"""Memory in GiB: of a router with its encoder, and of a model's server beside the model."""
GIB = 2**30

Resources = dict[str, dict[str, str]]
"""Requests and limits."""


def router_resources() -> Resources:
    """Of a router whose models are elsewhere."""
    return _resources(ROUTER_CPU, ROUTER_GIB)


def model_resources(spec: ModelSpec, accelerator: str, count: int) -> Resources:
    """Of a pool model's server.

    Args:
        spec: the model.
        accelerator: as Kubernetes calls it.
        count: how many of them; 0: it runs on processors.
    """
    dtype = "float32" if spec.dtype == "float32" else "bfloat16"
    return _resources(
        ACCELERATED_CPU if count else MODEL_CPU,
        MODEL_GIB + needed_bytes(dtype, spec) / GIB,
        {accelerator: str(count)} if count else None,
    )


def all_in_one_resources(pool: PoolConfig) -> Resources:
    """Of a router with all models: they are held at once, after each was converted by itself."""
    held, converted = {}, [0.0]
    for spec in pool.models:
        if spec.backend in ("scripted", "openai"):
            continue
        openvino = spec.backend != "transformers" and spec.dtype in ("auto", "int8")
        dtype = "int8" if openvino else spec.dtype
        if dtype == "auto":
            dtype = "bfloat16"
        held[spec.model, spec.revision, dtype] = needed_bytes(dtype, spec)
        if openvino:
            converted.append(needed_bytes("float32", spec))
    return _resources(ALL_CPU, ROUTER_GIB + max(sum(held.values()), *converted) / GIB)


def _resources(
    cpu: tuple[str, str], memory_gib: float, accelerators: dict[str, str] | None = None
) -> Resources:
    """Requests and limits of a container.

    All four of processors and memory are stated, on the InferenceService: what is missing there
    KServe fills with one processor and 2 GiB, also where the runtime says otherwise.
    """
    memory = f"{math.ceil(memory_gib)}Gi"
    least, most = cpu
    asked = accelerators or {}
    return {
        "requests": {"cpu": least, "memory": memory, **asked},
        "limits": {"cpu": most, "memory": memory, **asked},
    }

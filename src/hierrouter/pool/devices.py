"""What suits the machine: which device, which number format, how large a batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

Dtype = Literal["float32", "bfloat16", "float16"]


def choose_device() -> str:
    """The accelerator if there is one, else the processor."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(
    requested: Literal["auto"] | Dtype, device: str, cpuinfo: Path = Path("/proc/cpuinfo")
) -> Dtype:
    """The number format that the device multiplies fastest without losing the model's answers.

    On a processor bfloat16 pays only with instructions for it (Intel's AMX, AVX512-BF16, Arm's
    BF16); elsewhere it is emulated, two to three times slower than float32.

    Args:
        requested: a format to take as it is, or `auto`.
        device: "cpu" or "cuda".
        cpuinfo: where Linux lists the processor's abilities.
    """
    if requested != "auto":
        return requested
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
    try:
        flags = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16", "bf16"} else "float32"


def plan_batches(
    lengths: Sequence[int], limits: Sequence[int], batch_tokens: int
) -> list[list[int]]:
    """Groups prompts so that little is padded and no batch grows too large.

    Prompts are sorted by limit, then length, longest first: the batch that needs most memory runs
    first, and rows that may end at the same time stand together.

    Args:
        lengths: tokens of each prompt.
        limits: most new tokens of each prompt.
        batch_tokens: bound on rows x (longest prompt + longest limit); a batch has at least one
            row, whatever it takes.

    Returns:
        Indices into `lengths`, batch by batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-limits[i], -lengths[i], i))
    batches: list[list[int]] = []
    longest = limit = 0
    for index in order:
        if batches:
            wider = max(longest, lengths[index])
            if (len(batches[-1]) + 1) * (wider + limit) <= batch_tokens:
                batches[-1].append(index)
                longest = wider
                continue
        batches.append([index])
        longest, limit = lengths[index], limits[index]
    return batches

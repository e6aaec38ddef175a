"""How exactly this processor computes: whether replies repeat to the letter in other batches."""

from __future__ import annotations

import openvino


def sums_in_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 here: then who else is batched decides near-ties."""
    precision = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return bool(precision == openvino.Type.bf16)

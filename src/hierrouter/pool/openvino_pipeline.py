"""OpenVINO GenAI's continuous batching, set up as every use of it here needs it.

Imports little: the process that runs a live model has to start fast and to stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

AT_ONCE = 64
"""Most replies that are decoded side by side."""
STEP_TOKENS = 512
"""Most tokens, read and written, that one step computes."""


def open_pipeline(folder: Path) -> Any:
    """The pipeline over a folder of `openvino_convert.convert`.

    Raises:
        RuntimeError: the folder does not load.
        MemoryError: there is no room for it.
    """
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = AT_ONCE
    scheduler.max_num_batched_tokens = STEP_TOKENS
    scheduler.enable_prefix_caching = True
    scheduler.cache_size = 1
    return openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU")


def add_request(
    pipeline: Any, number: int, tokens: Sequence[int], limit: int, stops: Iterable[int]
) -> Any:
    """Hands a prompt over, to be answered greedily; returns OpenVINO's handle of it.

    Args:
        pipeline: of `open_pipeline`.
        number: tells it from the other requests under way.
        tokens: of the rendered prompt.
        limit: the most new tokens.
        stops: tokens that end a reply.
    """
    import numpy as np
    import openvino as ov
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = limit
    config.do_sample = False
    config.logprobs = 1
    config.apply_chat_template = False
    config.stop_token_ids = set(stops)
    return pipeline.add_request(number, ov.Tensor(np.array([tokens], dtype=np.int64)), config)

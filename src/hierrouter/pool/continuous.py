"""Decoding with transformers' own continuous batching: what an accelerator runs.

Keys and values lie in pages, so that a reply that ends makes room at once and prompts that begin
alike share pages. On a processor `rolling` is faster: there, attention over pages is computed
between the tokens of all rows and masked afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hierrouter.pool.checkpoint import hf
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from hierrouter.pool.rows import Row


def paging(model: Any) -> Any:
    """How pages are laid out on the model's device; their number follows from its free memory."""
    return hf.ContinuousBatchingConfig(
        return_logprobs=True,
        # Flash attention computes in half precision only.
        auto_switch_to_flash=model.dtype != torch.float32,
    )


def run_continuously(
    model: Any,
    stops: frozenset[int],
    waiting: list[Row],
    on_end: Callable[[Row], None],
    pages: Any,
) -> None:
    """Greedy replies in the order in which they end.

    Args:
        model: a causal language model of transformers.
        stops: tokens that end a reply.
        waiting: the rows; those that have ended are taken out. Some are left where the engine
            failed (no memory, say), which is told in a line.
        on_end: told of each row that has ended, its reply complete.
        pages: `paging(model)`.
    """
    ends = sorted(stops)
    open_rows = {str(row.position): row for row in waiting}
    manager = model.init_continuous_batching(
        generation_config=hf.GenerationConfig(do_sample=False, eos_token_id=ends),
        continuous_batching_config=pages,
    )
    failure: str | None = None
    try:
        manager.start()
        # The longest limits first: what is left at the end is short.
        for row in sorted(waiting, key=lambda row: -row.limit):
            manager.add_request(
                row.prompt,
                request_id=str(row.position),
                max_new_tokens=row.limit,
                eos_token_id=ends,
            )
        while open_rows:
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                break
            if result is None:
                continue
            row = open_rows.pop(result.request_id)
            if result.error is not None:
                failure = result.error
                continue
            waiting.remove(row)
            row.new, row.logprobs = result.generated_tokens, result.logprobs
            row.started, row.ended = result.lifespan
            on_end(row)
    finally:
        # Whatever is still in work, after a failure of ours, is dropped.
        manager.stop(block=True, hard_stop=True)
        manager.destroy()
    if waiting:
        reason = " ".join((failure or "it stopped").split())[:120]
        say(f"continuous batching failed ({reason}); going on in batches of bounded size")

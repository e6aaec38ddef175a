"""A local Hugging Face model behind transformers: greedy, and no row decoded beyond its end.

On an accelerator transformers' continuous batching runs it (`continuous`), on a processor batches
whose rows join and leave between calls of `generate` (`rolling`).

Every setting that a checkpoint brings for sampling is put aside (temperature, top-p, top-k,
repetition penalty): a reply is the plain argmax of the model's distribution, so that it depends
on the model and the prompt alone and its log-probabilities are the model's own.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError

from hierrouter.errors import HierRouterError
from hierrouter.pool.backend import Completion
from hierrouter.pool.checkpoint import UNUSABLE, Checkpoint, hf
from hierrouter.pool.continuous import paging, run_continuously
from hierrouter.pool.devices import choose_device, choose_dtype
from hierrouter.pool.rolling import RollingDecoder, can_roll
from hierrouter.pool.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hierrouter.pool.backend import OnReply
    from hierrouter.pool.devices import Dtype


class TransformersBackend:
    """Runs one checkpoint folder with transformers (see the module's text for the decisions).

    `tokens_in` counts the rendered prompt without padding. `tokens_out` counts every token that
    was decoded, the end token among them, and the log-probabilities are over the same tokens.
    `latency_s` is from first reading the prompt to the reply's end.
    """

    name = "transformers"

    def __init__(
        self,
        folder: Path,
        label: str,
        batch_tokens: int,
        dtype: Literal["auto"] | Dtype = "auto",
    ) -> None:
        """Loads nothing yet.

        Args:
            folder: config.json, safetensors and a tokenizer.
            label: what messages call the model.
            batch_tokens: bound on the tokens held at once, prompts and replies with padding; on an
                accelerator with continuous batching its free memory is the bound.
            dtype: number format of the weights.
        """
        self.device = choose_device()
        self.dtype: str = choose_dtype(dtype, self.device)
        self._checkpoint = Checkpoint(folder, label)
        self.render = self._checkpoint.render
        self.count_tokens = self._checkpoint.count_tokens
        self.require_window = self._checkpoint.require_window
        self._batch_tokens = batch_tokens
        self._model: Any = None
        self._stops: frozenset[int] = frozenset()

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: Sequence[int],
        on_reply: OnReply | None = None,
    ) -> list[Completion]:
        """Greedy completions of rendered prompts, in their order.

        Args:
            prompts: rendered prompts, any number.
            max_new_tokens: for each prompt, the most new tokens.
            on_reply: called with every reply soon after it ends.

        Raises:
            HierRouterError: the model cannot be loaded, or one prompt alone does not fit into its
                window or into the accelerator's memory.
        """
        if not prompts:
            return []
        rows = [
            Row(position, tokens, limit)
            for position, (tokens, limit) in enumerate(
                zip(self._checkpoint.encode(prompts), max_new_tokens, strict=True)
            )
        ]
        for row in rows:
            self._checkpoint.refuse_beyond_window(len(row.prompt), row.limit)
        self._load_model()
        done: dict[int, Completion] = {}

        def ended(row: Row) -> None:
            done[row.position] = self._completion(row)
            if on_reply is not None:
                on_reply(row.position, done[row.position])

        rolls = can_roll(self._model)
        waiting = list(rows)
        if self.device == "cuda" and rolls:
            run_continuously(self._model, self._stops, waiting, ended, paging(self._model))
        self._run_in_batches(waiting, ended, rolls)
        return [done[position] for position in range(len(rows))]

    def close(self) -> None:
        """Frees the weights."""
        self._model = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _run_in_batches(
        self, waiting: list[Row], ended: Callable[[Row], None], rolls: bool
    ) -> None:
        """Decodes what waits, with half the rows after each time that memory was too small."""
        padding: int = self._checkpoint.tokenizer.pad_token_id
        most_rows = len(waiting)
        while waiting:
            decoder = RollingDecoder(self._model, self._stops, padding, self._batch_tokens, rolls)
            too_many = decoder.run(waiting, most_rows, ended)
            if too_many == 0:
                return
            if too_many == 1:
                longest = max(len(row.prompt) for row in waiting)
                raise HierRouterError(
                    f"model {self._checkpoint.label}: one prompt of {longest} tokens "
                    "does not fit into the accelerator's memory; lower "
                    "pool.prompts.max_context_tokens"
                )
            most_rows = too_many // 2
            del decoder
            if self.device == "cuda":
                torch.cuda.empty_cache()

    def _completion(self, row: Row) -> Completion:
        return Completion(
            reply=self._checkpoint.decode(row.new),
            tokens_in=len(row.prompt),
            tokens_out=len(row.new),
            finish_reason="stop" if row.new[-1] in self._stops else "length",
            latency_s=row.took,
            logprob_mean=sum(row.logprobs) / len(row.logprobs),
            logprob_min=min(row.logprobs),
        )

    def _load_model(self) -> None:
        if self._model is None:
            self._stops = self._checkpoint.stop_tokens()
            self._model = load_model(self._checkpoint, self.dtype, self.device)


def load_model(checkpoint: Checkpoint, dtype: str, device: str) -> Any:
    """A checkpoint's causal language model, without the sampling settings that it brings.

    Args:
        checkpoint: the folder.
        dtype: name of torch's number format.
        device: "cpu" or "cuda".

    Raises:
        HierRouterError: the folder does not load.
    """
    try:
        model = hf.AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        raise checkpoint.unusable("model", error) from error
    model.generation_config = hf.GenerationConfig()
    return model.to(device).eval()

"""A local Hugging Face model behind transformers: greedy, left-padded, in bounded batches.

Every setting that a checkpoint brings for sampling is put aside (temperature, top-p, top-k,
repetition penalty): a reply is the plain argmax of the model's distribution, so that it depends
on the model and the prompt alone and its log-probabilities are the model's own.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError

from hierrouter.errors import HierRouterError
from hierrouter.pool.backend import Completion
from hierrouter.pool.checkpoint import UNUSABLE, Checkpoint, hf
from hierrouter.pool.devices import choose_device, choose_dtype, plan_batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierrouter.pool.backend import OnReply
    from hierrouter.pool.devices import Dtype


@dataclass(frozen=True, slots=True)
class _Row:
    """One prompt on its way through a batch."""

    position: int
    tokens: list[int]
    limit: int


class TransformersBackend:
    """Runs one checkpoint folder with transformers (see the module's text for the decisions).

    `tokens_in` counts the rendered prompt without padding. `tokens_out` counts every token that
    was decoded, the end token among them, and the log-probabilities are over the same tokens.
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
            batch_tokens: bound on a batch's tokens, prompt and reply with padding.
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
            on_reply: called after each batch with every reply of it.

        Raises:
            HierRouterError: the model cannot be loaded, or one prompt alone does not fit into its
                window or into the accelerator's memory.
        """
        if not prompts:
            return []
        rows = [
            _Row(position, tokens, limit)
            for position, (tokens, limit) in enumerate(
                zip(self._checkpoint.encode(prompts), max_new_tokens, strict=True)
            )
        ]
        for row in rows:
            self._checkpoint.refuse_beyond_window(len(row.tokens), row.limit)
        self._load_model()
        plan = plan_batches([len(r.tokens) for r in rows], max_new_tokens, self._batch_tokens)
        waiting = [[rows[index] for index in batch] for batch in plan]
        done: dict[int, Completion] = {}
        while waiting:
            batch = waiting.pop(0)
            completions = self._try_batch(batch)
            if completions is None:
                half = (len(batch) + 1) // 2
                waiting = [
                    part[i : i + half]
                    for part in [batch, *waiting]
                    for i in range(0, len(part), half)
                ]
                continue
            for row, completion in zip(batch, completions, strict=True):
                done[row.position] = completion
                if on_reply is not None:
                    on_reply(row.position, completion)
        return [done[position] for position in range(len(rows))]

    def close(self) -> None:
        """Frees the weights."""
        self._model = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _try_batch(self, batch: list[_Row]) -> list[Completion] | None:
        """The batch's completions, or nothing where it is too large for the accelerator."""
        try:
            return self._run_batch(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise HierRouterError(
                    f"model {self._checkpoint.label}: one prompt of {len(batch[0].tokens)} tokens "
                    "does not fit into the accelerator's memory; lower "
                    "pool.prompts.max_context_tokens"
                ) from None
        torch.cuda.empty_cache()
        return None

    @torch.inference_mode()
    def _run_batch(self, batch: list[_Row]) -> list[Completion]:
        started = time.perf_counter()
        width = max(len(row.tokens) for row in batch)
        padding: int = self._checkpoint.tokenizer.pad_token_id
        tokens = torch.full((len(batch), width), padding)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for index, row in enumerate(batch):
            tokens[index, width - len(row.tokens) :] = torch.tensor(row.tokens)
            mask[index, width - len(row.tokens) :] = 1
        chosen = _ChosenLogprobs()
        limits = torch.tensor([row.limit for row in batch], device=self.device)
        output = self._model.generate(
            input_ids=tokens.to(self.device),
            attention_mask=mask.to(self.device),
            generation_config=hf.GenerationConfig(
                do_sample=False,
                max_new_tokens=max(row.limit for row in batch),
                eos_token_id=sorted(self._stops),
                pad_token_id=padding,
            ),
            logits_processor=hf.LogitsProcessorList([chosen]),
            stopping_criteria=hf.StoppingCriteriaList([_OwnLimit(width, limits)]),
        )
        new = output[:, width:].tolist()
        logprobs = torch.stack(chosen.steps, dim=1).tolist()
        latency = time.perf_counter() - started
        return [
            self._completion(row, new[index], logprobs[index], latency)
            for index, row in enumerate(batch)
        ]

    def _completion(
        self, row: _Row, tokens: list[int], logprobs: list[float], latency: float
    ) -> Completion:
        tokens = tokens[: row.limit]
        end = next((i for i, token in enumerate(tokens) if token in self._stops), None)
        count = len(tokens) if end is None else end + 1
        return Completion(
            reply=self._checkpoint.decode(tokens[:count]),
            tokens_in=len(row.tokens),
            tokens_out=count,
            finish_reason="length" if end is None else "stop",
            latency_s=latency,
            logprob_mean=sum(logprobs[:count]) / count,
            logprob_min=min(logprobs[:count]),
        )

    def _load_model(self) -> None:
        if self._model is not None:
            return
        checkpoint = self._checkpoint
        self._stops = checkpoint.stop_tokens()
        try:
            model = hf.AutoModelForCausalLM.from_pretrained(
                checkpoint.folder, dtype=getattr(torch, self.dtype), use_safetensors=True
            )
        except (*UNUSABLE, RuntimeError, SafetensorError) as error:
            raise checkpoint.unusable("model", error) from error
        model.generation_config = hf.GenerationConfig()
        self._model = model.to(self.device).eval()


class _ChosenLogprobs:
    """Notes each step's log-probability of the greedy choice, one number a row.

    Keeping the scores themselves would take rows x vocabulary floats a step: 2 GB for 24 replies
    of 160 tokens.
    """

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leaves `scores` (rows x vocabulary, float32) as they are."""
        self.steps.append(scores.amax(dim=-1) - scores.logsumexp(dim=-1))
        return scores


class _OwnLimit:
    """Ends each row at its own limit; the batch goes on to the longest."""

    def __init__(self, width: int, limits: torch.Tensor) -> None:
        self._ends = limits + width

    def __call__(self, tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """True where a row is done."""
        return self._ends <= tokens.shape[1]

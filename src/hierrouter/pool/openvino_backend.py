"""A local Hugging Face model behind OpenVINO GenAI: a processor's own fast way.

Continuous batching with paged keys and values: a reply that ends makes room for the next prompt at
once, so no row is decoded beyond its end, and of prompts that begin alike the beginning is read
once. Weights are int8 (`openvino_convert`); decoding is greedy and takes no setting from the
checkpoint but its end tokens.
"""

from __future__ import annotations

import contextlib
import gc
import time
from typing import TYPE_CHECKING, Any

from hierrouter.errors import HierRouterError, RefusedError
from hierrouter.pool.backend import Completion
from hierrouter.pool.checkpoint import Checkpoint
from hierrouter.pool.openvino_pipeline import AT_ONCE, STEP_TOKENS, add_request, open_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hierrouter.pool.backend import OnReply


class OpenVINOBackend:
    """Runs one folder of `openvino_convert.convert`.

    `tokens_in` counts the rendered prompt; `tokens_out` every decoded token, the end token among
    them, and the log-probabilities are over the same tokens. `latency_s` is from handing over the
    prompts to the reply's end.
    """

    name = "openvino"
    device = "cpu"
    dtype = "int8"

    def __init__(self, folder: Path, label: str) -> None:
        """Loads nothing yet.

        Args:
            folder: the converted model with its tokenizer.
            label: what messages call the model.
        """
        self._checkpoint = Checkpoint(folder, label)
        self.render = self._checkpoint.render
        self.count_tokens = self._checkpoint.count_tokens
        self.require_window = self._checkpoint.require_window
        self._pipeline: Any = None
        self._stops: frozenset[int] = frozenset()

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: Sequence[int],
        on_reply: OnReply | None = None,
    ) -> list[Completion]:
        """Greedy completions of rendered prompts, in their order.

        Args:
            prompts: rendered prompts.
            max_new_tokens: for each prompt, the most new tokens.
            on_reply: called with every reply when it ends.

        Raises:
            HierRouterError: the model cannot be loaded, a prompt does not fit into its window, or
                OpenVINO fails.
            RefusedError: prompts do not fit into the cache; all others were answered.
        """
        encoded = self._checkpoint.encode(prompts) if prompts else []
        for tokens, limit in zip(encoded, max_new_tokens, strict=True):
            self._checkpoint.refuse_beyond_window(len(tokens), limit)
        if not encoded:
            return []
        import openvino_genai

        pipeline, status = self._load(), openvino_genai.GenerationStatus
        started = time.perf_counter()
        # What begins alike follows on each other.
        waiting = sorted(range(len(encoded)), key=encoded.__getitem__, reverse=True)
        running: dict[int, Any] = {}
        done: dict[int, Completion] = {}
        try:
            while waiting or running:
                with self._failing():
                    for at in _next(waiting, encoded, AT_ONCE - len(running)):
                        limit = max_new_tokens[at]
                        running[at] = add_request(pipeline, at, encoded[at], limit, self._stops)
                    pipeline.step()
                ended = [at for at, each in running.items() if each.get_status() != status.RUNNING]
                for at in ended:
                    handle = running.pop(at)
                    if handle.get_status() == status.IGNORED:
                        continue
                    result = handle.read_all()[0]
                    took = time.perf_counter() - started
                    done[at] = self._completion(result, len(encoded[at]), took)
                    if on_reply is not None:
                        on_reply(at, done[at])
        except BaseException:
            # What was begun would go on in the next call. Told to end, it frees what it held.
            with contextlib.suppress(RuntimeError):
                for handle in running.values():
                    handle.cancel()
                pipeline.step()
            self.close()
            raise
        if ignored := len(encoded) - len(done):
            raise RefusedError(
                f"model {self._checkpoint.label}: {ignored} of {len(encoded)} prompts do not fit "
                "into OpenVINO's cache; lower pool.prompts.max_context_tokens"
            )
        return [done[position] for position in range(len(encoded))]

    def close(self) -> None:
        """Frees the weights."""
        self._pipeline = None
        gc.collect()

    def _completion(self, result: Any, tokens_in: int, latency: float) -> Completion:
        tokens, logprobs = list(result.generated_ids), list(result.generated_log_probs)
        return Completion(
            reply=self._checkpoint.decode(tokens),
            tokens_in=tokens_in,
            tokens_out=len(tokens),
            finish_reason="stop" if tokens[-1] in self._stops else "length",
            latency_s=latency,
            logprob_mean=sum(logprobs) / len(logprobs),
            logprob_min=min(logprobs),
        )

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Says in one line that OpenVINO failed.

        Raises:
            HierRouterError: it did.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            # Its first line names a file of OpenVINO's source, a later one the reason.
            reason = " ".join(str(error).split())[:240] or type(error).__name__
            raise HierRouterError(
                f"model {self._checkpoint.label}: OpenVINO failed ({reason}); run the same command "
                "again: what was answered is kept. If it fails again, look at the memory that is "
                "free, or set backend: transformers for another recording"
            ) from error

    def _load(self) -> Any:
        if self._pipeline is None:
            self._stops = self._checkpoint.stop_tokens()
            self._pipeline = load_pipeline(self._checkpoint)
        return self._pipeline


def _next(waiting: list[int], encoded: Sequence[list[int]], room: int) -> list[int]:
    """Takes from the end of `waiting` the prompts to hand over before the next step.

    OpenVINO looks for an earlier prompt's work when it is handed a prompt. So no two go together of
    which one could use the other's, and no more than one step reads.
    """
    taken: list[int] = []
    tokens = 0
    while waiting and len(taken) < room:
        prompt = encoded[waiting[-1]]
        tokens, half = tokens + len(prompt), len(prompt) // 2 + 1
        if taken and (tokens > STEP_TOKENS or encoded[taken[-1]][:half] == prompt[:half]):
            break
        taken.append(waiting.pop())
    return taken


def load_pipeline(checkpoint: Checkpoint) -> Any:
    """OpenVINO GenAI's continuous batching over a converted model.

    Raises:
        HierRouterError: the folder does not load.
    """
    try:
        return open_pipeline(checkpoint.folder)
    except (RuntimeError, MemoryError) as error:
        raise checkpoint.unusable("OpenVINO model", error) from error

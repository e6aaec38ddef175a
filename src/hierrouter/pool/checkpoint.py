"""What every local backend needs of a checkpoint folder beside its weights.

The prompt is the checkpoint's chat template for one user message, with the system prompt that the
template itself puts there (what users of the model get); without a template it is the message.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError

from hierrouter.errors import HierRouterError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

hf: Any = transformers
"""transformers, whose own annotations are too partial for a strict type checker."""

UNUSABLE = (OSError, ValueError, KeyError, TypeError, ImportError, StrictDataclassError)
"""What transformers raises on a folder that it cannot load."""


class Checkpoint:
    """A folder's tokenizer, chat template, window and end tokens, each read when first needed."""

    def __init__(self, folder: Path, label: str) -> None:
        """Reads nothing yet.

        Args:
            folder: config.json, safetensors and a tokenizer.
            label: what messages call the model.
        """
        self.folder = folder
        self.label = label
        self._tokenizer: Any = None
        self._config: Any = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, padding on the left.

        Raises:
            HierRouterError: the folder holds none that can be used.
        """
        if self._tokenizer is None:
            quiet()
            try:
                tokenizer = hf.AutoTokenizer.from_pretrained(self.folder, padding_side="left")
            except UNUSABLE as error:
                raise self.unusable("tokenizer", error) from error
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            self._tokenizer = tokenizer
        return self._tokenizer

    @property
    def config(self) -> Any:
        """The model's configuration.

        Raises:
            HierRouterError: the folder holds none that can be used.
        """
        if self._config is None:
            try:
                self._config = hf.AutoConfig.from_pretrained(self.folder)
            except UNUSABLE as error:
                raise self.unusable("model", error) from error
        return self._config

    def render(self, message: str) -> str:
        """The chat template for one user message; the message itself where there is none."""
        return self.render_turns([("user", message)])

    def render_turns(self, turns: Sequence[tuple[str, str]]) -> str:
        """The chat template for a conversation; the bare texts where there is none.

        Args:
            turns: speaker ("system", "user", "assistant") and text of each turn.

        Raises:
            RefusedError: the template does not take such a conversation.
        """
        if not self.tokenizer.chat_template:
            return "\n\n".join(text for _, text in turns)
        said = [{"role": speaker, "content": text} for speaker, text in turns]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise RefusedError(
                f"model {self.label}: its chat template refuses this conversation ({error})"
            ) from error
        return rendered

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered prompts."""
        # A template writes its own begin token; a plain model's tokenizer adds it.
        encoded: list[list[int]] = self.tokenizer(
            list(prompts), add_special_tokens=not self.tokenizer.chat_template
        )["input_ids"]
        return encoded

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a reply, without special tokens and without space around it."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def stop_tokens(self) -> frozenset[int]:
        """Every token that ends a reply.

        Some checkpoints name only one of their end tokens, and padding is never part of a reply.
        """
        try:
            generation = hf.GenerationConfig.from_pretrained(self.folder).eos_token_id
        except OSError:  # a checkpoint need not have one
            generation = None
        return frozenset(
            _ids(generation)
            | _ids(self.config.get_text_config().eos_token_id)
            | _ids(self.tokenizer.eos_token_id)
            | _ids(self.tokenizer.pad_token_id)
        )

    def require_window(self, message_tokens: int, max_new_tokens: int) -> None:
        """Makes sure that a message and its reply fit into the model's window; loads no weights.

        Args:
            message_tokens: tokens of a user message, without its chat template.
            max_new_tokens: the most new tokens of its reply.

        Raises:
            HierRouterError: they do not, or the folder holds no usable tokenizer or configuration.
        """
        template = len(self.encode([self.render("")])[0])
        self.refuse_beyond_window(message_tokens + template, max_new_tokens)

    @property
    def window(self) -> int:
        """Most tokens of a prompt and its reply together."""
        # Some models state no bound, some -1.
        stated = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return stated if isinstance(stated, int) and stated > 0 else sys.maxsize

    def refuse_beyond_window(self, prompt_tokens: int, limit: int) -> None:
        """Beyond its window a model is told positions that it was never trained on.

        Args:
            prompt_tokens: tokens of a rendered prompt.
            limit: the most new tokens of its reply.

        Raises:
            HierRouterError: together they are longer than the window.
        """
        window = self.window
        if prompt_tokens + limit > window:
            raise HierRouterError(
                f"model {self.label}: a prompt of {prompt_tokens} tokens and a reply of {limit} "
                f"do not fit into its window of {window} tokens; lower "
                "pool.prompts.max_context_tokens, or the model's limits, by "
                f"{prompt_tokens + limit - window}"
            )

    def unusable(self, what: str, error: Exception) -> HierRouterError:
        """The one line for a folder whose `what` cannot be loaded."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return HierRouterError(
            f"model {self.label}: no usable {what} in {self.folder} ({reason}); "
            "give a folder or hub id with safetensors and a tokenizer"
        )


def quiet() -> None:
    """Keeps transformers' progress bars and advice off the terminal; errors still raise."""
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()


def _ids(value: int | Iterable[int] | None) -> set[int]:
    if value is None:
        return set()
    return {value} if isinstance(value, int) else set(value)

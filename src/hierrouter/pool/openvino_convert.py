"""From a checkpoint folder to an OpenVINO model with int8 weights, for `openvino_backend`.

The model is traced once through transformers with its past keys and values as inputs; these are
then made the model's state, in the form in which OpenVINO GenAI recognises and pages them; then
the weights are compressed. Any decoder whose attention is torch's scaled-dot-product one will do.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13
from openvino._offline_transformations import apply_make_stateful_transformation
from transformers.cache_utils import DynamicCache

from hierrouter.pool.checkpoint import hf, quiet

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "openvino_model.xml"
_PLAIN = ("input_ids", "attention_mask", "position_ids", "beam_idx")


class _Past(DynamicCache):
    """Keys and values that came in as tensors, grown by concatenation alone."""

    def __init__(self, past: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = past
        self._length = past[0].shape[-2]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's past followed by what is new."""
        at = 2 * layer_idx
        self.now[at] = torch.cat([self.now[at], key_states], dim=-2)
        self.now[at + 1] = torch.cat([self.now[at + 1], value_states], dim=-2)
        return self.now[at], self.now[at + 1]

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Tokens in the past."""
        return self._length


class _Step(torch.nn.Module):
    """One forward pass with everything that changes as a tensor: what is traced."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        beam_idx: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Logits, then keys and values of every layer; batch x tokens, as transformers has them."""
        cache = _Past([each.index_select(0, beam_idx) for each in past])
        new, whole = input_ids.shape[1], attention_mask.shape[1]
        place = torch.arange(whole)
        earlier = place[None, :] <= place[whole - new :][:, None]
        mask = earlier[None, None] & (attention_mask[:, None, None, :] > 0)
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (output.logits, *cache.now)


def convert(folder: Path, out: Path) -> None:
    """Writes the OpenVINO model of the checkpoint in `folder` into the folder `out`.

    Beside it go the checkpoint's configuration and tokenizer, so that `out` is a checkpoint for
    everything but its weights. Takes about twice the float32 weights in memory.

    Raises:
        Exception: whatever transformers, torch or OpenVINO raise on a model they cannot trace.
    """
    import nncf

    quiet()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    config = hf.AutoConfig.from_pretrained(folder)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = _traced(folder, config)
        _keep_past_as_state(model, *_shape(config))
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    ov.save_model(model, out / MODEL)
    config.save_pretrained(out)
    hf.AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    with contextlib.suppress(OSError):  # a checkpoint need not have one
        hf.GenerationConfig.from_pretrained(folder).save_pretrained(out)


def _shape(config: Any) -> tuple[int, int, int]:
    """Layers, key-value heads, and width of a head."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width


def _past_names(layers: int) -> list[str]:
    return [f"past_key_values.{n}.{part}" for n in range(layers) for part in ("key", "value")]


def _traced(folder: Path, config: Any) -> Any:
    """The model with its past as inputs `past_key_values.*` and outputs `present.*`."""
    layers, heads, width = _shape(config)
    source = hf.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True
    ).eval()
    rows, new, before = 2, 3, 4
    example = (
        torch.ones(rows, new, dtype=torch.long),
        torch.ones(rows, new + before, dtype=torch.long),
        torch.arange(before, before + new)[None].repeat(rows, 1),
        torch.arange(rows),
        *[torch.zeros(rows, heads, before, width) for _ in range(2 * layers)],
    )
    with torch.no_grad():
        model = ov.convert_model(_Step(source), example_input=example)
    names = [*_PLAIN, *_past_names(layers)]
    for port, name in zip(model.inputs, names, strict=True):
        shape = [-1] if name == "beam_idx" else [-1, -1]
        if name not in _PLAIN:
            shape = [-1, heads, -1, width]
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        port.get_node().set_partial_shape(ov.PartialShape(shape))
    results = ["logits", *(name.replace("past_key_values", "present") for name in names[4:])]
    for port, name in zip(model.outputs, results, strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def _keep_past_as_state(model: Any, layers: int, heads: int, width: int) -> None:
    """Turns past inputs and outputs into state that starts empty."""
    past = _past_names(layers)
    pairs = {name: name.replace("past_key_values", "present") for name in past}
    apply_make_stateful_transformation(model, pairs)
    ids = opset13.shape_of(model.input("input_ids"), output_type="i64")
    rows = opset13.gather(ids, opset13.constant([0]), opset13.constant(0))
    rest = opset13.constant(np.array([heads, 0, width], dtype=np.int64))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            nothing = opset13.constant(np.float32(0))
            node.set_arguments([opset13.broadcast(nothing, opset13.concat([rows, rest], axis=0))])
    model.validate_nodes_and_infer_types()

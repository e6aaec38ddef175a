"""From a model of the configuration to what answers for it live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.pool.live.endpoint import EndpointLive
from hierrouter.pool.live.scripted import ScriptedLive
from hierrouter.pool.open import choose_kind
from hierrouter.pool.weights import prepare, prepare_openvino

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec, Prompts
    from hierrouter.pool.live.backend import LiveBackend


def open_live(
    spec: ModelSpec, prompts: Prompts, weights: str | None = None, logprobs: bool = False
) -> LiveBackend:
    """What answers for a model; it loads weights when it is started.

    Args:
        spec: the model.
        prompts: the pool's instructions (a scripted model knows an analysis by them).
        weights: the weights digest that a router remembers of it, as for `open_backend`.
        logprobs: whether the log-probabilities of its replies are looked at; a server is asked for
            them only then.

    Raises:
        ConfigError: it is to run on openvino, which is not installed.
        HierRouterError: the model does not exist or cannot be used.
        UnreachableError: neither hub nor mirror answers.
    """
    kind = choose_kind(spec, weights)
    if kind == "scripted":
        return ScriptedLive(spec, prompts)
    if kind == "openai":
        return EndpointLive(spec, logprobs)
    # Both take seconds to import, which scripted models and endpoints do not need.
    if kind == "openvino":
        from hierrouter.pool.live.openvino import OpenVINOLive

        return OpenVINOLive(prepare_openvino(spec, weights), spec.name)
    from hierrouter.pool.live.transformers import TransformersLive

    dtype = "auto" if spec.dtype == "int8" else spec.dtype
    return TransformersLive(prepare(spec, weights).folder, spec.name, dtype)

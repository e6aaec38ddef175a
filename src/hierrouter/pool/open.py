"""From a model of the configuration to something that answers, and to what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.files import digest_of
from hierrouter.pool.scripted import ScriptedBackend, scripted_identity
from hierrouter.pool.weights import prepare

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec, Prompts
    from hierrouter.pool.backend import Backend

GENERATION_SETTINGS: dict[str, Any] = {
    "decoding": "greedy",
    "repetition_penalty": 1.0,
    "system_prompt": "template",
}
"""What a reply depends on beside weights and prompt, for every backend with real weights."""


def open_backend(spec: ModelSpec, prompts: Prompts, batch_tokens: int) -> Backend:
    """The backend of a model; it loads weights when it is first asked to generate.

    Args:
        spec: the model.
        prompts: the pool's instructions (a scripted model knows an analysis by them).
        batch_tokens: bound on a batch's tokens, prompt and reply with padding.

    Raises:
        HierRouterError: the model does not exist or cannot be used.
        UnreachableError: neither hub nor mirror answers.
    """
    if spec.backend == "scripted":
        return ScriptedBackend(spec, prompts)
    prepared = prepare(spec)
    # Takes seconds to import, which a pool of scripted models and `identity` do not need.
    from hierrouter.pool.transformers_backend import TransformersBackend

    return TransformersBackend(prepared.folder, spec.name, batch_tokens, spec.dtype)


def identity(spec: ModelSpec) -> dict[str, Any]:
    """What a model is, for generation keys and tree.json; loads no weights.

    Returns:
        `weights_digest` and `generation` (settings) belong into generation keys; `provenance`
        (source, repo, revision, digest) is for people.

    Raises:
        HierRouterError: the model does not exist or cannot be used.
        UnreachableError: neither hub nor mirror answers.
    """
    if spec.backend == "scripted":
        return {
            "weights_digest": digest_of(scripted_identity(spec)),
            "generation": {"decoding": "scripted"},
            "provenance": {"source": "scripted"},
        }
    prepared = prepare(spec)
    return {
        "weights_digest": prepared.weights_digest,
        # As configured, not as chosen: "auto" differs between machines that share one tree.
        "generation": {"dtype": spec.dtype, **GENERATION_SETTINGS},
        "provenance": dict(prepared.provenance),
    }

"""From a model of the configuration to something that answers, and to what it is."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from hierrouter.errors import ConfigError
from hierrouter.files import digest_of
from hierrouter.pool.scripted import ScriptedBackend, scripted_identity
from hierrouter.pool.weights import openvino_digest, prepare, prepare_openvino

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec, Prompts
    from hierrouter.pool.backend import Backend

Kind = Literal["transformers", "openvino", "openai", "scripted"]

GENERATION_SETTINGS: dict[str, Any] = {
    "decoding": "greedy",
    "repetition_penalty": 1.0,
    "system_prompt": "template",
}
"""What a reply depends on beside weights and prompt, for every backend with real weights."""


def open_backend(
    spec: ModelSpec, prompts: Prompts, batch_tokens: int, weights: str | None = None
) -> Backend:
    """The backend of a model; it loads weights when it is first asked to generate.

    Args:
        spec: the model.
        prompts: the pool's instructions (a scripted model knows an analysis by them).
        batch_tokens: bound on a batch's tokens, prompt and reply with padding.
        weights: the weights digest that a tree or router remembers of it: what has these weights
            is opened, where there is a choice (the mirror or the hub; `backend: auto`).

    Raises:
        ConfigError: it is to run on openvino, which is not installed.
        HierRouterError: the model does not exist or cannot be used.
        UnreachableError: neither hub nor mirror answers.
    """
    kind = choose_kind(spec, weights)
    if kind == "scripted":
        return ScriptedBackend(spec, prompts)
    if kind == "openai":
        from hierrouter.pool.openai_backend import OpenAIBackend

        return OpenAIBackend(spec)
    if kind == "openvino":
        from hierrouter.pool.openvino_backend import OpenVINOBackend

        return OpenVINOBackend(prepare_openvino(spec, weights), spec.name)
    prepared = prepare(spec, weights)
    # Takes seconds to import, which a pool of scripted models and `identity` do not need.
    from hierrouter.pool.transformers_backend import TransformersBackend

    dtype = "auto" if spec.dtype == "int8" else spec.dtype
    return TransformersBackend(prepared.folder, spec.name, batch_tokens, dtype)


def identity(spec: ModelSpec, weights: str | None = None) -> dict[str, Any]:
    """What a model is, for generation keys and tree.json; loads no weights.

    Args:
        spec: the model.
        weights: as for `open_backend`.

    Returns:
        `weights_digest` and `generation` (settings) belong into generation keys; `provenance`
        (source, repo, revision, digest) is for people.

    Raises:
        ConfigError: it is to run on openvino, which is not installed.
        HierRouterError: the model does not exist or cannot be used.
        UnreachableError: neither hub nor mirror answers.
    """
    if spec.backend == "imported":
        raise nothing_to_call(spec)
    if spec.backend == "scripted":
        return {
            "weights_digest": digest_of(scripted_identity(spec)),
            "generation": {"decoding": "scripted"},
            "provenance": {"source": "scripted"},
        }
    if spec.backend == "openai":
        # What a server runs cannot be looked at: its name and revision must stand for it. The
        # address may change, a server that moves is the same model.
        return {
            "weights_digest": digest_of(["openai", spec.model, spec.revision]),
            "generation": {"decoding": "greedy", "prompt": "chat message"},
            "provenance": {"source": "endpoint", "repo": spec.model, "revision": spec.revision},
        }
    prepared = prepare(spec, weights)
    if choose_kind(spec, weights) == "openvino":
        return {
            "weights_digest": openvino_digest(prepared.weights_digest),
            "generation": {"dtype": "int8", **GENERATION_SETTINGS},
            "provenance": {**prepared.provenance, "backend": "openvino"},
        }
    return {
        "weights_digest": prepared.weights_digest,
        # As configured, not as chosen: "auto" differs between machines that share one tree.
        "generation": {"dtype": spec.dtype, **GENERATION_SETTINGS},
        "provenance": dict(prepared.provenance),
    }


def nothing_to_call(spec: ModelSpec) -> ConfigError:
    """What to say where a model of imported outcomes is to answer."""
    return ConfigError(
        f"there is nothing to call for {spec.name}: it is known from imported outcomes alone; "
        "name it in pool.models of the config, with the backend or endpoint that answers, and "
        "import and train again (`hierrouter serve` also takes --endpoint NAME=URL)"
    )


def choose_kind(spec: ModelSpec, weights: str | None = None) -> Kind:
    """What runs a model here.

    Args:
        spec: the model.
        weights: as for `open_backend`.

    Raises:
        ConfigError: it is to run on openvino, which is not installed.
    """
    if spec.backend == "imported":
        raise nothing_to_call(spec)
    if spec.backend in ("transformers", "openai", "scripted"):
        return spec.backend
    installed = find_spec("openvino_genai") is not None
    if spec.backend == "openvino" or spec.dtype == "int8":
        if not installed:
            raise ConfigError(
                f"model {spec.name} is to run on openvino, which is not installed; "
                "`pip install -e '.[openvino]'` in the clone"
            )
        return "openvino"
    if spec.dtype != "auto":
        return "transformers"
    if weights is not None:
        plain = prepare(spec, weights).weights_digest
        if weights == plain:
            return "transformers"
        if weights == openvino_digest(plain) and installed:
            return "openvino"
    return "openvino" if installed and _on_processor() else "transformers"


def _on_processor() -> bool:
    from hierrouter.pool.devices import choose_device

    return choose_device() == "cpu"

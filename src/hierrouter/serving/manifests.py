"""From a pool to the KServe objects that serve it: which models are served, and by what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from hierrouter.errors import ConfigError
from hierrouter.files import claim_folder, write_text
from hierrouter.progress import say
from hierrouter.serving.kserve_import import require_kserve
from hierrouter.serving.manifest_settings import LOOPBACK, check, longest_name, refuse_loopback
from hierrouter.serving.sizes import all_in_one_resources, model_resources, router_resources
from hierrouter.serving.slugs import slug

if TYPE_CHECKING:
    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.serving.manifest_settings import ManifestSettings

RUNTIME, ROUTER, MODELS = "hierrouter-runtime.yaml", "hierrouter-router.yaml", "models.yaml"
"""The files; the first tells a folder of ours from others."""
KUSTOMIZATION = "kustomization.yaml"
HEADER = (
    "# Written by `hierrouter manifests`; to change it, change the config and write it again.\n"
)


@dataclass(frozen=True)
class Served:
    """A model that gets an InferenceService.

    Attributes:
        name: of the InferenceService.
        members: of the pool that have these weights.
        dtype: the number format that the runtime is told.
    """

    name: str
    members: tuple[ModelSpec, ...]
    dtype: str

    @property
    def spec(self) -> ModelSpec:
        """The first member, which stands for all."""
        return self.members[0]


def write_manifests(pool: PoolConfig, settings: ManifestSettings, out: Path) -> None:
    """Writes a pool's objects and a kustomization of them.

    Args:
        pool: the pool that the router was trained with.
        settings: how it is to be served.
        out: a folder: new, empty or ours.

    Raises:
        ConfigError: a setting or a model of the pool cannot be followed; nothing is written.
        HierRouterError: KServe is not installed, or the folder cannot be written.
    """
    refuse_loopback(settings)
    # All of it is made before the first file is.
    objects = made_objects(pool, settings)
    claim_folder(out, RUNTIME)
    files = {name: each for name, each in objects.items() if each}
    for name, each in files.items():
        write_text(out / name, HEADER + yaml.safe_dump_all(each, sort_keys=False, width=100))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
    write_text(out / KUSTOMIZATION, HEADER + yaml.safe_dump(kustomization, sort_keys=False))
    if MODELS not in files:
        (out / MODELS).unlink(missing_ok=True)  # of another pool
    _note(pool, settings)
    say(f"manifests: {out}; apply them with `kubectl apply -k {out}`")


def made_objects(pool: PoolConfig, settings: ManifestSettings) -> dict[str, list[dict[str, Any]]]:
    """The objects as Kubernetes' API has them, by the name of their file.

    Raises:
        ConfigError: a setting or a model of the pool cannot be followed.
        HierRouterError: KServe is not installed.
    """
    require_kserve()
    check(settings)
    refuse_folders(pool)
    # KServe takes seconds to import.
    from hierrouter.serving.objects import (
        address,
        model_service,
        router_service,
        serialised,
        serving_runtime,
    )

    served = [] if settings.all_in_one else served_models(pool, settings.namespace)
    endpoints = [
        (spec.name, address(each.name, settings.namespace))
        for each in served
        for spec in each.members
    ]
    order = {spec.name: position for position, spec in enumerate(pool.models)}
    runtime = serving_runtime(settings.namespace, settings.image)
    router = router_service(
        settings,
        sorted(endpoints, key=lambda pair: order[pair[0]]),
        _endpoint_keys(pool),
        all_in_one_resources(pool) if settings.all_in_one else router_resources(),
    )
    models = [
        model_service(
            settings,
            each.name,
            each.spec.model,
            each.spec.revision,
            each.dtype,
            model_resources(each.spec, settings.accelerator, settings.accelerators),
        )
        for each in served
    ]
    return {
        RUNTIME: [serialised(runtime)],
        ROUTER: [serialised(router)],
        MODELS: [serialised(each) for each in models],
    }


def served_models(pool: PoolConfig, namespace: str) -> list[Served]:
    """The models that get an InferenceService of their own, in the order of the pool.

    Scripted models stay in the router's process, and those behind an endpoint where they are.
    Members with the same weights share one. References are measured, and never served.

    Args:
        pool: the pool.
        namespace: whose name bounds the length of theirs.
    """
    from hierrouter.serving.objects import NAME

    groups: dict[tuple[str, str, str], list[ModelSpec]] = {}
    for spec in pool.models:
        if spec.backend not in ("scripted", "openai"):
            # The runtime has no int8 of OpenVINO's.
            dtype = spec.dtype if spec.dtype != "int8" else "auto"
            groups.setdefault((spec.model, spec.revision, dtype), []).append(spec)
    taken, served = {NAME}, []
    for (_, _, number_format), members in groups.items():
        name = slug(members[0].name, taken, longest_name(namespace))
        taken.add(name)
        served.append(Served(name, tuple(members), number_format))
    return served


def _note(pool: PoolConfig, settings: ManifestSettings) -> None:
    """Says what works, but not as one may think."""
    for spec in pool.models:
        if spec.endpoint is not None and urlsplit(spec.endpoint.url).hostname in LOOPBACK:
            say(
                f"note: model {spec.name} answers at {spec.endpoint.url}, which in a pod is the "
                "pod itself"
            )
    others = [
        spec.name for spec in pool.models if spec.dtype == "int8" or spec.backend == "openvino"
    ]
    if others and not settings.all_in_one:
        say(
            f"note: {', '.join(others)} have int8 weights here, and KServe's runtime loads the "
            "checkpoints' own: some replies will be others than the router has learned from"
        )


def _endpoint_keys(pool: PoolConfig) -> list[str]:
    keys = [spec.endpoint.api_key_env for spec in pool.models if spec.endpoint is not None]
    return list(dict.fromkeys(key for key in keys if key))


def refuse_folders(pool: PoolConfig) -> None:
    """Makes sure that pods can have every model.

    Raises:
        ConfigError: one is a folder of this machine.
    """
    for spec in pool.models:
        if spec.backend in ("scripted", "openai"):
            continue
        path = Path(spec.model).expanduser()
        far = path.is_absolute() or spec.model.startswith(".") or spec.model.count("/") > 1
        if far or path.is_dir():
            raise ConfigError(
                f"model {spec.name}: {spec.model} is a folder, which pods do not have; name a "
                "model of the hub, or a server that answers for it (backend: openai)"
            )

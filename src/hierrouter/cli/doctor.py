"""What is reachable from here: `hierrouter doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import psutil
from rich.console import Console

from hierrouter import hub
from hierrouter.cli.cluster import cluster_findings
from hierrouter.cli.notice import needed_models
from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hierrouter.config import Config

Finding = tuple[str, bool | None, str]
"""What was looked at; good, bad, or neither; what was found."""

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "stable-baselines3",
    "sb3-contrib",
    "gymnasium",
    "datasets",
    "mlflow",
    "kfp",
    "kserve",
)
RUN_MEMORY_GIB, RUN_DISK_GB = 13, 11
"""What `make run` needs: the memory for converting the study's larger model, the disk for models,
their conversions and the data sets."""
SIGNS = {True: "[green]ok[/]  ", False: "[red]no[/]  ", None: "[dim]--[/]  "}


def examine(config: Config | None) -> None:
    """Prints one line a finding to standard output.

    Args:
        config: also looks for this experiment's models and endpoints.

    Raises:
        HierRouterError: something that every run needs is missing.
    """
    console = Console(highlight=False)
    missing = []
    for what, good, found in findings(config):
        console.print(SIGNS[good], end="")
        console.print(f"{what}: {found}", markup=False, soft_wrap=True)
        if good is False:
            missing.append(what)
    if missing:
        raise HierRouterError(f"not in order: {', '.join(missing)}; see the lines above")


def findings(config: Config | None) -> Iterator[Finding]:
    """Looks at the machine, the packages and the services, one after the other."""
    yield "Python", sys.version_info >= (3, 11), f"{platform.python_version()} ({sys.executable})"
    yield from (_package(name) for name in PACKAGES)
    yield from _processor()
    yield _memory()
    yield _disk()
    yield from _sources(config)
    if config is not None:
        yield from endpoint_findings(config)
    yield from cluster_findings()


def _package(name: str) -> Finding:
    try:
        return name, True, version(name)
    except PackageNotFoundError:
        extra = {"kfp": "kubeflow", "kserve": "serving"}.get(name)
        if extra:
            return name, None, f"not installed; `pip install -e '.[{extra}]'` in the clone adds it"
        return name, False, "not installed; run `make install`"


def _processor() -> Iterator[Finding]:
    import torch

    from hierrouter.pool.devices import choose_device, choose_dtype

    device = choose_device()
    chosen = f"models run there as {choose_dtype('auto', device)}"
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    yield "processor", True, f"{cores}; {chosen}" if device == "cpu" else cores
    if device == "cpu":
        yield "GPU", None, "none that torch can use; everything works on the processor, slower"
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        size = properties.total_memory / 2**30
        yield "GPU", True, f"{properties.name}, {size:.0f} GiB; {chosen}"


def _memory() -> Finding:
    total = psutil.virtual_memory().total / 2**30
    found = f"{total:.0f} GiB"
    if total >= RUN_MEMORY_GIB - 1:  # a machine's own share is not counted
        return "memory", True, found
    found += f"; `make run` needs {RUN_MEMORY_GIB}, configs/quickstart.yaml 8"
    return "memory", None if total >= 7 else False, found


def _disk() -> Finding:
    home = hub.home()
    at = _existing(home)
    free = shutil.disk_usage(at).free / 1e9
    writable = os.access(at, os.W_OK)
    what = f"cache folder {home}"
    if not writable:
        return what, False, "not writable; set HIERROUTER_HOME"
    found = f"{free:.0f} GB free"
    if free >= RUN_DISK_GB:
        return what, True, found
    found += f"; `make run` needs {RUN_DISK_GB}, configs/quickstart.yaml 8"
    return what, None if free >= 8 else False, found


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sources(config: Config | None) -> Iterator[Finding]:
    models = {("HuggingFaceTB/SmolLM2-135M-Instruct", "main")}
    if config is not None:
        models = needed_models(config.pool)
    described: list[Finding] = []
    for model, revision in sorted(models):
        try:
            source = hub.describe(model, revision)
        except HierRouterError as error:
            described.append((f"model {model}", False, str(error)))
            continue
        size = f"{source.download_bytes / 1e6:.0f} MB to download"
        here = size if source.download_bytes else "already here"
        described.append((f"model {model}", True, f"{source.source}, {here}"))
    why, what = hub.reason(), "Hugging Face hub"
    if not models:
        yield what, None, "not asked, as no model of this config comes from it"
    elif why is None:
        yield what, True, "reached"
    else:
        yield what, None, f"not reached ({why}); mirrors serve, see docs/mirrors.md"
    yield _index()
    yield from described


def endpoint_findings(config: Config) -> Iterator[Finding]:
    """Asks the endpoint of every model that has one which models it serves."""
    from hierrouter.pool.openai_backend import OpenAIBackend

    for spec in (*config.pool.models, *config.pool.references):
        if spec.endpoint is None:
            continue
        what, served = f"endpoint of {spec.name}", spec.endpoint.served_name or spec.model
        backend = OpenAIBackend(spec)
        try:
            names = backend.listed_models()
        except HierRouterError as error:
            yield what, False, str(error)
            continue
        finally:
            backend.close()
        if served in names:
            yield what, True, f"{spec.endpoint.url} answers and serves {served}"
        else:
            # No fault: a server may have models that it does not list.
            listed = ", ".join(names[:5]) or "none"
            found = f"answers; it lists {listed}, not {served} (endpoint.served_name)"
            yield what, None, f"{spec.endpoint.url} {found}"


def _index() -> Finding:
    command = [sys.executable, "-m", "pip", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return "pip", None, "not there; mirrors need it (python -m ensurepip)"
    return "pip", True, f"{done.stdout.split(' from ')[0]}; mirrors are taken with it"

"""The compiled pipeline and the arguments of a run, checked before anything is sent."""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kfp import compiler

from hierrouter.config import PoolConfig
from hierrouter.configfile import join_parts, load_config, load_part
from hierrouter.errors import ConfigError
from hierrouter.files import atomic_path
from hierrouter.serving.manifests import refuse_folders
from hierrouter.stages.settings import refuse_filling
from pipelines.arguments import PARTS, declared_parameters, read_arguments
from pipelines.definition import RECORDINGS, Compiled, build

SERVING = "serving_"
"""How parameters of the last step begin."""


@dataclass(frozen=True)
class Package:
    """A pipeline and what one run of it is given.

    Attributes:
        text: the compiled pipeline.
        arguments: parameters that differ from their defaults.
        compiled: what was fixed when it was compiled.
    """

    text: str
    arguments: dict[str, Any]
    compiled: Compiled

    def value(self, parameter: str) -> Any:
        """What a run is given for a parameter."""
        declared = declared_parameters(self.text)
        return self.arguments.get(parameter, declared[parameter].get("defaultValue"))

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[str]:
        """The compiled pipeline as a file, which kfp's client asks for."""
        with tempfile.TemporaryDirectory(prefix="hierrouter-") as folder:
            path = Path(folder, "pipeline.yaml")
            path.write_text(self.text, encoding="utf-8")
            yield str(path)


def config_parts(config: Path, overrides: Sequence[str]) -> dict[str, str]:
    """The four parts of a config, each as JSON.

    Raises:
        ConfigError: the config is wrong, or asks for what a pipeline cannot do.
    """
    loaded = load_config(config, overrides)
    refuse_filling(loaded.training)
    return {
        part: json.dumps(getattr(loaded, part).model_dump(mode="json"), sort_keys=True)
        for part in PARTS
    }


def write_package(config: Path, overrides: Sequence[str], compiled: Compiled, out: Path) -> None:
    """Compiles the pipeline into a file; the same config and settings give the same bytes.

    Args:
        config: the experiment; its parts are the parameters' defaults.
        overrides: `dotted.path=value` each, for the config.
        compiled: what is fixed.
        out: the file, .yaml.

    Raises:
        ConfigError: the config or the file's name is wrong.
        HierRouterError: it cannot be written.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out {out}: name a .yaml file, as Kubeflow takes no other")
    text = compiled_text(config, overrides, compiled)
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def described(
    config: Path, overrides: Sequence[str], compiled: Compiled, params: Sequence[str]
) -> Package:
    """Compiles the pipeline and reads the arguments of a run.

    Raises:
        ConfigError: the config is wrong, or a parameter is unknown or of the wrong type.
    """
    text = compiled_text(config, overrides, compiled)
    package = Package(text, read_arguments(text, params), compiled)
    join_parts({part: str(package.value(part)) for part in PARTS}, "--param")
    _require_place(package)
    _require_server(package)
    _require_bundle(package)
    _require_deployable(package)
    return package


def compiled_text(config: Path, overrides: Sequence[str], compiled: Compiled) -> str:
    """The pipeline as `write_package` writes it.

    Raises:
        ConfigError: the config is wrong, or asks for what a pipeline cannot do.
    """
    return _compile(tuple(config_parts(config, overrides).items()), compiled)


@cache
def _compile(parts: tuple[tuple[str, str], ...], compiled: Compiled) -> str:
    """What kfp makes of it, which takes seconds, and is the same each time."""
    with tempfile.TemporaryDirectory(prefix="hierrouter-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(build(compiled, dict(parts)), str(path))
        return path.read_text(encoding="utf-8")


def _require_place(package: Package) -> None:
    """Makes sure that recordings outlive their pods.

    Raises:
        ConfigError: it is neither on the volume nor in an object store.
    """
    recordings = str(package.value("recordings"))
    if recordings.startswith("s3://"):
        return
    if "://" in recordings:
        raise ConfigError(
            f"recordings={recordings}: the image speaks to object stores by s3://… (to others by "
            "their S3 interface: AWS_ENDPOINT_URL in the secret store_secret)"
        )
    if not package.compiled.volumes:
        raise ConfigError(
            f"recordings={recordings}: with --no-volumes this is a folder of a pod, which dies "
            "with it; name an object store (--param recordings=s3://BUCKET/FOLDER)"
        )
    if recordings != RECORDINGS and not recordings.startswith(f"{RECORDINGS}/"):
        raise ConfigError(
            f"recordings={recordings}: the volume is at {RECORDINGS}, and what lies elsewhere dies "
            f"with its pod; name a folder in {RECORDINGS}, or an object store (s3://…)"
        )


def _require_server(package: Package) -> None:
    """Makes sure that MLflow's address means the same to every pod.

    Raises:
        ConfigError: it names a file, or nothing that could be asked.
    """
    uri = str(package.value("mlflow_uri"))
    if uri and not uri.startswith(("http://", "https://")):
        raise ConfigError(
            f"mlflow_uri={uri}: every pod would have a database of its own; give the address of a "
            "server, http://… or https://…"
        )


def _require_bundle(package: Package) -> None:
    """Makes sure that a bundle of authorities that is named is used.

    Raises:
        ConfigError: the pipeline is compiled without it.
    """
    if "ca_bundle" in package.arguments and not package.compiled.ca_bundle:
        raise ConfigError(
            f"--param ca_bundle={package.arguments['ca_bundle']}: no component looks at it without "
            "--ca-bundle; add that"
        )


def _require_deployable(package: Package) -> None:
    """Makes sure that what is said of serving is used, and that pods can have the models.

    Raises:
        ConfigError: the pipeline is compiled without the step, or a model is a folder.
    """
    if package.compiled.deploy == "off":
        for name in package.arguments:
            if name.startswith(SERVING):
                raise ConfigError(
                    f"--param {name}={package.arguments[name]}: nothing is served without "
                    "--deploy; add --deploy apply, or --deploy write"
                )
        return
    refuse_folders(load_part(PoolConfig, str(package.value("pool")), "pool"))

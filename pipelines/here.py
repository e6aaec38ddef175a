"""The pipeline on this machine: kfp's local runner, the same components."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp import local

from hierrouter import hub
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder, write_json
from hierrouter.progress import say
from hierrouter.tracking.store import resolved_uri, shown_uri, tracking_at, tracking_uri
from pipelines.arguments import read_arguments
from pipelines.definition import Compiled, build
from pipelines.package import compiled_text, config_parts

MARKER = "pipeline.json"
PASSED_ON = ("AWS_", "HF_", "HIERROUTER_", "MLFLOW_")
"""Beginnings of the variables that a container gets from here."""


def run_here(
    config: Path,
    overrides: Sequence[str],
    params: Sequence[str],
    out: Path,
    image: str | None = None,
) -> None:
    """Runs every component in a process or a container of its own, as kfp's local runner does.

    Recordings lie in `out/recordings`, so that a run that was cut short goes on from there. MLflow
    is the one of MLFLOW_TRACKING_URI, else the database of this folder.

    Args:
        config: the experiment.
        overrides: `dotted.path=value` each, for the config.
        params: NAME=VALUE each, for the pipeline; what asks a cluster for something is ignored.
        out: a new folder, or that of an earlier run.
        image: runs every component in this image; none: with this Python.

    Raises:
        ConfigError: the config or a parameter is wrong, `out` is not ours, there is no such image.
        HierRouterError: Docker does not answer, or a component failed; its own line is above.
    """
    parts = config_parts(config, overrides)
    compiled = Compiled(volumes=False, resources=False, retries=0)
    if image:
        compiled = replace(compiled, image=image)
    arguments = {
        "recordings": str((out / "recordings").resolve()),
        **read_arguments(compiled_text(config, overrides, compiled), params),
    }
    recordings = arguments["recordings"]
    if "://" not in recordings and not Path(recordings).is_absolute():
        raise ConfigError("--param recordings: give an absolute path or an address such as s3://…")
    # Not as a parameter: kfp prints those, and a password may stand in the address.
    with tracking_at(arguments.get("mlflow_uri") or resolved_uri()):
        runner = local.SubprocessRunner(use_venv=False)
        if image:
            runner = _containers(image, {**parts, **arguments})
        claim_folder(out, MARKER)
        write_json(out / MARKER, {"config": str(config), "parts": parts})
        artifacts = (out / "artifacts").resolve()
        # What is not there when it is mounted would be made as root's.
        for folder in (artifacts, hub.home(), *([] if "://" in recordings else [Path(recordings)])):
            folder.mkdir(parents=True, exist_ok=True)
        local.init(runner, pipeline_root=str(artifacts))
        _run(build(compiled, parts), arguments, image)
        say(f"recordings  {recordings}")
        say(f"artifacts   {out / 'artifacts'}")
        say(f"MLflow      {shown_uri()}")


def _run(pipeline: Callable[..., Any], arguments: dict[str, Any], image: str | None) -> None:
    """Runs the pipeline, in `image` if there is one.

    Raises:
        HierRouterError: a component failed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline(**arguments)
    except RuntimeError as error:
        raise HierRouterError(f"{_plain(str(error))}; its own words are above") from None
    except ValueError as error:
        # A container that fails at once is gone before kfp asks how it ended; it then misses the
        # outputs.
        if not image:
            raise
        raise HierRouterError(
            f"a component left no output ({_plain(str(error))}); its own words are above"
        ) from None


def _containers(image: str, arguments: dict[str, str]) -> local.DockerRunner:
    """Containers that can write where this run writes, in /tmp, and nowhere else.

    Raises:
        ConfigError: there is no such image, or MLflow's database is a file here.
        HierRouterError: Docker does not answer.
    """
    import docker
    from docker.errors import APIError, DockerException, ImageNotFound

    if tracking_uri().startswith("sqlite:"):
        raise ConfigError(
            "--image: containers cannot share a database file; start `mlflow server` and set "
            "MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
        )
    try:
        client = docker.from_env()
        client.images.get(image)
    except ImageNotFound:
        raise ConfigError(
            f"--image {image}: there is no such image here; build it with `make image`"
        ) from None
    except (APIError, DockerException) as error:
        first = str(error).splitlines()[0]
        raise HierRouterError(
            f"Docker does not answer ({first}); start it, or set DOCKER_HOST (Podman's: `podman "
            "system service`)"
        ) from None
    keys = set(re.findall(r"\bapi_key_env\W+(\w+)", arguments["pool"]))
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON) or name in keys
    }
    shared = {str(hub.home())}
    if "://" not in arguments["recordings"]:
        shared.add(arguments["recordings"])
    return local.DockerRunner(
        read_only=True,
        tmpfs={"/tmp": ""},
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="host",
        environment={**passed_on, "HIERROUTER_HOME": str(hub.home())},
        mounts=[docker.types.Mount(folder, folder, type="bind") for folder in sorted(shared)],
    )


def _plain(text: str) -> str:
    """A message of kfp without its colours."""
    return re.sub(r"\x1b\[\d+m", "", text).strip().rstrip(".")

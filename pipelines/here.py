"""The pipeline on this machine: kfp's local runner, the same components."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from kfp import local

from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder, write_json
from hierrouter.progress import say
from hierrouter.tracking.store import shown_uri, tracking_uri
from pipelines.definition import Compiled, build
from pipelines.package import compiled_text, config_parts, read_arguments

MARKER = "pipeline.json"


def run_here(config: Path, overrides: Sequence[str], params: Sequence[str], out: Path) -> None:
    """Runs every component in a process of its own, as kfp's local runner does.

    Recordings lie in `out/recordings`, so that a run that was cut short goes on from there. MLflow
    is the one of MLFLOW_TRACKING_URI, else the database of this folder.

    Args:
        config: the experiment.
        overrides: `dotted.path=value` each, for the config.
        params: NAME=VALUE each, for the pipeline; what asks a cluster for something is ignored.
        out: a new folder, or that of an earlier run.

    Raises:
        ConfigError: the config or a parameter is wrong, or `out` is not ours.
        HierRouterError: a component failed; its own line is above.
    """
    parts = config_parts(config, overrides)
    compiled = Compiled(volumes=False, resources=False)
    arguments = read_arguments(compiled_text(config, overrides, compiled), params)
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        # Components run in folders of their own.
        uri = f"sqlite:///{Path.cwd() / uri.removeprefix('sqlite:///')}"
    arguments = {
        "recordings": str((out / "recordings").resolve()),
        "mlflow_uri": uri,
        **arguments,
    }
    recordings = arguments["recordings"]
    if "://" not in recordings and not Path(recordings).is_absolute():
        raise ConfigError("--param recordings: give an absolute path or an address such as s3://…")
    claim_folder(out, MARKER)
    write_json(out / MARKER, {"config": str(config), "parts": parts})
    root = str((out / "artifacts").resolve())
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build(compiled, parts)(**arguments)
    except RuntimeError as error:
        raise HierRouterError(f"{_plain(str(error))}; its own words are above") from None
    say(f"recordings  {recordings}")
    say(f"artifacts   {out / 'artifacts'}")
    say(f"MLflow      {shown_uri()}")


def _plain(text: str) -> str:
    """A message of kfp without its colours."""
    return re.sub(r"\x1b\[\d+m", "", text).strip().rstrip(".")

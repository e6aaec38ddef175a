#!/usr/bin/env python
"""The whole study on Kubeflow: compile it, run it here, submit it, or run it by a schedule."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# A script is started from its own folder; the components lie beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hierrouter.cli.launch import launch
from pipelines.flags import require_image, with_compile_flags

if TYPE_CHECKING:
    from pipelines.definition import Compiled

app = typer.Typer(
    help="Sample, record, train, evaluate and register as a Kubeflow pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[
    Path, typer.Option("--config", help="The experiment's YAML file: the parameters' defaults.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the config."),
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="A pipeline parameter, such as shards=4."),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        envvar="KF_PIPELINES_ENDPOINT",
        help="Address of Kubeflow Pipelines, such as http://localhost:8080 with a port-forward.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", envvar="KF_PIPELINES_NAMESPACE", help="Your profile's namespace."),
]
Authority = Annotated[
    Path | None,
    typer.Option("--ca-file", help="Certificate of the authority that signed the server's."),
]
Experiment = Annotated[str, typer.Option("--experiment", help="Kubeflow experiment to run in.")]
NewExperiment = Annotated[
    bool, typer.Option("--new-experiment", help="Make the Kubeflow experiment if there is none.")
]
Name = Annotated[str | None, typer.Option("--name", help="What to call the run.")]


@app.command("compile")
@with_compile_flags
def compile_pipeline(
    config: ConfigFile,
    compiled: "Compiled",
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("pipeline.yaml"),
    overrides: Overrides = None,
) -> None:
    """Write the pipeline as a file that Kubeflow Pipelines takes."""
    from pipelines.package import write_package

    write_package(config, overrides or [], compiled, out)
    typer.echo(f"pipeline: {out}")


@app.command()
def local(
    config: ConfigFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that it makes.")],
    overrides: Overrides = None,
    params: Params = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Run every component in this image, with Docker.")
    ] = None,
) -> None:
    """Run the same pipeline on this machine, without a cluster."""
    from pipelines.here import run_here

    run_here(config, overrides or [], params or [], out, image)


@app.command()
@with_compile_flags
def submit(
    config: ConfigFile,
    compiled: "Compiled",
    host: Host = None,
    namespace: Namespace = None,
    ca_file: Authority = None,
    experiment: Experiment = "hierrouter",
    new_experiment: NewExperiment = False,
    name: Name = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run; fail when it fails.")
    ] = False,
    overrides: Overrides = None,
    params: Params = None,
) -> None:
    """Start a run on a cluster. The token comes from KF_PIPELINES_TOKEN or a service account."""
    from pipelines.client import connected
    from pipelines.package import described
    from pipelines.runs import start
    from pipelines.watch import watch

    package = described(config, overrides or [], compiled, params or [])
    require_image(compiled)
    with connected(host, namespace, ca_file) as cluster:
        run = start(cluster, package, experiment, name, new_experiment)
        if wait:
            watch(cluster, run, package)


@app.command()
@with_compile_flags
def schedule(
    config: ConfigFile,
    compiled: "Compiled",
    cron: Annotated[str, typer.Option("--cron", help='Six fields, such as "0 0 3 * * 1".')],
    host: Host = None,
    namespace: Namespace = None,
    ca_file: Authority = None,
    experiment: Experiment = "hierrouter",
    new_experiment: NewExperiment = False,
    name: Name = None,
    overrides: Overrides = None,
    params: Params = None,
) -> None:
    """Run it again and again, as a cron expression says."""
    from pipelines.client import connected
    from pipelines.package import described
    from pipelines.runs import repeat

    package = described(config, overrides or [], compiled, params or [])
    require_image(compiled)
    with connected(host, namespace, ca_file) as cluster:
        repeat(cluster, package, experiment, name, new_experiment, cron)


if __name__ == "__main__":
    launch(
        app,
        "train_eval.py",
        "stopped; a run that was submitted goes on in the cluster, "
        "the same `local` goes on from what was recorded",
    )

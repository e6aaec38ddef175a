"""The `hierrouter` command: one function of the library a command, one line on failure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hierrouter import __version__
from hierrouter.cli import serving_commands, tree_commands
from hierrouter.cli.compare import compare
from hierrouter.cli.launch import launch
from hierrouter.cli.options import (
    ConfigFile,
    MaxDollars,
    Out,
    Overrides,
    RouterFolder,
    TreeFolder,
    TreeOut,
)
from hierrouter.files import folder_at
from hierrouter.progress import say

# Commands import what they need when they run, so that `--help` answers at once.

app = typer.Typer(
    help="Learns which small language model to call at each hop of a query.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tree_commands.app, name="tree")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hierrouter {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: ConfigFile,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; default runs/<config's name>.")
    ] = None,
    tree: Annotated[
        Path | None,
        typer.Option(
            "--tree",
            metavar="DIR",
            parser=folder_at,
            help="A recorded tree to use as it is, instead of recording one.",
        ),
    ] = None,
    live: Annotated[
        int, typer.Option("--live", min=0, help="Fresh queries to answer with it at the end.")
    ] = 0,
    overrides: Overrides = None,
) -> None:
    """Sample, collect, train, evaluate and register; goes on where it stopped."""
    from hierrouter.cli.run import run_all
    from hierrouter.configfile import load_config

    loaded = load_config(config, overrides or [], any_pool=tree is not None)
    run_all(loaded, out or Path("runs") / config.stem, tree, live)


@app.command()
def sample(
    config: ConfigFile,
    out: Out,
    tree: Annotated[
        Path | None,
        typer.Option(
            "--tree",
            metavar="DIR",
            parser=folder_at,
            help="Take the questions from where those of this tree came from (mirror or hub).",
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Choose the queries: queries.parquet."""
    from hierrouter.configfile import load_config
    from hierrouter.data.sample import sample_queries
    from hierrouter.routes.tree import read_info

    data = load_config(config, overrides or [], any_pool=True).data
    recorded = None if tree is None else read_info(tree)["data"].get("tasks")
    sample_queries(data, out, recorded)


@app.command()
def collect(
    config: ConfigFile,
    queries: Annotated[Path, typer.Option("--queries", help="queries.parquet, or its folder.")],
    out: TreeOut,
    per_task: Annotated[
        int | None,
        typer.Option("--per-task", min=1, help="Only the first so many queries of each task."),
    ] = None,
    direct: Annotated[bool, typer.Option("--direct", help="Only direct answers.")] = False,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only this recorder's share, from 0/N.")
    ] = "0/1",
    part_size: Annotated[
        int | None,
        typer.Option(
            "--part-size",
            min=1,
            help="Finish so many queries of each task at a time, direct answers first.",
        ),
    ] = None,
    max_dollars: MaxDollars = None,
    overrides: Overrides = None,
) -> None:
    """Record the route tree: every reply once; goes on where it stopped."""
    from hierrouter.configfile import load_config
    from hierrouter.routes.calls import Part, Shard
    from hierrouter.routes.collect import collect_routes

    part = Part(per_task, direct, Shard.parse(shard))
    pool = load_config(config, overrides or []).pool
    collect_routes(pool, queries, out, part, part_size, max_dollars)


@app.command()
def plan(
    config: ConfigFile,
    tree: Annotated[
        Path | None,
        typer.Option(
            "--tree",
            metavar="DIR",
            parser=folder_at,
            help="Estimate from what this tree of the pool has recorded.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="queries.parquet, or its folder; default: the tree's own."),
    ] = None,
    per_task: Annotated[
        int | None,
        typer.Option("--per-task", min=1, help="Only the first so many queries of each task."),
    ] = None,
    direct: Annotated[bool, typer.Option("--direct", help="Only direct answers.")] = False,
    accelerators: Annotated[
        int, typer.Option("--accelerators", min=1, help="How many record side by side.")
    ] = 1,
    machine: Annotated[
        Literal["cpu", "openvino", "cuda"] | None,
        typer.Option("--on", help="What will run the models; default: this, or the tree's."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what recording will take: nodes, tokens, hours, dollars, storage."""
    from hierrouter.cli.plan import print_plan
    from hierrouter.configfile import load_config
    from hierrouter.routes.calls import Part

    loaded = load_config(config, overrides or [])
    # What training fills in by itself is not recorded in advance.
    part = Part(per_task, direct or loaded.training.fill)
    print_plan(loaded, tree, queries, part, accelerators, machine)


@app.command()
def train(
    config: ConfigFile,
    tree: TreeFolder,
    out: Out,
    max_dollars: MaxDollars = None,
    overrides: Overrides = None,
) -> None:
    """Train a router with PPO on a route tree; with training.fill it records what it visits."""
    from hierrouter.configfile import load_config
    from hierrouter.evaluation.forewarn import forewarn
    from hierrouter.learning.train import train_router
    from hierrouter.routes.tree import pool_of

    loaded = load_config(config, overrides or [], any_pool=True)
    pool = pool_of(tree, loaded.pool)
    look = forewarn(loaded.training, loaded.evaluation)
    train_router(loaded.training, tree, out, max_dollars, look, pool)


@app.command()
def evaluate(
    config: ConfigFile,
    tree: TreeFolder,
    router: RouterFolder,
    out: Out,
    max_dollars: MaxDollars = None,
    overrides: Overrides = None,
) -> None:
    """Judge a router and its baselines on the test queries."""
    from hierrouter.configfile import load_config
    from hierrouter.evaluation.evaluate import METRICS, REPORT, evaluate_router
    from hierrouter.evaluation.table import print_table
    from hierrouter.files import read_json
    from hierrouter.routes.tree import pool_of

    loaded = load_config(config, overrides or [], any_pool=True)
    pool = pool_of(tree, loaded.pool)
    evaluate_router(loaded.evaluation, tree, router, out, max_dollars, pool)
    print_table(read_json(out / METRICS))
    say(f"report: {out / REPORT}")


@app.command()
def register(
    router: RouterFolder,
    evaluation: Annotated[Path, typer.Option("--evaluation", help="Folder of its evaluation.")],
    tree: Annotated[
        Path | None,
        typer.Option(
            "--tree",
            metavar="DIR",
            parser=folder_at,
            help="Its route tree: for the dataset inputs, and to play the champion on.",
        ),
    ] = None,
) -> None:
    """Log a router and its evaluation to MLflow; the better one is champion."""
    from hierrouter.config import EvaluationConfig
    from hierrouter.errors import DamagedFileError
    from hierrouter.evaluation.evaluate import MARKER
    from hierrouter.evaluation.kept import kept_config
    from hierrouter.files import read_json
    from hierrouter.tracking.register import register_router

    made = read_json(evaluation / MARKER)
    if not isinstance(made, dict) or "evaluation" not in made:
        raise DamagedFileError(f"{evaluation / MARKER} is no evaluation of ours; evaluate again")
    file, remedy = evaluation / MARKER, "evaluate the router again"
    config = kept_config(EvaluationConfig, made["evaluation"], file, remedy)
    register_router(config, router, evaluation, tree)


app.command()(compare)


@app.command("import-outcomes")
def import_outcomes_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Outcomes: .csv, .jsonl (also .gz) or .parquet.")
    ],
    out: Out,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Encoder, split, models and rates; default: the defaults."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Not every query has an outcome of every model.")
    ] = False,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings",
            metavar="FILE",
            help="Vectors of the prompts (.parquet or .npy), so that no encoder runs.",
        ),
    ] = None,
    same_encoder: Annotated[
        bool, typer.Option("--same-encoder", help="Those vectors are the config's encoder's.")
    ] = False,
    encoder_name: Annotated[
        str | None,
        typer.Option(
            "--encoder-name", metavar="TEXT", help="Else: what the encoder of those is called."
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Make a tree of direct answers from anybody's logs with scores and costs."""
    from hierrouter.configfile import load_config
    from hierrouter.errors import ConfigError
    from hierrouter.routes.imported.importing import import_outcomes

    if config is None and overrides:
        raise ConfigError("--set changes a config; name one with --config")
    loaded = None if config is None else load_config(config, overrides or [], any_pool=True)
    import_outcomes(file, out, loaded, partial, embeddings, same_encoder, encoder_name)


@app.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Also look at this config's models and endpoints."),
    ] = None,
) -> None:
    """Say what is reachable: processor, disk, hub, mirror, MLflow, Kubeflow, versions."""
    from hierrouter.cli.doctor import examine
    from hierrouter.configfile import load_config

    examine(None if config is None else load_config(config, any_pool=True))


@app.command(name="config")
def config_command(
    file: Annotated[
        Path | None, typer.Option("--config", help="Check this file and print it in full.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every key: type, default, meaning.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Explain the configuration's keys, or print a config with all its defaults."""
    from hierrouter.cli.explain import print_keys
    from hierrouter.configfile import dump_config, load_config
    from hierrouter.errors import ConfigError

    if explain:
        print_keys()
    if file is not None:
        typer.echo(dump_config(load_config(file, overrides or [], any_pool=True)), nl=False)
    elif not explain:
        raise ConfigError("say --explain for all keys, or --config FILE to print one in full")


# After the stages, so that `--help` lists commands in the order in which they are used.
app.add_typer(serving_commands.app)


def main() -> None:
    """Runs the command line."""
    launch(app, "hierrouter")


if __name__ == "__main__":
    main()

"""The `hierrouter` command: one function of the library a command, one line on failure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hierrouter import __version__
from hierrouter.cli.launch import launch
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
tree_app = typer.Typer(help="Look after a route tree.", no_args_is_help=True)
app.add_typer(tree_app, name="tree")

ConfigFile = Annotated[Path, typer.Option("--config", help="The experiment's YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value, e.g. training.seed=7."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the result: new, empty or ours.")]
TREE_HELP = "Folder of a route tree, or an address such as s3://bucket/tree."
TreeFolder = Annotated[
    Path, typer.Option("--tree", metavar="DIR", parser=folder_at, help=TREE_HELP)
]
TreeOut = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        parser=folder_at,
        help="Folder of the tree, new, empty or ours, or an address such as s3://bucket/tree.",
    ),
]
TreeArgument = Annotated[Path, typer.Argument(metavar="DIR", parser=folder_at, help=TREE_HELP)]
MaxDollars = Annotated[
    float | None, typer.Option("--max-dollars", min=0, help="Stop before these calls cost more.")
]
RouterFolder = Annotated[Path, typer.Option("--router", help="Folder of a router.")]
EndpointKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint-key",
        metavar="VARIABLE",
        help="A variable whose key may go to the servers that the router names.",
    ),
]
RouterUri = Annotated[
    str, typer.Option("--router", help="Folder of a router, or models:/hierrouter@champion.")
]


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

    run_all(load_config(config, overrides or []), out or Path("runs") / config.stem, tree, live)


@app.command()
def sample(config: ConfigFile, out: Out, overrides: Overrides = None) -> None:
    """Choose the queries: queries.parquet."""
    from hierrouter.configfile import load_config
    from hierrouter.data.sample import sample_queries

    sample_queries(load_config(config, overrides or []).data, out)


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
    from hierrouter.learning.train import train_router
    from hierrouter.routes.tree import refuse_other_members

    loaded = load_config(config, overrides or [])
    refuse_other_members(tree, loaded.pool)
    train_router(loaded.training, tree, out, max_dollars)


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
    from hierrouter.routes.tree import refuse_other_members

    loaded = load_config(config, overrides or [])
    refuse_other_members(tree, loaded.pool)
    evaluate_router(loaded.evaluation, tree, router, out, max_dollars)
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
            help="Its route tree, for the dataset inputs.",
        ),
    ] = None,
) -> None:
    """Log a router and its evaluation to MLflow and register it as challenger."""
    from hierrouter.config import EvaluationConfig
    from hierrouter.errors import DamagedFileError
    from hierrouter.evaluation.evaluate import MARKER
    from hierrouter.files import read_json
    from hierrouter.tracking.register import register_router

    made = read_json(evaluation / MARKER)
    if not isinstance(made, dict) or "evaluation" not in made:
        raise DamagedFileError(f"{evaluation / MARKER} is no evaluation of ours; evaluate again")
    register_router(EvaluationConfig.model_validate(made["evaluation"]), router, evaluation, tree)


@app.command()
def serve(
    router: RouterUri,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0: any that is free.")
    ] = 8080,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0, help="Alpha where a request names none.")
    ] = 0.1,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="NAME=URL",
            help="A server (…/v1) that answers for a model of the pool; for several, repeat it.",
        ),
    ] = None,
    endpoint_keys: EndpointKeys = None,
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File with the keys that clients must send, one a line."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Listen to others without asking for a key.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="What the router is called in requests.")
    ] = "hierrouter",
    max_requests: Annotated[
        int, typer.Option("--max-requests", min=1, help="Requests at once; more get 429.")
    ] = 128,
    max_body_kb: Annotated[
        int, typer.Option("--max-body-kb", min=1, help="Longest request, in 1,000 bytes.")
    ] = 1000,
    grace: Annotated[
        int, typer.Option("--grace", min=0, help="Seconds for requests under way at the end.")
    ] = 60,
    playground: Annotated[
        bool, typer.Option("--playground/--no-playground", help="Serve the page /playground.")
    ] = True,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Log and trace questions and answers, too.")
    ] = False,
    trace_share: Annotated[
        float,
        typer.Option("--trace-share", min=0, max=1, help="Share of requests traced in MLflow."),
    ] = 0.0,
) -> None:
    """Serve a router with its pool behind KServe's and OpenAI's interfaces."""
    from hierrouter.cli.ask import router_folder
    from hierrouter.serving.serve import ServeSettings
    from hierrouter.serving.serve import serve as serve_router

    settings = ServeSettings(
        host=host,
        port=port,
        name=name,
        alpha=alpha,
        keys=api_keys,
        no_auth=no_auth,
        endpoints=tuple(endpoints or ()),
        endpoint_keys=tuple(endpoint_keys or ()),
        most_requests=max_requests,
        most_bytes=max_body_kb * 1000,
        grace_s=grace,
        playground=playground,
        log_texts=log_texts,
        trace_share=trace_share,
    )
    serve_router(router_folder(router), settings)


@app.command()
def manifests(
    config: ConfigFile,
    out: Out,
    router: Annotated[
        str, typer.Option("--router", help="The registered version, models:/hierrouter/3.")
    ],
    mlflow_uri: Annotated[
        str, typer.Option("--mlflow-uri", help="Where it is registered, as pods reach it.")
    ],
    image: Annotated[
        str,
        typer.Option("--image", envvar="HIERROUTER_IMAGE", help="The project's image, by digest."),
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", help="Namespace of the objects.")
    ] = "hierrouter",
    keys_secret: Annotated[
        str,
        typer.Option("--keys-secret", help="Secret with the clients' keys: HIERROUTER_API_KEYS."),
    ] = "hierrouter-api-keys",
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="What each model asks for, such as amd.com/gpu.")
    ] = "nvidia.com/gpu",
    accelerators: Annotated[
        int, typer.Option("--accelerators", min=0, help="How many; 0: models run on processors.")
    ] = 1,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, help="Seconds for a request; above all deadlines.")
    ] = 600,
    all_in_one: Annotated[
        bool, typer.Option("--all-in-one", help="One pod for router and models, on processors.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Write the KServe objects that serve a registered router and its pool."""
    from hierrouter.configfile import load_config
    from hierrouter.serving.manifest_settings import ManifestSettings
    from hierrouter.serving.manifests import write_manifests

    settings = ManifestSettings(
        router=router,
        mlflow_uri=mlflow_uri,
        image=image,
        namespace=namespace,
        keys_secret=keys_secret,
        accelerator=accelerator,
        accelerators=accelerators,
        timeout_s=timeout,
        all_in_one=all_in_one,
    )
    write_manifests(load_config(config, overrides or []).pool, settings, out)


@app.command()
def fetch(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
    ],
    dest: Annotated[
        Path, typer.Argument(metavar="DEST", help="Folder for it: new, empty or a router's.")
    ],
) -> None:
    """Copy a registered router from MLflow into a folder; none of its code is run."""
    from hierrouter.errors import ConfigError
    from hierrouter.tracking.resolve import SCHEME, fetch_router

    if not source.startswith(SCHEME):
        raise ConfigError(f"{source}: name models:/NAME@ALIAS or models:/NAME/VERSION")
    fetch_router(source, dest)
    say(f"router: {dest}")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to answer.")],
    router: RouterUri,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0, help="Quality given up for one cost unit saved.")
    ] = 0.1,
    show_replies: Annotated[
        bool, typer.Option("--replies", help="Also print the earlier hops' replies.")
    ] = False,
    endpoint_keys: EndpointKeys = None,
) -> None:
    """Answer one question with a trained router, and show the path it took."""
    from hierrouter.cli.ask import ask_once

    ask_once(question, router, alpha, show_replies, endpoint_keys or ())


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

    examine(None if config is None else load_config(config))


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
        typer.echo(dump_config(load_config(file, overrides or [])), nl=False)
    elif not explain:
        raise ConfigError("say --explain for all keys, or --config FILE to print one in full")


@tree_app.command("info")
def tree_info(
    tree: TreeArgument,
    per_task: Annotated[
        int | None,
        typer.Option("--per-task", min=1, help="Direct answers of the first so many a task only."),
    ] = None,
) -> None:
    """Say what a tree holds: queries, nodes, tokens, cost, how good its direct answers are."""
    from hierrouter.cli.trees import print_info

    print_info(tree, per_task)


@tree_app.command("verify")
def tree_verify(
    tree: TreeArgument,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also compute each generation key anew (tokenizers).")
    ] = False,
) -> None:
    """Check that all of a tree can be read and fits together."""
    from hierrouter.cli.trees import verify

    verify(tree, keys)


@tree_app.command("merge")
def tree_merge(
    trees: Annotated[
        list[Path], typer.Argument(metavar="DIR…", parser=folder_at, help="Trees, such as shards.")
    ],
    out: TreeOut,
) -> None:
    """Add the nodes of trees to one; they stay as they are."""
    from hierrouter.routes.upkeep import merge_trees

    merge_trees(trees, out)


@tree_app.command("compact")
def tree_compact(tree: TreeArgument) -> None:
    """Join a tree's small files into few large ones."""
    from hierrouter.routes.upkeep import compact_tree

    compact_tree(tree)


@tree_app.command("rescore")
def tree_rescore(
    tree: TreeArgument,
    config: Annotated[
        Path | None, typer.Option("--config", help="Take rates from this config's pool.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Score every answer again, generating none: after a rate or the scorers have changed."""
    from hierrouter.cli.trees import rescore
    from hierrouter.configfile import load_config
    from hierrouter.errors import ConfigError

    if config is None and overrides:
        raise ConfigError("--set changes a config; name one with --config")
    rescore(tree, None if config is None else load_config(config, overrides or []).pool)


def main() -> None:
    """Runs the command line."""
    launch(app, "hierrouter")


if __name__ == "__main__":
    main()

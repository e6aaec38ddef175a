"""Commands that look after a route tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierrouter.cli.options import Overrides, TreeArgument, TreeOut
from hierrouter.files import folder_at

app = typer.Typer(help="Look after a route tree.", no_args_is_help=True)


@app.command("info")
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


@app.command("verify")
def tree_verify(
    tree: TreeArgument,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also compute each generation key anew (tokenizers).")
    ] = False,
) -> None:
    """Check that all of a tree can be read and fits together."""
    from hierrouter.cli.trees import verify

    verify(tree, keys)


@app.command("merge")
def tree_merge(
    trees: Annotated[
        list[Path], typer.Argument(metavar="DIR…", parser=folder_at, help="Trees, such as shards.")
    ],
    out: TreeOut,
) -> None:
    """Add the nodes of trees to one; they stay as they are."""
    from hierrouter.routes.upkeep import merge_trees

    merge_trees(trees, out)


@app.command("compact")
def tree_compact(tree: TreeArgument) -> None:
    """Join a tree's small files into few large ones."""
    from hierrouter.routes.upkeep import compact_tree

    compact_tree(tree)


@app.command("rescore")
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

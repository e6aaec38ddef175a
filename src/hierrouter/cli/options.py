"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierrouter.files import folder_at

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

"""Joins the shards to one route tree."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def merge_routes(shards: list[str], tree: dsl.Output[dsl.Dataset]) -> None:
    """Joins the recorded shards to one route tree, scored and embedded.

    Args:
        shards: Where the shards' trees lie.
        tree: The folder of the route tree.
    """
    from pathlib import Path

    from hierrouter.stages.collect import merge_shards

    tree.metadata.update(merge_shards(shards, Path(tree.path)))

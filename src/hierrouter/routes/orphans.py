"""Nodes whose analyses were lost: what an analysis says when it is made anew may differ."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError
from hierrouter.progress import say
from hierrouter.routes.nodes import NodeKey, read_nodes

if TYPE_CHECKING:
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree


def take_out_orphans(tree: RouteTree) -> list[Node]:
    """Takes nodes out of a tree that stand on an analysis which was lost with a damaged file.

    Args:
        tree: the tree, opened for recording.

    Returns:
        These nodes, and those of earlier times that are kept as `.orphans`. Each is good again
        where its prompt turns out to be the same: what is to be asked then has its generation key.
    """
    folder = tree.folder / "nodes"
    if any(folder.glob("*.damaged")):
        places = {node.place for node in tree.nodes.stream() if _is_orphan(node, tree)}
        if places:
            say(
                f"{len(places)} nodes stand on analyses that were lost with a damaged file; they "
                "are made anew unless those come out the same"
            )
            tree.take_out(places)
    kept: list[Node] = []
    for path in sorted(folder.glob("*.orphans")):
        # What cannot be read back is only made again.
        with contextlib.suppress(HierRouterError):
            kept += tree.quotes.put_back(read_nodes(path))
    return kept


def _is_orphan(node: Node, tree: RouteTree) -> bool:
    before = (
        NodeKey(node.query_id, node.models[:depth], "analyze")
        for depth in range(1, len(node.models))
    )
    return any(place not in tree.nodes for place in before)

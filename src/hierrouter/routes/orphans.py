"""Nodes whose analyses were lost: what an analysis says when it is made anew may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.progress import say
from hierrouter.routes.nodes import NodeKey

if TYPE_CHECKING:
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree


def take_out_orphans(tree: RouteTree) -> list[Node]:
    """Takes nodes out of a tree that stand on an analysis which was lost with a damaged file.

    Args:
        tree: the tree, opened for recording.

    Returns:
        The nodes. Each is good again where its prompt turns out to be the same: what is to be
        asked then has its generation key.
    """
    if not any((tree.folder / "nodes").glob("*.damaged")):
        return []
    orphans = [node for node in tree.nodes.stream() if _is_orphan(node, tree)]
    if orphans:
        say(
            f"{len(orphans)} nodes stand on analyses that were lost with a damaged file; they are "
            "made anew unless those come out the same"
        )
        tree.take_out({node.place for node in orphans})
    return orphans


def _is_orphan(node: Node, tree: RouteTree) -> bool:
    before = (
        NodeKey(node.query_id, node.models[:depth], "analyze")
        for depth in range(1, len(node.models))
    )
    return any(place not in tree.nodes for place in before)

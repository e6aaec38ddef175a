"""What tells, without reading a reply, whether a tree holds other nodes than it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.files import digest_of, is_remote

if TYPE_CHECKING:
    from hierrouter.routes.tree import RouteTree


def nodes_mark(tree: RouteTree) -> str | None:
    """A digest of the names and sizes of a tree's files of nodes, which are never rewritten.

    Returns:
        None in an object store, where asking for every size takes long.
    """
    if is_remote(tree.folder):
        return None
    return digest_of([[path.name, path.stat().st_size] for path in tree.nodes.files()])

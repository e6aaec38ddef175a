"""Adding nodes to a tree, so that a store that fails does not cost what was paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.catalogue import home
from hierrouter.errors import BusyError, HierRouterError
from hierrouter.files import is_remote, reason_of, sha256_text
from hierrouter.progress import say
from hierrouter.routes.nodes import name_of, read_nodes, write_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree


class Commits:
    """Adds nodes to a tree; those that it does not take wait on this machine until it does."""

    def __init__(self, tree: RouteTree) -> None:
        """Reads nothing yet.

        Args:
            tree: the tree.
        """
        self._tree = tree
        where = str(tree.folder if is_remote(tree.folder) else tree.folder.resolve())
        self._folder = home() / "unsaved" / sha256_text(where)[:16]
        self._waiting: dict[Path, list[Node]] | None = None
        self.failed = False
        """Whether the tree did not take nodes; then it is not tried again."""

    def add(self, name: str, nodes: Sequence[Node]) -> bool:
        """Adds nodes as one file, all or none.

        Args:
            name: a prefix that tells a person what the file holds.
            nodes: the new nodes.

        Returns:
            Whether they are in the tree.

        Raises:
            BusyError: replies of another process stand at their places; theirs are of no use.
            HierRouterError: the first time that they are not; they are kept.
        """
        if self.failed:
            self._put(name, nodes)
            return False
        try:
            self._tree.commit(name, nodes)
        except BusyError:
            self.failed = True
            raise
        except Exception as error:
            self.failed = True
            self._put(name, nodes)
            if isinstance(error, HierRouterError):
                raise
            raise HierRouterError(
                f"{self._tree.folder} did not take what was answered ({reason_of(error)}); mend "
                "what is wrong, then run the same command again"
            ) from error
        self._forget()
        return True

    def unsaved(self) -> list[Node]:
        """Nodes that an earlier process could not add; files whose nodes all are there now go."""
        if self._waiting is None:
            self._waiting = {}
            for path in sorted(self._folder.glob("[!.]*.parquet")):
                try:
                    self._waiting[path] = read_nodes(path)
                except HierRouterError as error:
                    say(f"replies that were kept are left out: {error}")
            self._forget()
        return [node for nodes in self._waiting.values() for node in nodes]

    def _put(self, name: str, nodes: Sequence[Node]) -> None:
        path = self._folder / name_of(name, nodes)
        try:
            write_nodes(path, nodes)
        except Exception as error:  # what stopped the commit is what is to be said at the end
            say(
                f"{len(nodes)} replies are lost, as they cannot be kept elsewhere either "
                f"({reason_of(error)})"
            )
            return
        say(
            f"{len(nodes)} replies could not be added to the tree and are kept in {path}: the same "
            "command, on this machine, adds them and does not ask for them again"
        )

    def _forget(self) -> None:
        there = self._tree.nodes
        for path, nodes in list((self._waiting or {}).items()):
            if self._waiting and all(node.place in there for node in nodes):
                path.unlink(missing_ok=True)
                del self._waiting[path]

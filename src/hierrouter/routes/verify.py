"""Checking a recorded tree: that all of it can be read, and that it fits together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.config import PoolConfig
from hierrouter.data.queries import digest_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.pool.prompts import limit_for
from hierrouter.progress import Progress
from hierrouter.routes.calls import Call
from hierrouter.routes.embed import embeddings_folder, read_embeddings
from hierrouter.routes.imported.store import is_imported
from hierrouter.routes.imported.verify import verify_imported
from hierrouter.routes.maker import Maker
from hierrouter.routes.nodes import NodeKey, recorded_nodes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree, read_info, read_retired

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.data.queries import Query
    from hierrouter.routes.nodes import Node

NAMED = 3
"""Most places that are named for each kind of fault."""


def verify_tree(folder: Path, keys: bool = False) -> list[str]:
    """Looks at every node of a tree.

    Every file is read whole (its checksums with it); every node must belong to a known query and
    model, stand on analyses that are there, and keep to its limit; nodes of one generation must
    have one reply; scores must be of these nodes, and embeddings readable.

    Args:
        folder: the tree.
        keys: whether each node's generation key is computed anew from its prompt, which needs the
            models' tokenizers.

    Returns:
        What is wrong, a line each; nothing if all is well.

    Raises:
        HierRouterError: there is no tree in `folder`.
    """
    info = read_info(folder)
    if is_imported(info):
        return verify_imported(folder, info)
    try:
        tree = RouteTree(folder)
        faults = _faulty_nodes(tree, keys)
    except DamagedFileError as error:
        return [str(error)]
    return [*faults, *_faulty_scores(tree), *_faulty_embeddings(tree)]


def _faulty_nodes(tree: RouteTree, keys: bool) -> list[str]:
    pool = PoolConfig.model_validate(tree.info["pool"])
    specs = {spec.name: spec for spec in (*pool.models, *pool.references)}
    queries = {query.query_id: query for query in (*read_retired(tree.folder), *tree.queries)}
    replies: dict[str, int] = {}
    maker = Maker(tree, pool)
    faults: dict[str, list[str]] = {}
    with Progress("verifying", len(tree.nodes), "nodes") as progress:
        for node in tree.nodes.stream():
            kinds = _faults_of(node, tree, queries)
            if replies.setdefault(node.key, hash(node.reply)) != hash(node.reply):
                kinds.append("another reply than another node of the same generation")
            spec = specs.get(node.models[-1])
            if spec is not None and node.query_id in queries and not kinds:
                query = queries[node.query_id]
                if node.tokens_out > limit_for(spec, node.role, query.task):
                    kinds.append("longer than its limit")
                call = Call(query, node.models, node.role, spec)
                if keys and maker.key_of(call) != node.key:
                    kinds.append("not made from the prompt that stands there now")
            for kind in kinds:
                faults.setdefault(kind, []).append(_named(node.place))
            progress.advance(1)
    twice = recorded_nodes(tree.folder) - len(tree.nodes)
    lines = [_line(kind, places) for kind, places in sorted(faults.items())]
    if twice:
        lines.append(
            f"{twice} nodes stand in two files; the first counts, `hierrouter tree compact` "
            "leaves one"
        )
    return lines


def _faults_of(node: Node, tree: RouteTree, queries: dict[str, Query]) -> list[str]:
    kinds = []
    if node.query_id not in queries:
        kinds.append("of a query that the tree does not have")
    if unknown := set(node.models) - tree.info["made"]["models"].keys():
        kinds.append(f"of a model that the tree does not have ({', '.join(sorted(unknown))})")
    before = (
        NodeKey(node.query_id, node.models[:depth], "analyze")
        for depth in range(1, len(node.models))
    )
    if any(place not in tree.nodes for place in before):
        kinds.append("without the analysis it was built on")
    return kinds


def _faulty_scores(tree: RouteTree) -> list[str]:
    remedy = f"run `hierrouter tree rescore {tree.folder}`"
    try:
        stamp, scores = read_scores(tree.folder)
    except HierRouterError as error:
        return [str(error)]
    if stamp.get("query_digest") != digest_queries(tree.queries):
        return [f"the scores are of other queries; {remedy}"]
    if stamp.get("tree_digest") != tree.digest():
        return [f"the scores ({len(scores)}) are of other nodes than are there now; {remedy}"]
    return []


def _faulty_embeddings(tree: RouteTree) -> list[str]:
    try:
        read_embeddings(embeddings_folder(tree))
    except DamagedFileError as error:
        return [str(error)]
    return []


def _line(kind: str, places: list[str]) -> str:
    others = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return f"{len(places)} node(s) {kind}: {', '.join(places[:NAMED])}{others}"


def _named(place: NodeKey) -> str:
    return f"{place.query_id} {':'.join(place.models)} {place.role}"

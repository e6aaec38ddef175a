"""Looking after recorded trees: several joined into one, small files joined into large ones."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from hierrouter.data.queries import read_queries, write_queries
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import atomic_path, claim_folder, digest_of, readable, write_json
from hierrouter.progress import Progress, say
from hierrouter.routes.embed import read_bytes
from hierrouter.routes.journal import merge_journals
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.made import refuse_other_pool
from hierrouter.routes.nodes import NodeKey, NodeWriter, name_of
from hierrouter.routes.scores import score_tree
from hierrouter.routes.store import NodeStore
from hierrouter.routes.tree import (
    QUERIES,
    RETIRED,
    RouteTree,
    read_info,
    read_recorded,
    read_retired,
    withheld_tasks,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from hierrouter.routes.nodes import Node

CHUNK = 16_384
"""Nodes that are held in memory at a time."""
FILE_ROWS = 1_000_000
"""Most nodes of a joined file."""


def merge_trees(sources: Sequence[Path], out: Path, only: Collection[str] | None = None) -> Path:
    """Adds the nodes and embeddings of trees, such as shards of one, to the tree in `out`.

    The sources stay as they are. What is in `out` already is not added again, so that the same
    call goes on after an interruption and shards can be added as they finish.

    Args:
        sources: folders of trees that were recorded with one pool and one sample.
        out: new, empty, or the folder of a tree of the same pool and sample.
        only: nodes of these queries only; none: of all.

    Returns:
        `out`. Answers that a source has scored are not scored again.

    Raises:
        ConfigError: the trees differ in what their replies depend on, or in their queries.
        DamagedFileError: a file of a source cannot be read back.
    """
    infos = [read_recorded(source) for source in sources]
    claim_folder(out, "tree.json")
    with sole_writer(out):
        known = [read_recorded(out)] if (out / "tree.json").exists() else []
        info = _joined([out] * len(known) + list(sources), [*known, *infos])
        if known != [info]:
            write_json(out / "tree.json", info)
        for source in sources:
            _take_queries(source, out)
        tree = RouteTree(out, set_aside=True)
        for source in sources:
            nodes = NodeStore(source / "nodes", quotes=tree.quotes)
            added, other = _take_nodes(nodes, tree.nodes, only)
            vectors = _take_embeddings(source, out)
            say(f"{source}: {added} nodes and {vectors} files of embeddings added")
            if other:
                say(
                    f"{source}: {other} nodes left out, as they were built on another reply than "
                    f"the analysis that {out} has; collect makes them on that one"
                )
        merge_journals(list(sources), out)
        tree = RouteTree(out)
        score_tree(tree, others=sources)
    say(f"{out}: {len(tree.nodes)} nodes of {len(tree.queries)} queries")
    return out


def compact_tree(folder: Path) -> None:
    """Joins a tree's files of nodes and of embeddings into few; nothing else changes.

    The joined file is there before what it holds is removed, so an interruption leaves at most
    a node twice, which counts once.

    Raises:
        HierRouterError: there is no tree in `folder`, or the disk is full.
        DamagedFileError: a file cannot be read back.
    """
    info = read_info(folder)
    with sole_writer(folder):
        # Only what is withheld takes the questions to join.
        store = RouteTree(folder).nodes if withheld_tasks(info) else NodeStore(folder / "nodes")
        files = store.files()
        with Progress("joining", len(files), "files") as progress:
            for group in _groups(files):
                if len(group) > 1:
                    _join_nodes(store, group)
                progress.advance(len(group))
        left = len(NodeStore(folder / "nodes").files())
        say(f"{folder}: {len(files)} files of nodes are {left} now")
        for vectors in sorted((folder / "embeddings").glob("*")):
            parts = sorted(vectors.glob("[!.]*.parquet"))
            if len(parts) > 1:
                _join_embeddings(parts)
                say(f"{vectors}: {len(parts)} files of embeddings are 1 now")


def _joined(folders: Sequence[Path], infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`tree.json` of trees taken together: that of the first, with the models of all."""
    first, *others = infos
    made, provenance, pool = first["made"], first["provenance"], first["pool"]
    for folder, other in zip(folders[1:], others, strict=True):
        refuse_other_pool(folders[0], made, other["made"])
        if other["query_digest"] != first["query_digest"]:
            raise ConfigError(
                f"{folder} holds other queries than {folders[0]}; merge trees of one sample "
                "(the same data part of the config)"
            )
        made = {**made, "models": {**other["made"]["models"], **made["models"]}}
        provenance = {**other["provenance"], **provenance}
        pool, same = _pools_joined(pool, other["pool"])
        if not same:
            say(f"{folder} was recorded with other rates or settings; those of {folders[0]} stay")
    return {**first, "made": made, "provenance": provenance, "pool": pool}


def _pools_joined(pool: dict[str, Any], other: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A pool with the models of another, and whether they describe the models of both alike."""
    parts = ("models", "references")
    known = {spec["name"]: spec for part in parts for spec in pool[part]}
    same = all(known.get(spec["name"], spec) == spec for part in parts for spec in other[part])
    joined = {
        part: [*pool[part], *(spec for spec in other[part] if spec["name"] not in known)]
        for part in parts
    }
    return {**pool, **joined}, same


def _take_queries(source: Path, out: Path) -> None:
    if not (out / QUERIES).exists():
        # A tree that was passed on without its questions takes them from their source.
        with contextlib.suppress(HierRouterError):
            write_queries(out / QUERIES, read_queries(source / QUERIES))
    earlier = read_retired(out)
    known = {query.query_id for query in earlier}
    more = [query for query in read_retired(source) if query.query_id not in known]
    if more:
        write_queries(out / RETIRED, [*earlier, *more])


def _take_nodes(
    source: NodeStore, store: NodeStore, only: Collection[str] | None
) -> tuple[int, int]:
    """Adds what is missing; how many nodes that were, and how many were left out."""
    added = other = 0
    with Progress("merging", len(source), "nodes") as progress:
        for path in source.files():
            nodes = source.stream({path})
            first = True
            while chunk := list(islice(nodes, CHUNK)):
                missing = [
                    node
                    for node in chunk
                    if node.place not in store and (only is None or node.query_id in only)
                ]
                fresh = [node for node in missing if _on_same_replies(node, source, store)]
                added, other = added + len(fresh), other + len(missing) - len(fresh)
                if fresh:
                    # A file that is taken as it is keeps its name.
                    whole = first and len(fresh) == len(chunk)
                    stem = path.name.removesuffix(".parquet")
                    store.append(path.name if whole else name_of(stem, fresh), fresh)
                first = False
                progress.advance(len(chunk))
    return added, other


def _on_same_replies(node: Node, source: NodeStore, store: NodeStore) -> bool:
    """Whether the analyses before a node are those that `store` has, as far as it has them."""
    for depth in range(1, len(node.models)):
        before = NodeKey(node.query_id, node.models[:depth], "analyze")
        here, there = store.get(before), source.get(before)
        if here is not None and there is not None and here.reply != there.reply:
            return False
    return True


def _take_embeddings(source: Path, out: Path) -> int:
    taken = 0
    for path in sorted((source / "embeddings").glob("*/[!.]*.parquet")):
        target = out / "embeddings" / path.parent.name / path.name
        if not target.exists():
            with atomic_path(target) as temporary:
                temporary.write_bytes(path.read_bytes())
            taken += 1
    return taken


def _groups(files: Sequence[Path]) -> list[list[Path]]:
    """Neighbouring files that fit into one."""
    groups: list[list[Path]] = []
    rows = FILE_ROWS
    for path in files:
        count = pq.read_metadata(readable(path)).num_rows
        if rows + count > FILE_ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(path)
        rows += count
    return groups


def _join_nodes(store: NodeStore, group: Sequence[Path]) -> None:
    first, last = (path.name.split("-")[0] for path in (group[0], group[-1]))
    name = f"{first}-to-{last}-{digest_of([path.name for path in group])[:8]}.parquet"
    with NodeWriter(group[0].with_name(name)) as writer:
        nodes = store.stream(set(group))
        while chunk := list(islice(nodes, CHUNK)):
            writer.add(store.as_stored(chunk))
    for path in group:
        path.unlink()


def _join_embeddings(parts: Sequence[Path]) -> None:
    name = f"{digest_of([path.name for path in parts])[:12]}.parquet"
    read_bytes(parts[0])
    with (
        atomic_path(parts[0].with_name(name)) as temporary,
        pq.ParquetWriter(temporary, pq.read_schema(readable(parts[0])), compression="zstd") as file,
    ):
        for path in parts:
            read_bytes(path)  # one that is damaged is named, and nothing is joined
            file.write_table(pq.read_table(readable(path)))
    for path in parts:
        path.unlink()

"""Embeddings of a tree's contexts, each distinct text encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.data.queries import digest_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import (
    atomic_path,
    digest_of,
    read_json,
    readable,
    sha256_text,
    write_json,
)
from hierrouter.progress import Progress, say
from hierrouter.routes.encoder import open_encoder
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.unchanged import nodes_mark
from hierrouter.routes.views import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import EncoderConfig
    from hierrouter.data.queries import Query
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree

PART = 128
"""Texts written together: at most so many are lost by a kill."""
AT_ONCE = 64
"""Texts encoded together."""
MARK = "embedded.json"
"""Says of which nodes every context was encoded."""
STEPS = 127
"""Whole numbers to each side of zero in which a vector is kept."""


def replies_of(
    nodes: Mapping[NodeKey, Node], query: Query, models: Sequence[str], role: Role
) -> list[tuple[Role, str]] | None:
    """The replies that stand in the context after a call, or None where one is not in `nodes`."""
    replies: list[tuple[Role, str]] = []
    for depth in range(1, len(models) + 1):
        each: Role = role if depth == len(models) else "analyze"
        node = nodes.get(NodeKey(query.query_id, tuple(models[:depth]), each))
        if node is None:
            return None
        replies.append((each, node.reply))
    return replies


def embed_tree(tree: RouteTree, config: EncoderConfig) -> None:
    """Encodes the contexts that have no vector yet: queries, analyses, and direct answers.

    Each distinct text is encoded once, whichever contexts and views it stands in. Where that was
    done for these very nodes, no reply is read.

    Args:
        tree: the tree; vectors go to its `embeddings/`.
        config: the encoder.
    """
    folder = embeddings_folder(tree)
    # Of a million vectors only the texts' digests are held.
    known: set[bytes] = set()
    for path in embedding_files(folder):
        try:
            known.update(map(bytes.fromhex, read_bytes(path)[0]))
        except DamagedFileError:
            say(f"{path} could not be read back; its contexts are encoded anew")
            path.unlink(missing_ok=True)
    if (mark := _mark(tree, config, folder)) is not None and mark == _marked(folder):
        return
    missing = sorted(
        {text for text in _texts(tree, config) if bytes.fromhex(sha256_text(text)) not in known},
        key=len,
        reverse=True,
    )
    if missing:
        _encode(tree, config, folder, missing)
    if (mark := _mark(tree, config, folder)) is not None and mark != _marked(folder):
        write_json(folder / MARK, mark)


def _mark(tree: RouteTree, config: EncoderConfig, folder: Path) -> dict[str, Any] | None:
    """What the texts of a tree follow from, and the files that hold their vectors."""
    nodes = nodes_mark(tree)
    if nodes is None:
        return None
    return {
        "nodes_mark": nodes,
        "query_digest": digest_queries(tree.queries),
        "models": [spec["name"] for spec in tree.info["pool"]["models"]],
        "views": list(config.views),
        "max_tokens": config.max_tokens,
        "files": [path.name for path in embedding_files(folder)],
    }


def _marked(folder: Path) -> Any:
    """The mark of when all was encoded; none where there is none."""
    try:
        return read_json(folder / MARK)
    except HierRouterError:
        return None


def _encode(tree: RouteTree, config: EncoderConfig, folder: Path, missing: Sequence[str]) -> None:
    encoder = open_encoder(config, tree.info["encoder"])
    with Progress("embedding", len(missing), "texts") as progress:
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            vectors = []
            for first in range(0, len(part), AT_ONCE):
                vectors.append(encoder.encode(part[first : first + AT_ONCE]))
                progress.advance(len(vectors[-1]))
            write_part(folder, part, np.concatenate(vectors))


def embeddings_folder(tree: RouteTree) -> Path:
    """Where the vectors of the tree's present encoder lie."""
    return tree.folder / "embeddings" / digest_of(tree.info["encoder"])[:12]


def read_embeddings(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Vectors by the SHA-256 of their text.

    Raises:
        DamagedFileError: a part cannot be read.
    """
    known: dict[str, NDArray[np.float32]] = {}
    for path in embedding_files(folder):
        known.update(_read_part(path))
    return known


def embedding_files(folder: Path) -> list[Path]:
    """The files of embeddings, in a fixed order."""
    return sorted(folder.glob("[!.]*.parquet"))


def _read_part(path: Path) -> dict[str, NDArray[np.float32]]:
    digests, scale, steps = read_bytes(path)
    return dict(zip(digests, steps * scale[:, None], strict=True))


def read_bytes(path: Path) -> tuple[list[str], NDArray[np.float32], NDArray[np.int8]]:
    """The N text digests of a file of embeddings, and their vectors as of `as_bytes`.

    Raises:
        DamagedFileError: it cannot be read.
    """
    try:
        table = pq.read_table(readable(path))
        digests = table["text_digest"].to_pylist()
        steps = table["vector"].combine_chunks().values.to_numpy()
        return digests, table["scale"].to_numpy(), steps.reshape(len(digests), -1)
    except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"{path} cannot be read back; run `hierrouter collect` or `hierrouter run` again: "
            "its contexts are encoded anew and no reply is generated"
        ) from error


def _texts(tree: RouteTree, config: EncoderConfig) -> Iterator[str]:
    """Every text of every recorded context, in all views."""
    pool: dict[str, Any] = tree.info["pool"]
    names = {spec["name"] for spec in pool["models"]}
    queries = {query.query_id: query for query in tree.queries}
    begun = set()
    for place in tree.nodes:
        query = queries.get(place.query_id)
        if query is None or not set(place.models) <= names:
            continue
        contexts: list[list[tuple[Role, str]] | None] = []
        if place.query_id not in begun:
            begun.add(place.query_id)
            contexts.append([])
        if place.role == "analyze" or len(place.models) == 1:
            contexts.append(replies_of(tree.nodes, query, place.models, place.role))
        for replies in contexts:
            if replies is not None:
                for view in config.views:
                    yield from texts_of(view, query.prompt, replies, config.max_tokens)


def as_bytes(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Vectors as whole numbers with one scale a row: cosines change by less than 1e-4.

    Args:
        vectors: N x D.

    Returns:
        N scales, and N x D whole numbers that times the scale are the vectors again.
    """
    scale = np.abs(vectors).max(axis=1) / STEPS
    steps = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return scale, steps


def write_part(folder: Path, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Keeps the vectors of N texts, N x D, as one file of a tree's embeddings."""
    write_vectors(folder, [sha256_text(text) for text in texts], vectors)


def write_vectors(folder: Path, digests: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """As `write_part`, of texts whose N digests are known."""
    scale, steps = as_bytes(vectors)
    table = pa.table(
        {
            "text_digest": pa.array(digests, pa.string()),
            "scale": pa.array(scale, pa.float32()),
            "vector": pa.FixedSizeListArray.from_arrays(steps.ravel(), vectors.shape[1]),
        }
    )
    with atomic_path(folder / f"{digest_of(list(digests))[:12]}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")

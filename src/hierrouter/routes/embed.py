"""Embeddings of a tree's contexts, each distinct text encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError
from hierrouter.files import atomic_path, digest_of, sha256_text
from hierrouter.pool.prompts import encoder_text
from hierrouter.progress import Progress, say
from hierrouter.routes.encoder import open_encoder
from hierrouter.routes.nodes import NodeKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import EncoderConfig
    from hierrouter.data.queries import Query
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.tree import RouteTree

VIEW = "paper"
PART = 512
"""Texts encoded and written together: at most so many are lost by a kill."""


def context_text(tree: RouteTree, query: Query, models: Sequence[str], role: Role) -> str | None:
    """The text of the context after a call, in the paper's view: the query and all replies.

    Returns:
        None where one of the calls is not recorded.
    """
    replies: list[tuple[Role, str]] = []
    for depth in range(1, len(models) + 1):
        each: Role = role if depth == len(models) else "analyze"
        node = tree.nodes.get(NodeKey(query.query_id, tuple(models[:depth]), each))
        if node is None:
            return None
        replies.append((each, node.reply))
    return encoder_text(query.prompt, replies)


def embed_tree(tree: RouteTree, config: EncoderConfig) -> None:
    """Encodes the contexts that have no vector yet: queries, analyses, and direct answers.

    Args:
        tree: the tree; vectors go to its `embeddings/`.
        config: the encoder.
    """
    folder = embeddings_folder(tree)
    for path in _parts(folder):
        try:
            _read_part(path)
        except DamagedFileError:
            say(f"{path} could not be read back; its contexts are encoded anew")
            path.unlink(missing_ok=True)
    known = read_embeddings(folder)
    missing = sorted(
        {text for text in _contexts(tree) if sha256_text(text) not in known}, key=len, reverse=True
    )
    if not missing:
        return
    encoder = open_encoder(config)
    with Progress("embedding", len(missing), "contexts") as progress:
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            vectors = []
            for first in range(0, len(part), 64):
                vectors.append(encoder.encode(part[first : first + 64]))
                progress.advance(len(vectors[-1]))
            _write_part(folder, part, np.concatenate(vectors))


def embeddings_folder(tree: RouteTree) -> Path:
    """Where the vectors of the tree's present encoder lie."""
    return tree.folder / "embeddings" / f"{VIEW}-{digest_of(tree.info['encoder'])[:8]}"


def read_embeddings(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Vectors by the SHA-256 of their text.

    Raises:
        DamagedFileError: a part cannot be read.
    """
    known: dict[str, NDArray[np.float32]] = {}
    for path in _parts(folder):
        known.update(_read_part(path))
    return known


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.parquet"))


def _read_part(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        table = pq.read_table(path)
        digests = table["text_digest"].to_pylist()
        flat = table["vector"].combine_chunks().values.to_numpy()
        return dict(zip(digests, flat.reshape(len(digests), -1), strict=True))
    except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"{path} cannot be read back; run `hierrouter collect` or `hierrouter run` again: "
            "its contexts are encoded anew and no reply is generated"
        ) from error


def _contexts(tree: RouteTree) -> Iterable[str]:
    pool: dict[str, Any] = tree.info["pool"]
    names = {spec["name"] for spec in pool["models"]}
    queries = {query.query_id: query for query in tree.queries}
    yield from (query.prompt for query in tree.queries)
    for place in tree.nodes:
        if place.query_id not in queries or not set(place.models) <= names:
            continue
        if place.role == "analyze" or len(place.models) == 1:
            text = context_text(tree, queries[place.query_id], place.models, place.role)
            if text is not None:
                yield text


def _write_part(folder: Path, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    digests = [sha256_text(text) for text in texts]
    table = pa.table(
        {
            "text_digest": digests,
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
        }
    )
    with atomic_path(folder / f"{digest_of(digests)[:12]}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")

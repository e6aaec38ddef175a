"""Nodes of a route tree: which there are, and how they lie in Parquet files."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import atomic_path, digest_of, readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from hierrouter.pool.prompts import Role


class NodeKey(NamedTuple):
    """Where a node stands: the query, the models called so far, and the last call's role.

    Every call before the last is an `analyze`.
    """

    query_id: str
    models: tuple[str, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class Node:
    """One recorded model call. Never rewritten: it is what was paid for."""

    query_id: str
    models: tuple[str, ...]
    role: Role
    reply: str
    tokens_in: int
    tokens_out: int
    finish_reason: str
    latency_s: float
    logprob_mean: float
    logprob_min: float
    dtype: str
    backend: str
    device: str
    key: str
    """Generation key: SHA-256 of weights digest, generation settings and rendered prompt."""

    @property
    def place(self) -> NodeKey:
        """Where it stands in the tree."""
        return NodeKey(self.query_id, self.models, self.role)


GROUP = 2048
"""Most nodes that are read together when one of them is wanted."""
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("models", pa.list_(pa.string())),
        ("role", pa.string()),
        ("reply", pa.string()),
        ("tokens_in", pa.int32()),
        ("tokens_out", pa.int32()),
        ("finish_reason", pa.string()),
        ("latency_s", pa.float32()),
        ("logprob_mean", pa.float32()),
        ("logprob_min", pa.float32()),
        ("dtype", pa.string()),
        ("backend", pa.string()),
        ("device", pa.string()),
        ("key", pa.string()),
    ]
)


def full_tree(
    models: Sequence[str], hops: int, depth: int
) -> Iterator[tuple[tuple[str, ...], Role]]:
    """The calls of the full tree at one depth, as (models, role).

    Args:
        models: names of the M pool models.
        hops: L.
        depth: number of calls up to and including this one, 1..L.

    Yields:
        M^depth analyses unless `depth` is L, and M^depth answers. For M=3, L=2: 6 and 9 calls.
    """
    for path in itertools.product(models, repeat=depth):
        if depth < hops:
            yield path, "analyze"
        yield path, "solve"


def write_nodes(path: Path, nodes: Iterable[Node]) -> None:
    """Writes nodes to a Parquet file in one step."""
    with NodeWriter(path) as writer:
        writer.add(list(nodes))


class NodeWriter:
    """Writes a Parquet file of nodes bit by bit; it appears when all of it is there."""

    def __init__(self, path: Path) -> None:
        """Will write `path`."""
        self._path = path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._file = stack.enter_context(
                pq.ParquetWriter(temporary, SCHEMA, compression="zstd", write_page_checksum=True)
            )
            self._stack = stack.pop_all()
        return self

    def add(self, nodes: Sequence[Node]) -> None:
        """Adds some nodes, in row groups of at most `GROUP`."""
        self._file.write_table(_table(nodes), row_group_size=GROUP)

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)


def _table(nodes: Sequence[Node]) -> pa.Table:
    # Column by column: a million rows as dictionaries would take minutes.
    columns = [[getattr(node, name) for node in nodes] for name in SCHEMA.names]
    return pa.table(columns, schema=SCHEMA)


def read_nodes(path: Path) -> list[Node]:
    """Reads the nodes of a Parquet file.

    Raises:
        DamagedFileError: the file is truncated or holds something else.
    """
    try:
        return nodes_of(pq.read_table(readable(path), page_checksum_verification=True))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise unreadable(path, error) from error


def nodes_of(table: pa.Table) -> list[Node]:
    """The rows of a table of nodes.

    Raises:
        KeyError, ValueError, pa.ArrowException: it holds something else.
    """
    columns = table.select(SCHEMA.names).cast(SCHEMA).to_pydict()
    columns["models"] = [tuple(models) for models in columns["models"]]
    return [Node(*row) for row in zip(*(columns[name] for name in SCHEMA.names), strict=True)]


def unreadable(path: Path, error: Exception) -> HierRouterError:
    """What a failure to read a file of nodes means.

    Returns:
        A `DamagedFileError` where its content is at fault; another error where reading failed, and
        may succeed later.
    """
    reason = " ".join(str(error).split())[:160]
    # pyarrow reports broken content as an OSError too, but then without the system's number.
    if isinstance(error, OSError) and error.errno is not None:
        return HierRouterError(
            f"{path} cannot be read now ({reason}); nothing was changed: mend what is wrong, then "
            "run the same command again"
        )
    return DamagedFileError(f"{path} cannot be read back ({reason})")


def name_of(prefix: str, nodes: Sequence[Node]) -> str:
    """The name of a file of nodes: a prefix for people, and a digest of their places."""
    places = digest_of([[node.query_id, list(node.models), node.role] for node in nodes])
    return f"{prefix}-{places[:8]}.parquet"


def recorded_nodes(tree: Path) -> int:
    """How many nodes the files of a tree hold, without reading them; damaged ones hold none."""
    count = 0
    for path in (tree / "nodes").glob("[!.]*.parquet"):
        with contextlib.suppress(OSError, pa.ArrowException):
            count += pq.read_metadata(readable(path)).num_rows
    return count

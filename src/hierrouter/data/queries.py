"""What a query is, and how a table of them is written and read (queries.parquet)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import atomic_path, canonical_json, readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("reference", pa.list_(pa.string()), nullable=False),
        pa.field("reference_text", pa.string(), nullable=False),
        pa.field("tests", pa.list_(pa.string()), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),  # a JSON object of strings
    ]
)


@dataclass(frozen=True, slots=True)
class Query:
    """One question of a task with its reference answer.

    Attributes:
        query_id: stable across runs and sources, "gsm8k/17".
        task: the benchmark, or a task of one's own.
        split: "train" or "test".
        fold: for cross-fitting, from 0.
        prompt: the question, with the choices if there are any.
        reference: accepted answers.
        reference_text: what token F1 is measured against.
        tests: statements that a program must pass, else empty.
        metadata: "kind" is the kind of answer (`config.AnswerKind`), which names the task's own
            accuracy metric; "subject" and "level" where the benchmark has them; "metric" of a
            task of one's own (`config.OwnMetric`).
    """

    query_id: str
    task: str
    split: str
    fold: int
    prompt: str
    reference: tuple[str, ...]
    reference_text: str
    tests: tuple[str, ...]
    metadata: dict[str, str]


def write_queries(path: Path, queries: Iterable[Query]) -> None:
    """Writes queries, in their order, to a Parquet file in one step.

    Raises:
        HierRouterError: the file cannot be written.
    """
    rows = [
        {**asdict(query), "metadata": json.dumps(query.metadata, sort_keys=True)}
        for query in queries
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_queries(path: Path) -> list[Query]:
    """Reads a table of queries, in its order.

    Raises:
        HierRouterError: the file is missing.
        DamagedFileError: it is truncated, foreign, or lacks a column.
    """
    if not path.is_file():
        raise HierRouterError(f"{path} does not exist; make it with `hierrouter sample`")
    try:
        table = pq.read_table(readable(path))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DamagedFileError(
            f"{path} is not a whole Parquet file ({reason}); make it anew with `hierrouter sample`"
        ) from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise DamagedFileError(
            f"{path} is not a table of queries: it has no column {', '.join(missing)}; "
            "make it with `hierrouter sample`"
        )
    try:
        rows = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
        queries = [_from_row(row) for row in rows]
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DamagedFileError(
            f"{path} holds values that no query has ({reason}); make it with `hierrouter sample`"
        ) from None
    ids = {query.query_id for query in queries}
    if len(ids) != len(queries):
        raise DamagedFileError(f"{path} names a query twice; make it with `hierrouter sample`")
    return queries


def stream_queries(path: Path) -> Iterator[Query]:
    """The queries of a table that was just written, in its order, some in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(4096, use_threads=False):
            yield from map(_from_row, batch.to_pylist())


def _from_row(row: dict[str, Any]) -> Query:
    metadata = json.loads(row["metadata"])
    if row["split"] not in ("train", "test"):
        raise ValueError(f"split {row['split']!r}")
    return Query(
        query_id=row["query_id"],
        task=row["task"],
        split=row["split"],
        fold=row["fold"],
        prompt=row["prompt"],
        reference=tuple(row["reference"]),
        reference_text=row["reference_text"],
        tests=tuple(row["tests"]),
        metadata={str(key): str(value) for key, value in metadata.items()},
    )


def digest_queries(queries: Iterable[Query]) -> str:
    """SHA-256 over all fields of the queries, in their order."""
    names = [field.name for field in fields(Query)]
    # As `digest_of` the list of them all, which need not be in memory at once.
    whole = hashlib.sha256(b"[")
    for number, query in enumerate(queries):
        whole.update(b"," if number else b"")
        whole.update(canonical_json([getattr(query, name) for name in names]).encode())
    whole.update(b"]")
    return whole.hexdigest()

"""Rows to arrays: each distinct query once, and for every row its query, model, score and cost.

Prompts go to a file as they come, so that memory holds some tens of bytes a row, however long the
prompts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.util import hash_array

from hierrouter.errors import ConfigError
from hierrouter.progress import say
from hierrouter.routes.imported.columns import SPLITS, TEXTS, TOKENS, VECTOR, complaint

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.imported.files import OutcomesFile

SAY_EVERY = 1_000_000
"""Rows between two lines about how far reading is."""
SPOOLED = pa.schema([("query_id", pa.string()), ("prompt", pa.string())])


class Column:
    """A one-dimensional array that grows."""

    def __init__(self, kind: Any) -> None:
        """Starts empty."""
        self._values = np.zeros(1024, dtype=kind)
        self._count = 0

    def extend(self, more: NDArray[Any]) -> None:
        """Adds values at the end."""
        wanted = self._count + len(more)
        if wanted > len(self._values):
            grown = np.zeros(max(wanted, 3 * len(self._values) // 2), dtype=self._values.dtype)
            grown[: self._count] = self.values
            self._values = grown
        self._values[self._count : wanted] = more
        self._count = wanted

    @property
    def values(self) -> NDArray[Any]:
        """All of it, without a copy."""
        return self._values[: self._count]


@dataclass
class Gathered:
    """What N rows say of Q queries; everything in the order of the file."""

    source: OutcomesFile
    query_ids: dict[str, int]
    """Q ids with their numbers."""
    tasks: list[str]
    """The names of the tasks."""
    models: list[str]
    """The names of the models."""
    task_of: NDArray[np.int32]
    """Q positions in `tasks`."""
    split_of: NDArray[np.int8]
    """Q numbers: 0 none given, 1 train, 2 test."""
    query: NDArray[np.int32]
    """N queries."""
    model: NDArray[np.int32]
    """N positions in `models`."""
    score: NDArray[np.float64]
    """N scores in [0, 1]."""
    cost: NDArray[np.float64] | None
    """N dollars; none where the file has tokens instead."""
    tokens: NDArray[np.float64] | None
    """N tokens, read and written; none where the file does not tell them."""
    latency: NDArray[np.float32] | None
    """N seconds (NaN where not told); none where no row tells them."""
    width: int | None
    """Of the vectors that the file brings along; none where it has none."""


def gather(source: OutcomesFile, spool: Path) -> Gathered:
    """Reads a file of outcomes.

    Args:
        source: the file.
        spool: gets each query's id and prompt (and vector), in the order of their first rows.

    Raises:
        ConfigError: a row is wrong; names its line, and what would be right.
    """
    return _Gatherer(source, spool).run()


class _Gatherer:
    def __init__(self, source: OutcomesFile, spool: Path) -> None:
        self._source, self._spool = source, spool
        self._has = set(source.columns)
        self._ids: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._models: dict[str, int] = {}
        self._prompt, self._task = Column(np.uint64), Column(np.int32)
        self._split, self._row = Column(np.int8), Column(np.int64)
        self._query, self._model = Column(np.int32), Column(np.int32)
        self._numbers = {
            name: Column(np.float32 if name == "latency_s" else np.float64)
            for name in ("score", "cost", "latency_s")
            if name in self._has
        }
        self._tokens = Column(np.float64) if set(TOKENS) <= self._has else None
        self._width: int | None = None
        self._rows = 0

    def run(self) -> Gathered:
        schema = SPOOLED
        if VECTOR in self._has:
            schema = schema.append(pa.field(VECTOR, pa.list_(pa.float32())))
        with pq.ParquetWriter(self._spool, schema, compression="zstd") as writer:
            for batch in self._source.batches():
                self._judge(batch)
                fresh = self._take(batch)
                if len(fresh):
                    rows = pa.array(fresh)
                    writer.write_batch(batch.select(schema.names).take(rows))
                before, self._rows = self._rows, self._rows + batch.num_rows
                if before // SAY_EVERY < self._rows // SAY_EVERY:
                    say(f"reading: {self._rows:,} rows, {len(self._ids):,} queries")
        numbers = {name: column.values for name, column in self._numbers.items()}
        return Gathered(
            source=self._source,
            query_ids=self._ids,
            tasks=list(self._tasks),
            models=list(self._models),
            task_of=self._task.values,
            split_of=self._split.values,
            query=self._query.values,
            model=self._model.values,
            score=numbers["score"],
            cost=numbers.get("cost"),
            tokens=None if self._tokens is None else self._tokens.values,
            latency=numbers.get("latency_s"),
            width=self._width,
        )

    def _judge(self, batch: pa.RecordBatch) -> None:
        """Refuses the first row that holds what may not stand there."""
        wrong = np.zeros(batch.num_rows, dtype=np.bool_)
        for name in self._source.columns:
            wrong |= _refused(name, batch.column(name))
        if not wrong.any():
            return
        row = int(wrong.argmax())
        for name in self._source.columns:
            if said := complaint(name, batch.column(name)[row].as_py()):
                raise self._error(row, said)

    def _take(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Adds a batch; gives the rows with which a query begins."""
        encoded = batch.column("query_id").dictionary_encode()
        local = encoded.indices.to_numpy(zero_copy_only=False)
        ids = encoded.dictionary.to_pylist()
        numbers = np.fromiter((self._ids.get(name, -1) for name in ids), np.int64, len(ids))
        fresh = np.flatnonzero(numbers < 0)
        numbers[fresh] = len(self._ids) + np.arange(len(fresh))
        self._ids.update((ids[at], int(numbers[at])) for at in fresh)
        first = np.empty(len(ids), dtype=np.int64)
        first[local[::-1]] = np.arange(len(local))[::-1]
        begins = first[fresh]
        query = numbers[local]
        prompt = _hashes(batch.column("prompt"))
        task = _codes(batch.column("task"), self._tasks)
        split = _split_codes(batch, self._has)
        self._prompt.extend(prompt[begins])
        self._task.extend(task[begins])
        self._split.extend(split[begins])
        self._row.extend(self._rows + begins)
        for name, values, known in (
            ("prompt", prompt, self._prompt),
            ("task", task, self._task),
            ("split", split, self._split),
        ):
            other = known.values[query] != values
            if other.any():
                self._refuse_two(name, int(other.argmax()), batch, query)
        if VECTOR in self._has:
            self._check_vectors(batch.column(VECTOR), begins)
        self._query.extend(query)
        self._model.extend(_codes(batch.column("model"), self._models))
        for name, column in self._numbers.items():
            column.extend(_floats(batch.column(name)))
        if self._tokens is not None:
            self._tokens.extend(sum(_floats(batch.column(name)) for name in TOKENS))  # type: ignore[arg-type]
        return begins

    def _refuse_two(
        self, name: str, row: int, batch: pa.RecordBatch, query: NDArray[np.int64]
    ) -> None:
        before = self._source.where(int(self._row.values[query[row]]))
        query_id = batch.column("query_id")[row].as_py()
        raise self._error(
            row,
            f"{name}: query {query_id} has another {name} on {before}; a query has one {name}, so "
            "give the other an id of its own",
        )

    def _check_vectors(self, vectors: pa.Array, begins: NDArray[np.int64]) -> None:
        """Makes sure that the first row of each new query has a vector, all of one width."""
        if not len(begins):
            return
        lengths = pc.list_value_length(vectors.take(pa.array(begins)))
        widths = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
        self._width = self._width or int(widths[0])
        for wrong in np.flatnonzero((widths != self._width) | (widths == 0))[:1]:
            raise self._error(
                int(begins[wrong]),
                f"{VECTOR}: has {widths[wrong]} numbers, that of the first row {self._width}; "
                "every query needs one of the same width",
            )

    def _error(self, row: int, said: str) -> ConfigError:
        where = self._source.where(self._rows + row)
        return ConfigError(f"{self._source.path}: {where}: {said}")


def _refused(name: str, array: pa.Array) -> NDArray[np.bool_]:
    """Which values of a column `complaint` has something to say of."""
    if name in TEXTS:
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(array)), 0)
        return _flags(pc.or_kleene(pc.is_null(array), blank))
    if name == "split":
        allowed = pc.is_in(array, value_set=pa.array([*SPLITS, "", None], pa.string()))
        return ~_flags(allowed)
    if name == VECTOR:
        finite = pc.is_finite(array.flatten())
        if pc.all(finite, min_count=0).as_py():
            return np.zeros(len(array), dtype=np.bool_)
        bad = pc.list_parent_indices(array).filter(pc.invert(pc.fill_null(finite, False)))
        flags = np.zeros(len(array), dtype=np.bool_)
        flags[bad.to_numpy()] = True
        return flags
    values = _floats(array)
    if name == "latency_s":
        missing = _flags(pc.is_null(array))
        return ~missing & ~(np.isfinite(values) & (values >= 0))
    high = 1.0 if name == "score" else np.finfo(np.float64).max
    return ~((values >= 0) & (values <= high))


def _flags(array: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _floats(array: pa.Array) -> NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)


def _hashes(texts: pa.Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each text, computed once for those that repeat."""
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
    hashed = hash_array(distinct, categorize=False)
    return np.asarray(hashed[encoded.indices.to_numpy(zero_copy_only=False)], dtype=np.uint64)


def _codes(texts: pa.Array, known: dict[str, int]) -> NDArray[np.int32]:
    """The number of each text among those that are known; new ones are added."""
    encoded = texts.dictionary_encode()
    numbers = np.array(
        [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()],
        dtype=np.int32,
    )
    return np.asarray(numbers[encoded.indices.to_numpy(zero_copy_only=False)], dtype=np.int32)


def _split_codes(batch: pa.RecordBatch, has: set[str]) -> NDArray[np.int8]:
    if "split" not in has:
        return np.zeros(batch.num_rows, dtype=np.int8)
    found = pc.index_in(batch.column("split"), value_set=pa.array(SPLITS))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False) + 1, dtype=np.int8)

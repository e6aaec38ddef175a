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

from hierrouter.errors import ConfigError
from hierrouter.progress import say
from hierrouter.routes.imported.arrays import (
    Column,
    codes,
    flags,
    floats,
    hashes,
    refused,
    split_codes,
)
from hierrouter.routes.imported.columns import CHOICES, MEASURED, TOKENS, VECTOR, complaint

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.imported.files import OutcomesFile

SAY_EVERY = 1_000_000
"""Rows between two lines about how far reading is."""
SPOOLED = pa.schema([("query_id", pa.string()), ("prompt", pa.string())])


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
    """N tokens, read and written (NaN where not told, beside costs); none where no row tells."""
    latency: NDArray[np.float32] | None
    """N seconds (NaN where not told); none where no row tells them."""
    width: int | None
    """Of the vectors that the file brings along; none where it has none."""
    choices: NDArray[np.int32] | None
    """Q numbers of choices, 0 where none is given; none where the file does not tell them."""
    unscored: NDArray[np.int64]
    """Rows of the file (from 0) that are left out, as they have no score."""

    def where(self, row: int) -> str:
        """The place in the file of one of the N rows."""
        rows = np.arange(len(self.query) + len(self.unscored))
        return self.source.where(int(np.delete(rows, self.unscored)[row]))


def gather(
    source: OutcomesFile,
    spool: Path,
    models: Collection[str] | None = None,
    partial: bool = False,
) -> Gathered:
    """Reads a file of outcomes.

    Args:
        source: the file.
        spool: gets each query's id and prompt (and vector), in the order of their first rows.
        models: names, as the file has them, of those that are wanted: what is said of others'
            answers may be anything. None: all are.
        partial: whether rows without a score are left out.

    Raises:
        ConfigError: a row is wrong; names its line, and what would be right.
    """
    return _Gatherer(source, spool, models, partial).run()


def _told(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """A column; none where no row tells it."""
    return None if values is None or np.isnan(values).all() else values


class _Gatherer:
    def __init__(
        self,
        source: OutcomesFile,
        spool: Path,
        models: Collection[str] | None,
        partial: bool,
    ) -> None:
        self._source, self._spool = source, spool
        self._wanted = None if models is None else pa.array(sorted(models), pa.string())
        self._partial = partial
        self._unscored, self._choices = Column(np.int64), Column(np.int32)
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
        tokens = None if self._tokens is None else self._tokens.values
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
            tokens=_told(tokens),
            latency=_told(numbers.get("latency_s")),
            width=self._width,
            choices=self._choices.values if CHOICES in self._has else None,
            unscored=self._unscored.values,
        )

    def _judge(self, batch: pa.RecordBatch) -> None:
        """Refuses the first row that holds what may not stand there."""
        wrong = np.zeros(batch.num_rows, dtype=np.bool_)
        optional = self._source.optional
        counts = ~self._without_score(batch)
        if self._wanted is not None:
            counts &= flags(pc.is_in(batch.column("model"), value_set=self._wanted))
        for name in self._source.columns:
            here = refused(name, batch.column(name), optional)
            wrong |= here & counts if name in MEASURED else here
        if not wrong.any():
            return
        row = int(wrong.argmax())
        for name in self._source.columns:
            if name in MEASURED and not counts[row]:
                continue
            if said := complaint(name, batch.column(name)[row].as_py(), optional):
                raise self._error(row, said)

    def _without_score(self, batch: pa.RecordBatch) -> NDArray[np.bool_]:
        """Which rows are left out."""
        if not self._partial:
            return np.zeros(batch.num_rows, dtype=np.bool_)
        return np.isnan(floats(batch.column("score")))

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
        prompt = hashes(batch.column("prompt"))
        task = codes(batch.column("task"), self._tasks)
        split = split_codes(batch, self._has)
        self._prompt.extend(prompt[begins])
        self._task.extend(task[begins])
        self._split.extend(split[begins])
        self._row.extend(self._rows + begins)
        told = [
            ("prompt", prompt, self._prompt),
            ("task", task, self._task),
            ("split", split, self._split),
        ]
        if CHOICES in self._has:
            choices = np.nan_to_num(floats(batch.column(CHOICES))).astype(np.int32)
            self._choices.extend(choices[begins])
            told.append((CHOICES, choices, self._choices))
        for name, values, known in told:
            other = known.values[query] != values
            if other.any():
                self._refuse_two(name, int(other.argmax()), batch, query)
        if VECTOR in self._has:
            self._check_vectors(batch.column(VECTOR), begins)
        if (without := self._without_score(batch)).any():
            self._unscored.extend(self._rows + np.flatnonzero(without))
            query, batch = query[~without], batch.filter(pa.array(~without))
        self._query.extend(query)
        self._model.extend(codes(batch.column("model"), self._models))
        for name, column in self._numbers.items():
            column.extend(floats(batch.column(name)))
        if self._tokens is not None:
            self._tokens.extend(sum(floats(batch.column(name)) for name in TOKENS))  # type: ignore[arg-type]
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
            said = (
                f"has {widths[wrong]} numbers, that of the first row {self._width}; every query "
                "needs one of the same width"
                if widths[wrong]
                else "is missing; the first row of each query needs its vector"
            )
            raise self._error(int(begins[wrong]), f"{VECTOR}: {said}")

    def _error(self, row: int, said: str) -> ConfigError:
        where = self._source.where(self._rows + row)
        return ConfigError(f"{self._source.path}: {where}: {said}")

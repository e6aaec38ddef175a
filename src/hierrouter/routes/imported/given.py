"""Vectors of the prompts that the user has already, so that no encoder runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hierrouter.errors import ConfigError
from hierrouter.routes.imported.columns import VECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

AT_ONCE = 4096
"""Vectors that are in memory together."""
NAMED = 3


@dataclass(frozen=True)
class GivenVectors:
    """Q vectors, read bit by bit."""

    path: Path
    """What they are read from: Parquet with `query_id` and `embedding`, or an .npy array."""
    query_ids: Mapping[str, int]
    """Q ids with their numbers; an array has its rows in this order."""
    width: int
    """D."""

    def parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Numbers of n queries and their vectors, n x D."""
        if self.path.suffix == ".npy":
            yield from self._array_parts()
            return
        seen = np.zeros(len(self.query_ids), dtype=np.bool_)
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(
                AT_ONCE, columns=["query_id", VECTOR], use_threads=False
            ):
                numbers, vectors = self._numbered(batch)
                # A file with a row a query and model has each several times: the first counts.
                _, first = np.unique(numbers, return_index=True)
                first = np.sort(first[~seen[numbers[first]]])
                seen[numbers[first]] = True
                yield numbers[first], vectors[first]

    def _array_parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        whole: Any = np.load(self.path, mmap_mode="r")
        # Read, not mapped: mapped pages count as this process's memory.
        with self.path.open("rb") as file:
            file.seek(whole.offset)
            for start in range(0, len(whole), AT_ONCE):
                part = whole[start : start + AT_ONCE]
                if whole.flags.c_contiguous:
                    part = np.fromfile(file, whole.dtype, part.size).reshape(part.shape)
                yield np.arange(start, start + len(part)), np.asarray(part, dtype=np.float32)

    def _numbered(self, batch: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ids = pc.cast(batch.column("query_id"), pa.string()).to_pylist()
        numbers = np.array([self.query_ids.get(name, -1) for name in ids], dtype=np.int64)
        vectors = pc.cast(batch.column(VECTOR), pa.list_(pa.float32()))
        wanted = pa.array(numbers >= 0)
        numbers, vectors = numbers[numbers >= 0], vectors.filter(wanted)
        widths = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy(zero_copy_only=False)
        if (widths != self.width).any():
            at = int((widths != self.width).argmax())
            name = ids[int(np.flatnonzero(wanted.to_numpy(zero_copy_only=False))[at])]
            raise ConfigError(
                f"{self.path}: the vector of query {name} has {widths[at]} numbers, others have "
                f"{self.width}; all need the same width"
            )
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        return numbers, flat.reshape(len(numbers), self.width)


def open_vectors(path: Path, query_ids: Mapping[str, int]) -> GivenVectors:
    """Vectors in a file of their own, looked at from end to end.

    Args:
        path: Parquet with columns `query_id` and `embedding`, or an .npy array of Q rows, in the
            order in which the queries first stand in the file of outcomes.
        query_ids: Q ids with their numbers.

    Raises:
        ConfigError: it is no such file, a query has no vector, or a vector is not one.
    """
    try:
        given = GivenVectors(path, query_ids, _width(path, len(query_ids)))
        there = np.zeros(len(query_ids), dtype=np.bool_)
        for numbers, vectors in given.parts():
            if not np.isfinite(vectors).all():
                raise ConfigError(
                    f"{path}: holds numbers that are not finite; make these vectors anew"
                )
            there[numbers] = True
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{path}: cannot be read as vectors ({reason})") from None
    if not there.all():
        missing = [name for name, number in query_ids.items() if not there[number]]
        raise ConfigError(
            f"{path}: {len(missing):,} queries have no vector: {', '.join(missing[:NAMED])}"
            f"{', …' if len(missing) > NAMED else ''}; add them, or leave --embeddings out, so "
            "that the encoder makes them all"
        )
    return given


def _width(path: Path, count: int) -> int:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    if path.suffix == ".npy":
        whole: Any = np.load(path, mmap_mode="r")
        if whole.ndim != 2 or len(whole) != count or whole.dtype.kind != "f":
            raise ConfigError(
                f"{path}: holds {whole.dtype} of shape {whole.shape}; should be one row of floats "
                f"for each of the {count:,} queries, in the order of their first rows"
            )
        return int(whole.shape[1])
    if path.suffix != ".parquet":
        raise ConfigError(f"{path}: should be .npy, or .parquet with query_id and {VECTOR}")
    schema = pq.read_schema(path)
    if missing := [name for name in ("query_id", VECTOR) if name not in schema.names]:
        raise ConfigError(
            f"{path}: there is no column {missing[0]}; it needs query_id and {VECTOR} (lists of "
            "numbers)"
        )
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1, columns=[VECTOR]):
            return len(batch.column(0)[0].as_py() or ())
    raise ConfigError(f"{path}: holds no vectors")

"""Order, split and fold of imported queries: by the rules of a sample (`data/sample.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hierrouter.data.near_duplicates import NearDuplicates
from hierrouter.data.sample import hash_unit, normalise

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import DataConfig
    from hierrouter.routes.imported.gather import Gathered

BATCH = 4096
TRAIN, TEST = 1, 2
"""How a split is given by number; 0 is none."""


@dataclass(frozen=True)
class Sides:
    """Where Q queries stand; all but `order` in the order of the file."""

    order: NDArray[np.int64]
    """Q positions: task by task, each in the order of its sampling hash."""
    train: NDArray[np.bool_]
    """Q flags."""
    fold: NDArray[np.int32]
    """Q fold numbers."""
    largest_group: int
    """Queries in the largest group of near-duplicates."""
    straddling: int
    """Queries whose given split parts them from a near-duplicate."""


def sides_of(gathered: Gathered, spool: Path, config: DataConfig) -> Sides:
    """Gives every query its side.

    A split that the file gives is kept. Others come from the hash of the text that leads the
    query's group of near-duplicates; where a member of the group has a given split, from that.

    Args:
        gathered: the queries.
        spool: their texts.
        config: seed, shares and similarity.
    """
    count = len(gathered.query_ids)
    sampled, split, fold = np.empty(count), np.empty(count), np.empty(count)
    near = NearDuplicates(config.near_duplicate_jaccard)
    start = 0
    with pq.ParquetFile(spool) as file:
        for batch in file.iter_batches(BATCH, columns=["prompt"], use_threads=False):
            texts = [normalise(prompt) for prompt in batch.column("prompt").to_pylist()]
            near.add(texts)
            for at, text in enumerate(texts, start=start):
                sampled[at] = hash_unit("sample", config.seed, text)
                split[at] = hash_unit("split", config.seed, text)
                fold[at] = hash_unit("fold", config.seed, text)
            start += len(texts)
    order = _order(gathered, sampled)
    rank = np.empty(count, dtype=np.int64)
    rank[_sorted(gathered, sampled)] = np.arange(count)
    leader = near.leaders(rank)
    given = gathered.split_of
    side = np.where(split[leader] < config.train_share, TRAIN, TEST)
    by_rank = np.flatnonzero(given > 0)
    by_rank = by_rank[np.argsort(rank[by_rank])]
    groups, first = np.unique(leader[by_rank], return_index=True)
    of_group = np.zeros(count, dtype=np.int64)
    of_group[groups] = given[by_rank[first]]
    inherited = of_group[leader]
    side = np.where(given > 0, given, np.where(inherited > 0, inherited, side))
    return Sides(
        order=order,
        train=side == TRAIN,
        fold=(fold[leader] * config.folds).astype(np.int32),
        largest_group=int(np.bincount(leader, minlength=1).max()),
        straddling=int(((given > 0) & (given != inherited)).sum()),
    )


def _order(gathered: Gathered, sampled: NDArray[np.float64]) -> NDArray[np.int64]:
    names = pa.array(gathered.tasks, pa.string())
    task = pa.DictionaryArray.from_arrays(pa.array(gathered.task_of), names).dictionary_decode()
    return _sorted(gathered, sampled, task)


def _sorted(
    gathered: Gathered, sampled: NDArray[np.float64], task: pa.Array | None = None
) -> NDArray[np.int64]:
    """Positions by sampling hash; of equal texts the least id first."""
    columns = {"unit": pa.array(sampled), "id": pa.array(gathered.query_ids, pa.string())}
    keys = [("unit", "ascending"), ("id", "ascending")]
    if task is not None:
        columns, keys = {"task": task, **columns}, [("task", "ascending"), *keys]
    indices = pc.sort_indices(pa.table(columns), sort_keys=keys)
    return np.asarray(indices.to_numpy(), dtype=np.int64)

"""per_query.parquet: what every policy got for every test query, at every alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.files import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.evaluation.summary import Plays
    from hierrouter.routes.outcomes import Outcomes

NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("query_id", NAME),
        pa.field("task", NAME),
        pa.field("policy", NAME),
        pa.field("alpha", pa.float64()),
        pa.field("seed", pa.int32()),
        pa.field("route", NAME),
        pa.field("quality", pa.float64()),
        pa.field("cost", pa.float64()),
        pa.field("relative_cost", pa.float64()),
        pa.field("reward", pa.float64()),
    ]
)
"""One row a test query, policy, alpha and training seed (from 0, the router's own; 0 where a policy
has none). `route` is null where a policy draws at random: its quality and cost are then
expectations. `cost` is in dollars."""


def write_records(target: Path, test: Outcomes, played: Plays, cost_unit_usd: float) -> None:
    """Writes every policy's result for each of the N test queries, one row group an alpha.

    Args:
        target: the Parquet file.
        test: the test queries.
        played: by alpha, then by policy.
        cost_unit_usd: dollars in one cost unit.
    """
    count = len(test)
    rows = pa.array(np.arange(count, dtype=np.int32))
    query_ids = pa.DictionaryArray.from_arrays(rows, pa.array(test.query_ids))
    names, number = np.unique(test.tasks, return_inverse=True)
    tasks = pa.DictionaryArray.from_arrays(number.astype(np.int32), pa.array(names.tolist()))
    with (
        atomic_path(target) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
    ):
        for alpha, policies in played.items():
            parts = []
            for seed, result in (
                (seed, result) for each in policies.values() for seed, result in enumerate(each)
            ):
                relative = result.cost / cost_unit_usd
                nowhere = np.zeros(count, dtype=np.int32)
                taken = nowhere if result.taken is None else result.taken.astype(np.int32)
                unknown = np.full(count, result.taken is None)
                columns = [
                    query_ids,
                    tasks,
                    pa.DictionaryArray.from_arrays(nowhere, pa.array([result.name])),
                    pa.array(np.full(count, alpha)),
                    pa.array(np.full(count, seed, dtype=np.int32)),
                    pa.DictionaryArray.from_arrays(
                        pa.array(taken, mask=unknown), pa.array(result.routes)
                    ),
                    pa.array(result.quality),
                    pa.array(result.cost),
                    pa.array(relative),
                    pa.array(result.quality - alpha * relative),
                ]
                parts.append(pa.Table.from_arrays(columns, schema=SCHEMA))
            table = pa.concat_tables(parts).unify_dictionaries()
            writer.write_table(table, row_group_size=max(1, len(table)))

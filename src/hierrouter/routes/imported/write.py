"""Writing a tree of imported outcomes: `tree.json`, the queries, and the outcomes beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.data.queries import SCHEMA, digest_queries, stream_queries
from hierrouter.files import atomic_path, digest_of, sha256_file, sha256_text, write_json
from hierrouter.routes.imported.store import MEASURES, OUTCOMES, column, stamped, tree_digest
from hierrouter.routes.imported.vectors import drop_vectors
from hierrouter.routes.tree import FORMAT_VERSION, KIND, OUTCOMES_KIND, QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.imported.cells import Cells
    from hierrouter.routes.imported.gather import Gathered
    from hierrouter.routes.imported.sides import Sides

CHUNK = 8192
"""Queries that are written together."""
METADATA = json.dumps({"kind": "text"})


def described(
    gathered: Gathered,
    cells: Cells,
    sides: Sides,
    tasks: Mapping[str, str],
    origin: dict[str, Any],
) -> dict[str, Any]:
    """`tree.json`, but for pool, encoder and the digests of what is not written yet."""
    counted = {}
    for number, original in enumerate(gathered.tasks):
        mine = gathered.task_of == number
        train = int((mine & sides.train).sum())
        counted[tasks[original]] = {
            "source": "outcomes",
            "called": original,
            "train": train,
            "test": int(mine.sum()) - train,
        }
    return {
        "format_version": FORMAT_VERSION,
        KIND: OUTCOMES_KIND,
        "made": {
            "models": {
                name: {"weights": each["weights_digest"], "generation": each["generation"]}
                for name, each in cells.identities.items()
            }
        },
        "provenance": {name: each["provenance"] for name, each in cells.identities.items()},
        "data": {"config": origin["data"], "tasks": counted},
        "outcomes": {
            "file": origin["file"],
            "sha256": origin["sha256"],
            "import": digest_of(origin),
            "partial": origin["partial"],
            "rows": len(gathered.query),
            "queries": len(gathered.query_ids),
            "outcomes": int((~np.isnan(cells.score)).sum()),
            "called": cells.originals,
        },
    }


def write_tree(
    out: Path,
    info: dict[str, Any],
    gathered: Gathered,
    cells: Cells,
    sides: Sides,
    tasks: Mapping[str, str],
    spool: Path,
    keys: NDArray[np.object_] | None = None,
    choices: NDArray[np.int32] | None = None,
) -> dict[str, Any]:
    """Writes the three files, each in one step, once both tables are whole beside their places.

    The description goes first: it makes the folder ours, and its digests tell tables that belong
    to it from older or missing ones, should this process end in between.

    Args:
        out: the tree's folder.
        info: `tree.json` without the digests.
        gathered: the queries.
        cells: their outcomes.
        sides: their split and order.
        tasks: our names of the file's tasks.
        spool: the queries' texts.
        keys: what the vectors of Q queries are kept under, in the order of the file; none: under
            the digests of the prompts.
        choices: numbers of choices of the Q queries, 0 where there are none; none: nowhere.

    Returns:
        The whole `tree.json`.
    """
    stamp = info["outcomes"]["import"]
    order = sides.order
    with atomic_path(out / OUTCOMES) as outcomes, atomic_path(out / QUERIES) as queries:
        digests = _write_queries(queries, stamp, gathered, sides, tasks, spool, choices)
        _write_outcomes(outcomes, stamp, cells, order, digests if keys is None else keys)
        query_digest = digest_queries(stream_queries(queries))
        names = [spec.name for spec in cells.models]
        tables = (cells.score[order], cells.cost[order])
        made = tree_digest(query_digest, names, tables, info["outcomes"].get("vectors"))
        files = {QUERIES: sha256_file(queries), OUTCOMES: sha256_file(outcomes)}
        whole = {
            **info,
            "query_digest": query_digest,
            "outcomes": {**info["outcomes"], "tree_digest": made, "files": files},
        }
        if "vectors" in info["outcomes"]:
            drop_vectors(out, info)
        write_json(out / "tree.json", whole)
    return whole


def _write_queries(
    path: Path,
    stamp: str,
    gathered: Gathered,
    sides: Sides,
    tasks: Mapping[str, str],
    spool: Path,
    choices: NDArray[np.int32] | None,
) -> NDArray[np.object_]:
    texts = pq.read_table(spool, columns=["query_id", "prompt"])
    names = np.array([tasks[name] for name in gathered.tasks], dtype=object)
    digests = np.empty(len(texts), dtype=object)
    with pq.ParquetWriter(path, stamped(SCHEMA, stamp), compression="zstd") as writer:
        for start in range(0, len(sides.order), CHUNK):
            at = sides.order[start : start + CHUNK]
            some = texts.take(pa.array(at))
            digests[at] = [sha256_text(prompt) for prompt in some["prompt"].to_pylist()]
            count = len(at)
            columns = {
                "query_id": some["query_id"],
                "task": pa.array(names[gathered.task_of[at]], pa.string()),
                "split": pa.array(np.where(sides.train[at], "train", "test"), pa.string()),
                "fold": pa.array(sides.fold[at], pa.int32()),
                "prompt": some["prompt"],
                "reference": pa.array([[]] * count, pa.list_(pa.string())),
                "reference_text": pa.array([""] * count, pa.string()),
                "tests": pa.array([[]] * count, pa.list_(pa.string())),
                "metadata": pa.array(
                    [METADATA] * count if choices is None else map(_metadata, choices[at]),
                    pa.string(),
                ),
            }
            writer.write_table(pa.table(columns, schema=stamped(SCHEMA, stamp)))
    return digests


def _metadata(choices: int) -> str:
    return json.dumps({"choices": str(choices), "kind": "text"}) if choices else METADATA


def _write_outcomes(
    path: Path,
    stamp: str,
    cells: Cells,
    order: NDArray[np.int64],
    digests: NDArray[np.object_],
) -> None:
    tables: list[NDArray[Any] | None] = [cells.score, cells.cost, cells.latency]
    columns: dict[str, pa.Array] = {"text_digest": pa.array(digests[order], pa.string())}
    for number, spec in enumerate(cells.models):
        for measure, table in zip(MEASURES, tables, strict=True):
            if table is not None:
                values = table[order, number]
                columns[column(spec.name, measure)] = pa.array(values, mask=np.isnan(values))
    written = pa.table(columns)
    with pq.ParquetWriter(path, stamped(written.schema, stamp), compression="zstd") as writer:
        writer.write_table(
            written.replace_schema_metadata(None).cast(stamped(written.schema, stamp))
        )

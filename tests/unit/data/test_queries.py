"""The table of queries: written, read back, and refused when it is not whole or not ours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.data.queries import SCHEMA, Query, digest_queries, read_queries, write_queries
from hierrouter.errors import DamagedFileError, HierRouterError

if TYPE_CHECKING:
    from pathlib import Path

QUERIES = [
    Query("a/1", "a", "train", 0, "What is ½?", ("0.5", "1/2"), "Half.", (), {"kind": "number"}),
    Query("a/2", "a", "test", 4, "Line\nbreak", (), "", ("assert f()",), {"kind": "unit_tests"}),
]


def test_written_queries_come_back_in_order(tmp_path: Path) -> None:
    write_queries(tmp_path / "q.parquet", QUERIES)
    assert read_queries(tmp_path / "q.parquet") == QUERIES


def test_no_queries_are_a_table_too(tmp_path: Path) -> None:
    write_queries(tmp_path / "q.parquet", [])
    assert read_queries(tmp_path / "q.parquet") == []


@pytest.mark.parametrize(
    "change",
    [
        {"query_id": "a/3"},
        {"task": "b"},
        {"split": "test"},
        {"fold": 1},
        {"prompt": "other"},
        {"reference": ("0.5",)},
        {"reference_text": "half."},
        {"tests": ("x",)},
        {"metadata": {"kind": "text"}},
    ],
)
def test_digest_covers_every_field(change: dict[str, object]) -> None:
    changed = replace(QUERIES[0], **change)  # type: ignore[arg-type]
    assert digest_queries([changed, QUERIES[1]]) != digest_queries(QUERIES)


def test_digest_is_the_same_after_reading(tmp_path: Path) -> None:
    write_queries(tmp_path / "q.parquet", QUERIES)
    assert digest_queries(read_queries(tmp_path / "q.parquet")) == digest_queries(QUERIES)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HierRouterError, match="hierrouter sample"):
        read_queries(tmp_path / "q.parquet")


@pytest.mark.parametrize("keep", [0, 3, 200, -20])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "q.parquet"
    write_queries(path, QUERIES)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedFileError, match="not a whole Parquet file") as error:
        read_queries(path)
    assert "\n" not in str(error.value)


def test_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    write_queries(path, QUERIES)
    pq.write_table(pq.read_table(path).drop_columns(["fold", "tests"]), path)
    with pytest.raises(DamagedFileError, match="no column fold, tests"):
        read_queries(path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("metadata", ["{", "{}"]),
        ("metadata", ["[]", "{}"]),
        ("split", ["valid", "test"]),
        ("fold", ["one", "two"]),
        ("query_id", ["a/1", "a/1"]),
        ("reference", [None, None]),
    ],
)
def test_values_that_no_query_has(tmp_path: Path, column: str, values: list[object]) -> None:
    path = tmp_path / "q.parquet"
    write_queries(path, QUERIES)
    table = pq.read_table(path)
    table = table.set_column(SCHEMA.get_field_index(column), column, pa.array(values))
    pq.write_table(table, path)
    with pytest.raises(DamagedFileError):
        read_queries(path)

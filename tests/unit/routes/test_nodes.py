from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.errors import DamagedFileError
from hierrouter.routes.costs import call_cost
from hierrouter.routes.nodes import SCHEMA, Node, NodeKey, full_tree, read_nodes, write_nodes

if TYPE_CHECKING:
    from pathlib import Path


def node(reply: str = "Answer: 4", models: tuple[str, ...] = ("A", "B")) -> Node:
    return Node(
        query_id="x/1",
        models=models,
        role="solve",
        reply=reply,
        tokens_in=30,
        tokens_out=7,
        finish_reason="stop",
        latency_s=0.25,
        logprob_mean=-0.5,
        logprob_min=-1.25,
        dtype="bfloat16",
        backend="transformers",
        device="cpu",
        key="0" * 64,
    )


def test_nodes_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = [node(), node('É "x",\n\n\t☃\x00 ', ("A",)), node("")]
    write_nodes(tmp_path / "n.parquet", written)
    assert read_nodes(tmp_path / "n.parquet") == written
    assert pq.read_schema(tmp_path / "n.parquet").names == SCHEMA.names


def test_a_node_stands_at_query_models_and_role() -> None:
    assert node().place == NodeKey("x/1", ("A", "B"), "solve")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    write_nodes(path, [node()])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match=r"n\.parquet cannot be read back"):
        read_nodes(path)


def test_a_foreign_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    pq.write_table(pa.table({"something": [1]}), path)
    with pytest.raises(DamagedFileError, match=r"n\.parquet cannot be read back"):
        read_nodes(path)


@pytest.mark.parametrize(
    ("models", "hops", "nodes"), [(3, 2, 15), (3, 3, 51), (3, 1, 3), (1, 2, 3), (2, 4, 44)]
)
def test_the_full_tree_has_m_to_the_l_answers_and_all_that_leads_there(
    models: int, hops: int, nodes: int
) -> None:
    names = [f"m{number}" for number in range(models)]
    calls = [call for depth in range(1, hops + 1) for call in full_tree(names, hops, depth)]
    # M^d analyses for d < L, and M^d answers for d <= L.
    assert len(calls) == len(set(calls)) == nodes
    assert nodes == sum((2 if d < hops else 1) * models**d for d in range(1, hops + 1))
    assert all(role == "solve" for path, role in calls if len(path) == hops)


def test_a_call_costs_its_rate_times_thousands_of_tokens() -> None:
    assert call_cost(0.002, 400, 100) == pytest.approx(0.001)
    assert call_cost(0.0, 400, 100) == 0

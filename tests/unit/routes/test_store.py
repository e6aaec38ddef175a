"""The index over files of nodes: what it finds, what it keeps in memory, what it says of damage."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.routes import store as stores
from hierrouter.routes.nodes import GROUP, Node, NodeKey, write_nodes
from hierrouter.routes.store import NodeStore

if TYPE_CHECKING:
    from pathlib import Path


def node(number: int, models: tuple[str, ...] = ("A",), reply: str = "") -> Node:
    return Node(
        query_id=f"x/{number}",
        models=models,
        role="solve",
        reply=reply or f"reply {number} of {models}",
        tokens_in=30,
        tokens_out=7,
        finish_reason="stop",
        latency_s=0.25,
        logprob_mean=-0.5,
        logprob_min=-1.25,
        dtype="int8",
        backend="openvino",
        device="cpu",
        key=f"key {number} {models}",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of five nodes each; one place stands in both."""
    write_nodes(tmp_path / "0.parquet", [node(number) for number in range(5)])
    write_nodes(
        tmp_path / "1.parquet",
        [node(0, reply="second"), *(node(number, ("A", "B")) for number in range(4))],
    )
    return tmp_path


def test_every_place_is_found_and_the_first_of_two_counts(folder: Path) -> None:
    store = NodeStore(folder)
    assert len(store) == 9
    for number in range(5):
        assert store[NodeKey(f"x/{number}", ("A",), "solve")] == node(number)
    assert store[NodeKey("x/3", ("A", "B"), "solve")] == node(3, ("A", "B"))
    assert sorted(store) == sorted(each.place for each in store.values())
    assert {place: each.reply for place, each in store.items()} == {
        each.place: each.reply
        for each in [*map(node, range(5)), *(node(n, ("A", "B")) for n in range(4))]
    }


@pytest.mark.parametrize(
    "place",
    [
        NodeKey("x/9", ("A",), "solve"),
        NodeKey("x/0", ("A",), "analyze"),
        NodeKey("x/0", ("B",), "solve"),
        NodeKey("x/0", ("A", "A"), "solve"),
    ],
)
def test_a_place_without_node_is_absent(folder: Path, place: NodeKey) -> None:
    store = NodeStore(folder)
    assert place not in store
    assert store.get(place) is None
    with pytest.raises(KeyError):
        store[place]


def test_queries_are_looked_up_together(folder: Path) -> None:
    store = NodeStore(folder)
    ids = [f"x/{number}" for number in range(6)]
    assert store.absent(ids, ("A",), "solve").tolist() == [False] * 5 + [True]
    assert store.absent(ids, ("A", "B"), "solve").tolist() == [False] * 4 + [True] * 2
    assert store.absent(ids, ("A",), "analyze").all()
    assert NodeStore(folder / "none").absent(ids, ("A",), "solve").all()


def test_several_nodes_are_read_together_and_those_that_are_missing_left_out(folder: Path) -> None:
    store = NodeStore(folder)
    there = [node(3, ("A", "B")), node(0), node(4)]
    missing = NodeKey("x/9", ("A",), "solve")
    found = store.several([there[0].place, missing, there[1].place, there[2].place])
    assert list(found.values()) == there
    assert missing not in found
    assert store.several([]) == {}


def test_a_generation_is_found_by_its_key(folder: Path) -> None:
    store = NodeStore(folder)
    assert store.with_key(node(3).key) == node(3)
    assert store.with_key("another") is None


def test_what_is_appended_is_found_at_once_and_by_the_next_reader(folder: Path) -> None:
    store = NodeStore(folder)
    fresh = [node(number, ("C",)) for number in range(3)]
    store.append("2.parquet", fresh)
    for each in (store, NodeStore(folder)):
        assert len(each) == 12
        assert each[fresh[2].place] == fresh[2]
        assert each.with_key(fresh[1].key) == fresh[1]
        assert [n for n in each.values() if n.models == ("C",)] == fresh
    store.append("3.parquet", [replace(fresh[0], reply="paid for later")])
    assert store[fresh[0].place] == fresh[0]
    assert len(store) == 12


def test_replies_are_not_kept_in_memory(tmp_path: Path, monkeypatch) -> None:
    """A node is read with its row group, and only the groups read last stay."""
    monkeypatch.setattr(stores, "KEPT_ROWS", GROUP)
    count = 3 * GROUP + 5
    write_nodes(tmp_path / "all.parquet", [node(number) for number in range(count)])
    assert pq.ParquetFile(tmp_path / "all.parquet").num_row_groups == 4
    store = NodeStore(tmp_path)
    assert sum(map(len, store._read.values())) == 0
    for number in (0, count - 1, GROUP, 5):
        assert store[node(number).place] == node(number)
        assert sum(map(len, store._read.values())) <= GROUP
    assert sum(1 for _ in store.stream()) == count
    assert sum(map(len, store._read.values())) <= GROUP


def test_a_flipped_bit_in_a_reply_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    write_nodes(path, [node(number, reply=f"{number} " * 40) for number in range(300)])
    column = pq.read_metadata(path).row_group(0).column(3)
    assert column.path_in_schema == "reply"
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 4
    path.write_bytes(content)
    store = NodeStore(tmp_path)
    with pytest.raises(DamagedFileError, match=r"n\.parquet cannot be read back"):
        store[node(1).place]
    assert path.exists()
    with pytest.raises(DamagedFileError, match=r"set aside as \.damaged"):
        NodeStore(tmp_path, set_aside=True)[node(1).place]
    assert not path.exists()
    assert len(NodeStore(tmp_path)) == 0


def test_a_file_that_cannot_be_read_now_is_not_set_aside(folder: Path, monkeypatch) -> None:
    """Out of file handles, a flaky disk: nothing that was paid for may be made anew for it."""
    reading = pq.ParquetFile

    def busy(path, **more):
        if str(path).endswith("1.parquet"):
            raise OSError(errno.EBUSY, "Slow down")
        return reading(path, **more)

    monkeypatch.setattr(stores.pq, "ParquetFile", busy)
    with pytest.raises(
        HierRouterError, match=r"1\.parquet cannot be read now.*nothing was changed"
    ):
        NodeStore(folder, set_aside=True)
    monkeypatch.undo()
    assert len(NodeStore(folder, set_aside=True)) == 9

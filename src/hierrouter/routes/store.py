"""The nodes of a tree: an index of all of them in memory, their replies on disk until wanted.

The index takes 24 bytes a node: a 64-bit hash of its place and one of its generation key, each with
the row it stands in. (Among a million nodes the chance that two places share a hash is 3e-8.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.util import hash_array

from hierrouter.errors import DamagedFileError
from hierrouter.files import fetched, is_remote, kept_here, put_new, temporary_folder
from hierrouter.routes.nodes import Node, NodeKey, nodes_of, unreadable, write_nodes
from hierrouter.routes.quotes import Quotes

if TYPE_CHECKING:
    import tempfile
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from hierrouter.pool.prompts import Role

SEPARATOR = "\x1f"
INDEXED = ["query_id", "models", "role", "key"]
KEPT_ROWS = 32_768
"""Rows of the groups read last that stay in memory."""


class NodeStore(Mapping[NodeKey, Node]):
    """Nodes by place, over the Parquet files of one folder, and by generation key.

    Of two nodes with one place the first in the order of file names counts: it is what was paid
    for, and what later hops were built on.
    """

    def __init__(self, folder: Path, set_aside: bool = False, quotes: Quotes | None = None) -> None:
        """Indexes the files in `folder`; reads no reply.

        Args:
            folder: where the files lie; it need not exist.
            set_aside: whether damaged files are renamed, so that what they held is found missing.
            quotes: what is left out of the replies in the files; none: they are as they stand.

        Raises:
            DamagedFileError: a file cannot be read back; the others were looked at too.
            HierRouterError: a file cannot be read now; nothing is renamed then.
        """
        self._folder, self._set_aside = folder, set_aside
        self._quotes = quotes or Quotes()
        self._metadata: dict[Path, pq.FileMetaData] = {}
        self._groups: list[tuple[Path, int]] = []
        self._starts: list[int] = []
        self._rows = 0
        self._by_place, self._by_key = _Index(), _Index()
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        self._read: OrderedDict[int, list[Node]] = OrderedDict()
        self._scan()

    def files(self) -> list[Path]:
        """The files, in a fixed order."""
        if not self._folder.is_dir():
            return []
        return sorted(self._folder.glob("[!.]*.parquet"))

    def append(self, name: str, nodes: Sequence[Node]) -> None:
        """Adds nodes as one file, all or none.

        Raises:
            BusyError: another process has put such a file there, with other content.
            HierRouterError: it cannot be written.
        """
        path = self._folder / name
        if is_remote(path):
            self._put(path, self.as_stored(nodes))
        else:
            write_nodes(path, self.as_stored(nodes))
        first = self._rows
        self._add_groups(path)
        self._by_place.extend(hashes([_text(node.place) for node in nodes]), first)
        self._by_key.extend(hashes([node.key for node in nodes]), first)

    def as_stored(self, nodes: Sequence[Node]) -> list[Node]:
        """Nodes as they stand in the files."""
        return self._quotes.leave_out(nodes)

    def absent(
        self, query_ids: Sequence[str], models: Sequence[str], role: Role
    ) -> NDArray[np.bool_]:
        """For each of N queries, whether it has no node there: much faster than one by one."""
        # Strings of an object array are added by numpy.
        texts = np.array(query_ids, dtype=object) + _text(NodeKey("", tuple(models), role))
        absent: NDArray[np.bool_] = self._by_place.find(hashes(texts)) < 0
        return absent

    def several(self, places: Sequence[NodeKey]) -> dict[NodeKey, Node]:
        """The nodes of those places that have one: much faster than one by one."""
        rows = self._by_place.find(hashes([_text(place) for place in places]))
        return {
            place: self._at(int(row)) for place, row in zip(places, rows, strict=True) if row >= 0
        }

    def with_key(self, key: str) -> Node | None:
        """A node that this generation made, wherever it stands."""
        row = int(self._by_key.find(hashes([key]))[0])
        node = None if row < 0 else self._at(row)
        return node if node is not None and node.key == key else None

    def stream(self, files: Container[Path] | None = None) -> Iterator[Node]:
        """Every node once, file by file; holds one row group at a time.

        Args:
            files: only nodes that stand in these; none: all.
        """
        for group, (path, _) in enumerate(self._groups):
            if files is not None and path not in files:
                continue
            nodes = self._read.get(group) or self._decode(group)
            first = self._by_place.find(hashes([_text(node.place) for node in nodes]))
            for offset, node in enumerate(nodes):
                if first[offset] == self._starts[group] + offset:
                    yield node

    def __getitem__(self, place: NodeKey) -> Node:
        return self.several([place])[place]

    def __contains__(self, place: object) -> bool:
        return isinstance(place, tuple) and not self.absent([place[0]], place[1], place[2])[0]

    def __iter__(self) -> Iterator[NodeKey]:
        return (node.place for node in self.stream())

    def __len__(self) -> int:
        return self._by_place.distinct()

    def values(self) -> ValuesView[Node]:
        """Every node, read file by file."""
        return _Values(self)

    def items(self) -> ItemsView[NodeKey, Node]:
        """Every place and node, read file by file."""
        return _Items(self)

    def _at(self, row: int) -> Node:
        group = bisect_right(self._starts, row) - 1
        if group not in self._read:
            self._read[group] = self._decode(group)
            while len(self._read) > 1 and sum(map(len, self._read.values())) > KEPT_ROWS:
                self._read.popitem(last=False)
        self._read.move_to_end(group)
        return self._read[group][row - self._starts[group]]

    def _decode(self, group: int) -> list[Node]:
        path, number = self._groups[group]
        try:
            with pq.ParquetFile(
                self._at_hand(path), metadata=self._metadata[path], page_checksum_verification=True
            ) as file:
                return self._quotes.put_back(
                    nodes_of(file.read_row_group(number, use_threads=False))
                )
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise self._lost([self._damaged(path, error)]) from error

    def _at_hand(self, path: Path) -> Path:
        """The file itself; of an object a copy, fetched once, as files are never rewritten."""
        if not is_remote(path):
            return path
        copy = self._copy_of(path)
        if not copy.exists():
            content, part = fetched(path), copy.with_suffix(".part")
            with kept_here(path):
                part.write_bytes(content)
                part.replace(copy)
        return copy

    def _put(self, path: Path, nodes: Sequence[Node]) -> None:
        """Puts an object whose copy then is at hand."""
        copy = self._copy_of(path)
        try:
            write_nodes(copy, nodes)
            put_new(copy, path)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise

    def _copy_of(self, path: Path) -> Path:
        self._copies = self._copies or temporary_folder(path)
        return Path(self._copies.name) / path.name

    def _scan(self) -> None:
        places: list[NDArray[np.uint64]] = []
        keys: list[NDArray[np.uint64]] = []
        failures: list[DamagedFileError] = []
        for path in self.files():
            try:
                found = list(_indexed(self._at_hand(path)))
                self._add_groups(path)
            except (OSError, pa.ArrowException, KeyError, ValueError) as error:
                failures.append(self._damaged(path, error))
                continue
            places += [place for place, _ in found]
            keys += [key for _, key in found]
        if failures:
            raise self._lost(failures)
        if places:
            self._by_place.extend(np.concatenate(places), 0)
            self._by_key.extend(np.concatenate(keys), 0)

    def _add_groups(self, path: Path) -> None:
        # Kept, as parsing it again for every read would take longer than the reading.
        self._metadata[path] = pq.read_metadata(self._at_hand(path))
        for number in range(self._metadata[path].num_row_groups):
            self._groups.append((path, number))
            self._starts.append(self._rows)
            self._rows += self._metadata[path].row_group(number).num_rows

    def _damaged(self, path: Path, error: Exception) -> DamagedFileError:
        """What to say of a damaged file, which is set aside if that is wanted.

        Raises:
            HierRouterError: it is not damaged, it only cannot be read now.
        """
        failure = unreadable(path, error)
        if not isinstance(failure, DamagedFileError):
            raise failure from error
        if self._set_aside:
            path.rename(path.with_suffix(".damaged"))
        return failure

    def _lost(self, failures: Sequence[DamagedFileError]) -> DamagedFileError:
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        aside = " and is set aside as .damaged" if self._set_aside else ""
        return DamagedFileError(
            f"{failures[0]}{others}{aside}; run `hierrouter collect` or "
            "`hierrouter run` again: what it held is generated anew, all else is kept"
        )


class _Values(ValuesView[Node]):
    _mapping: NodeStore

    def __iter__(self) -> Iterator[Node]:
        return self._mapping.stream()


class _Items(ItemsView[NodeKey, Node]):
    _mapping: NodeStore

    def __iter__(self) -> Iterator[tuple[NodeKey, Node]]:
        return ((node.place, node) for node in self._mapping.stream())


class _Index:
    """Rows by the hash of what stands in them; of rows with one hash the first is found."""

    def __init__(self) -> None:
        self._hashes = np.zeros(0, np.uint64)
        self._rows = np.zeros(0, np.uint32)

    def extend(self, new: NDArray[np.uint64], first_row: int) -> None:
        """Adds the rows from `first_row` on."""
        order = np.argsort(new, kind="stable")
        at = np.searchsorted(self._hashes, new[order], side="right")
        self._hashes = np.insert(self._hashes, at, new[order])
        self._rows = np.insert(self._rows, at, (order + first_row).astype(np.uint32))

    def find(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each of N hashes, -1 where there is none."""
        if not len(self._hashes):
            return np.full(len(wanted), -1)
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.where(self._hashes[at] == wanted, self._rows[at].astype(np.int64), -1)

    def distinct(self) -> int:
        """How many hashes there are."""
        return int((np.diff(self._hashes) != 0).sum()) + 1 if len(self._hashes) else 0


def hashes(texts: Iterable[str] | NDArray[np.object_]) -> NDArray[np.uint64]:
    """A 64-bit hash of each of N texts."""
    array = texts if isinstance(texts, np.ndarray) else np.array(list(texts), dtype=object)
    found: NDArray[np.uint64] = hash_array(array, categorize=False)
    return found


def _text(place: NodeKey) -> str:
    return SEPARATOR.join((place[0], *place[1], place[2]))


def _indexed(path: Path) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """The hashes of places and keys of a file, some rows at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=INDEXED):
            models = pc.binary_join(batch["models"], SEPARATOR)
            texts = pc.binary_join_element_wise(batch["query_id"], models, batch["role"], SEPARATOR)
            yield (
                hashes(texts.to_numpy(zero_copy_only=False)),
                hashes(batch["key"].to_numpy(zero_copy_only=False)),
            )

"""Reading a file of outcomes block by block, and finding the line of a row that is refused."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from hierrouter.errors import ConfigError
from hierrouter.routes.imported.columns import (
    CHOICES,
    KNOWN,
    NEVER_NEEDED,
    NUMBERS,
    TOKENS,
    TYPES,
    VECTOR,
    Kind,
    check_columns,
    complaint,
    mixed,
    show,
)
from hierrouter.routes.imported.rows import (
    BOM,
    WrongLineError,
    csv_header,
    csv_rows,
    json_rows,
    open_bytes,
    separator_of,
)
from hierrouter.routes.imported.schema import empty, parquet_columns, pass_over_choices, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDINGS: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
BLOCK = 2 << 20
"""Bytes of text that are parsed together; a row must fit. The parser reads some blocks ahead, so
memory follows from it."""
ROWS = 16_384
"""Rows of a Parquet file that are decoded together."""
LOOKED_AT = 1000
"""First rows: keys of JSON there are the columns, and values tell how columns are read."""
LATE = frozenset(("split", *TOKENS, *NEVER_NEEDED))
"""Columns that may stand in later lines of JSON alone: looked for, whatever the first ones have."""


@dataclass(frozen=True)
class OutcomesFile:
    """A file of outcomes whose columns are known to be right."""

    path: Path
    kind: Kind
    columns: tuple[str, ...]
    """Those of `KNOWN` that it has."""
    types: dict[str, pa.DataType]
    """As what the parser reads some of them, where that is not as in `TYPES`."""
    separator: str = ","
    """What stands between the values of a row of CSV."""

    @classmethod
    def open(cls, path: Path) -> OutcomesFile:
        """Looks at a file's columns.

        Raises:
            ConfigError: it is no such file, or its columns are not those that are needed.
        """
        kind = _kind_of(path)
        first: dict[str, Any] = {}
        separator = ","
        late = LATE if kind == "jsonl" else frozenset[str]()
        if kind == "parquet":
            found = parquet_columns(path)
        else:
            found, first, separator = _head(path, kind)
            if (value := first.get(CHOICES)) is not None and complaint(CHOICES, value):
                pass_over_choices(path, show(value))
                found = [name for name in found if name != CHOICES]
                late -= {CHOICES}
        check_columns(path, found)
        types = {}
        if isinstance(first.get("query_id"), int):
            types["query_id"] = pa.int64()
        if isinstance(first.get("score"), bool) or str(first.get("score")).lower() in (
            "true",
            "false",
        ):
            types["score"] = pa.bool_()
        there = {*found, *late}
        return cls(path, kind, tuple(name for name in KNOWN if name in there), types, separator)

    @property
    def optional(self) -> frozenset[str]:
        """The columns of numbers in which some may be missing."""
        return frozenset(NEVER_NEEDED) | frozenset(TOKENS if "cost" in self.columns else ())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, with the columns as in `TYPES`; holds some blocks at a time.

        Raises:
            ConfigError: a row cannot be parsed; names its line.
        """
        try:
            for batch in self._parsed():
                arrays = []
                for name in self.columns:
                    array = pc.cast(batch.column(name), TYPES[name], safe=False)
                    if pa.types.is_string(TYPES[name]):
                        array.validate(full=True)  # not every parser looks at the encoding
                    arrays.append(array)
                if batch.num_rows:
                    yield pa.RecordBatch.from_arrays(arrays, list(self.columns))
        except (pa.ArrowException, ValueError, EOFError) as error:
            raise self._unparsed(error) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read ({reason(error)})") from None

    def _parsed(self) -> Iterator[pa.RecordBatch]:
        types = {name: self.types.get(name, TYPES[name]) for name in self.columns}
        if self.kind == "parquet":
            with pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as file:
                yield from file.iter_batches(ROWS, columns=list(self.columns), use_threads=False)
            return
        with _stream(self.path) as stream:
            if self.kind == "csv":
                yield from pacsv.open_csv(
                    stream,
                    read_options=pacsv.ReadOptions(block_size=BLOCK, use_threads=False),
                    parse_options=pacsv.ParseOptions(
                        delimiter=self.separator, newlines_in_values=True
                    ),
                    convert_options=pacsv.ConvertOptions(
                        column_types=types,
                        include_columns=list(self.columns),
                        null_values=[""],
                        strings_can_be_null=False,
                    ),
                )
            else:
                yield from pajson.open_json(
                    stream,
                    read_options=pajson.ReadOptions(block_size=BLOCK, use_threads=False),
                    parse_options=pajson.ParseOptions(
                        explicit_schema=pa.schema(types),
                        unexpected_field_behavior="ignore",
                    ),
                )

    def where(self, row: int) -> str:
        """The place of a row (from 0) as a person finds it: its line, or its row from 1."""
        if self.kind == "parquet":
            return f"row {row + 1}"
        # The parser takes lines that are none for `json_rows`: several objects, a key twice.
        with contextlib.suppress(WrongLineError):
            for number, (line, _) in enumerate(self._rows_one_by_one()):
                if number == row:
                    return f"line {line}"
        return f"row {row + 1}"

    def _unparsed(self, error: Exception) -> ConfigError:
        """What to say of a file that the parser gave up on: the first row that is at fault."""
        if "straddling" in str(error):
            return ConfigError(
                f"{self.path}: holds a row of more than {BLOCK >> 20} MB; shorten its prompt, or "
                "save the file as Parquet"
            )
        if "Expected all lists to be of size" in str(error):
            # The reader of Parquet cannot give lists of one size of which some are missing.
            return ConfigError(
                f"{self.path}: {VECTOR}: is missing in some rows, and as the column's lists are of "
                "one fixed size it cannot be; give every row its vector, or save the column as "
                "lists of any size"
            )
        if self.kind != "parquet":
            try:
                for line, row in self._rows_one_by_one():
                    for name in self.columns:
                        if wrong := self._wrong(name, row.get(name)):
                            return ConfigError(f"{self.path}: line {line}: {wrong}")
            except WrongLineError as wrong_line:
                return ConfigError(f"{self.path}: {wrong_line}")
            except (OSError, EOFError) as broken:
                return ConfigError(f"{self.path}: cannot be read ({reason(broken)})")
        # Of JSON, rows are counted from the beginning of a block.
        said = re.sub(r" in row \d+$", "", reason(error))
        return ConfigError(f"{self.path}: cannot be read as {self.kind} ({said})")

    def _wrong(self, name: str, value: Any) -> str | None:
        """What the parser may have stumbled over, which is no number that is missing."""
        if said := complaint(name, value, NUMBERS):
            return said
        wanted = self.types.get(name, TYPES[name])
        if self.kind == "csv" and pa.types.is_floating(wanted) and _is_number(value):
            return None
        return mixed(name, value, wanted)

    def _rows_one_by_one(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line and content of each row; slow: it serves messages alone."""
        return csv_rows(self.path, self.separator) if self.kind == "csv" else json_rows(self.path)


def _is_number(text: str | None) -> bool:
    """Whether the parser of CSV takes a text for a number."""
    try:
        pc.cast(pa.array([(text or "").strip()]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _kind_of(path: Path) -> Kind:
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name one file of outcomes")
    endings = [suffix.lower() for suffix in path.suffixes]
    zipped = endings[-1:] == [".gz"]
    ending = (endings[:-1] if zipped else endings)[-1:]
    kind = ENDINGS.get(ending[0]) if ending else None
    if kind is None or (zipped and kind == "parquet"):
        hint = " (an object a line, saved as .jsonl)" if ending == [".json"] else ""
        raise ConfigError(
            f"{path}: its ending does not tell what it is; should be .csv, .tsv or .jsonl, with "
            f".gz after it or not, or .parquet{hint}"
        )
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise empty(path)
    return kind


def _head(path: Path, kind: Kind) -> tuple[list[str], dict[str, Any], str]:
    """The columns of a text file (of JSON, those of the first lines), first values, separator.

    The first value of a column is the first that is not missing, within the first lines.
    """
    separator = ","
    try:
        if kind == "csv":
            separator = separator_of(path)
            found = csv_header(path, separator)
            rows = [row for _, row in islice(csv_rows(path, separator), LOOKED_AT)]
        else:
            rows = [row for _, row in islice(json_rows(path), LOOKED_AT)]
            found = list(dict.fromkeys(key for row in rows for key in row))
    except WrongLineError as wrong:
        raise ConfigError(f"{path}: {wrong}") from None
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read ({reason(error)})") from None
    if not rows:
        if kind == "csv":
            check_columns(path, found)
        raise empty(path)
    first: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and value != "":
                first.setdefault(name, value)
    return found, first, separator


@contextlib.contextmanager
def _stream(path: Path) -> Iterator[Any]:
    """The content without a byte order mark, unpacked."""
    with open_bytes(path) as file:
        marked = file.read(len(BOM)) == BOM
    packing = "gzip" if path.suffix.lower() == ".gz" else None
    with pa.input_stream(str(path), compression=packing) as stream:
        if marked:
            stream.read(len(BOM))
        yield stream

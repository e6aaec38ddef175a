"""Reading a file of outcomes block by block, and finding the line of a row that is refused."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from hierrouter.errors import ConfigError
from hierrouter.routes.imported.columns import KNOWN, TYPES, Kind, check_columns, complaint, mixed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDINGS: dict[str, Kind] = {
    ".csv": "csv",
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
"""Lines of JSON whose keys are taken to be the columns."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class OutcomesFile:
    """A file of outcomes whose columns are known to be right."""

    path: Path
    kind: Kind
    columns: tuple[str, ...]
    """Those of `KNOWN` that it has."""
    types: dict[str, pa.DataType]
    """As what the parser reads some of them, where that is not as in `TYPES`."""

    @classmethod
    def open(cls, path: Path) -> OutcomesFile:
        """Looks at a file's columns.

        Raises:
            ConfigError: it is no such file, or its columns are not those that are needed.
        """
        kind = _kind_of(path)
        first: dict[str, Any] = {}
        if kind == "parquet":
            with _readable(path):
                schema = pq.read_schema(path)
            found = schema.names
            if not pq.read_metadata(path).num_rows:
                raise _empty(path)
            for name in (each for each in found if each in KNOWN):
                _check_type(path, name, schema.field(name).type)
        else:
            found, first = _head(path, kind)
        check_columns(path, found)
        types = {}
        if isinstance(first.get("query_id"), int):
            types["query_id"] = pa.int64()
        if isinstance(first.get("score"), bool) or str(first.get("score")).lower() in (
            "true",
            "false",
        ):
            types["score"] = pa.bool_()
        # A split may be given for the last lines alone; other columns stand in the first ones.
        there = {*found, "split"} if kind == "jsonl" else set(found)
        return cls(path, kind, tuple(name for name in KNOWN if name in there), types)

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
            raise ConfigError(f"{self.path}: cannot be read ({_reason(error)})") from None

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
                    parse_options=pacsv.ParseOptions(newlines_in_values=True),
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
        if self.kind != "parquet":
            try:
                for line, row in self._rows_one_by_one():
                    for name in self.columns:
                        if wrong := self._wrong(name, row.get(name)):
                            return ConfigError(f"{self.path}: line {line}: {wrong}")
            except _WrongLineError as wrong_line:
                return ConfigError(f"{self.path}: {wrong_line}")
            except (OSError, EOFError) as broken:
                return ConfigError(f"{self.path}: cannot be read ({_reason(broken)})")
        return ConfigError(f"{self.path}: cannot be read as {self.kind} ({_reason(error)})")

    def _wrong(self, name: str, value: Any) -> str | None:
        """What the parser may have stumbled over."""
        if said := complaint(name, value):
            return said
        wanted = self.types.get(name, TYPES[name])
        if self.kind == "csv" and pa.types.is_floating(wanted) and _is_number(value):
            return None
        return mixed(name, value, wanted)

    def _rows_one_by_one(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line and content of each row; slow: it serves messages alone."""
        return _csv_rows(self.path) if self.kind == "csv" else _json_rows(self.path)


def _is_number(text: str | None) -> bool:
    """Whether the parser of CSV takes a text for a number."""
    try:
        pc.cast(pa.array([(text or "").strip()]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


class _WrongLineError(ValueError):
    """A line that is no row."""


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
            f"{path}: its ending does not tell what it is; should be .csv or .jsonl, with .gz "
            f"after it or not, or .parquet{hint}"
        )
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise _empty(path)
    return kind


def _empty(path: Path) -> ConfigError:
    return ConfigError(f"{path}: holds no rows; it needs one for each query and model")


def _check_type(path: Path, name: str, kind: pa.DataType) -> None:
    """Refuses a Parquet column of another type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    wanted = TYPES[name]
    if pa.types.is_string(wanted):
        good = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        good = (
            good or kind == pa.string_view() or (name == "query_id" and pa.types.is_integer(kind))
        )
        what = "text"
    elif pa.types.is_list(wanted):
        listed = (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        )
        good = listed and (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        )
        what = "lists of numbers"
    else:
        good = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        good = good or pa.types.is_decimal(kind) or (name == "score" and pa.types.is_boolean(kind))
        what = "numbers"
    if not good:
        raise ConfigError(f"{path}: the column {name} holds {kind}; should be {what}")


def _head(path: Path, kind: Kind) -> tuple[list[str], dict[str, Any]]:
    """The columns of a text file (of JSON, those of the first lines), and its first row."""
    try:
        if kind == "csv":
            with _text(path) as file:
                header = next(csv.reader(file), [])
            row = next(_csv_rows(path), None)
            found = header
        else:
            rows = list(islice(_json_rows(path), LOOKED_AT))
            row = rows[0] if rows else None
            found = list(dict.fromkeys(key for _, each in rows for key in each))
    except _WrongLineError as wrong:
        raise ConfigError(f"{path}: {wrong}") from None
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read ({_reason(error)})") from None
    if row is None:
        if kind == "csv":
            check_columns(path, found)
        raise _empty(path)
    return found, row[1]


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    before = csv.field_size_limit(1 << 30)
    try:
        with _text(path) as file:
            reader = csv.reader(file)
            header: list[str] | None = None
            line = 1
            for values in reader:
                start, line = line, reader.line_num + 1
                if not values:
                    continue
                if header is None:
                    header = values
                    continue
                if len(values) != len(header):
                    raise _WrongLineError(
                        f"line {start}: has {len(values)} values, the header {len(header)} "
                        "columns; quote texts that hold commas, quotes or line breaks"
                    )
                yield start, dict(zip(header, values, strict=True))
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except csv.Error as error:
        raise _WrongLineError(f"line {line}: is not CSV ({error})") from None
    finally:
        csv.field_size_limit(before)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _bytes(path) as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(BOM) if number == 1 else line
            if not content.strip():
                continue
            try:
                row = json.loads(content.decode("utf-8"))
            except UnicodeDecodeError:
                raise _WrongLineError(f"line {number}: is not UTF-8; save it as UTF-8") from None
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", None) or str(error)
                raise _WrongLineError(
                    f"line {number}: is not JSON ({reason}); one object a line is wanted"
                ) from None
            if not isinstance(row, dict):
                raise _WrongLineError(
                    f"line {number}: is not a JSON object; one object a line is wanted"
                )
            yield number, row


def _not_utf8(path: Path) -> _WrongLineError:
    with _bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return _WrongLineError(f"line {number}: is not UTF-8; save it as UTF-8")
    return _WrongLineError("is not UTF-8; save it as UTF-8")


def _bytes(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    return path.open("rb")


def _text(path: Path) -> IO[str]:
    return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", newline="")


@contextlib.contextmanager
def _stream(path: Path) -> Iterator[Any]:
    """The content without a byte order mark, unpacked."""
    with _bytes(path) as file:
        marked = file.read(len(BOM)) == BOM
    packing = "gzip" if path.suffix.lower() == ".gz" else None
    with pa.input_stream(str(path), compression=packing) as stream:
        if marked:
            stream.read(len(BOM))
        yield stream


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: is not a whole Parquet file ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

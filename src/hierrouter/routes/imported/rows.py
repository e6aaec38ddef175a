"""Text files of outcomes row by row, with the line of each: slow, for headers and for messages."""

from __future__ import annotations

import csv
import gzip
import io
import json
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from hierrouter.routes.imported.columns import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What may stand between the values of a row, and what it is called."""


class WrongLineError(ValueError):
    """A line that is no row."""


def open_bytes(path: Path) -> IO[bytes]:
    """The content, unpacked."""
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    return path.open("rb")


def separator_of(path: Path) -> str:
    """What stands between the values of a row: that by which the header has most columns of ours.

    Raises:
        WrongLineError: the header cannot be read.
    """
    tabbed = any(suffix.lower() == ".tsv" for suffix in path.suffixes)
    usual = "\t" if tabbed else ","
    if len(set(csv_header(path, usual)) & set(KNOWN)) > 1:
        return usual

    def fits(separator: str) -> tuple[int, int]:
        found = csv_header(path, separator)
        return len(set(found) & set(KNOWN)), len(found)

    return max([usual, *(each for each in SEPARATORS if each != usual)], key=fits)


def csv_header(path: Path, separator: str) -> list[str]:
    """The values of the first line that holds any.

    Raises:
        WrongLineError: it cannot be read.
    """
    return next((values for _, values in _csv_lines(path, separator)), [])


def csv_rows(path: Path, separator: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and content of each row.

    Raises:
        WrongLineError: a line is no row.
    """
    header: list[str] | None = None
    for start, values in _csv_lines(path, separator):
        if header is None:
            header = values
            continue
        if len(values) != len(header):
            raise WrongLineError(
                f"line {start}: has {len(values)} values, the header {len(header)} columns; quote "
                f"texts that hold {SEPARATORS[separator]}, quotes or line breaks"
            )
        yield start, dict(zip(header, values, strict=True))


def _csv_lines(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not blank, and its values."""
    before = csv.field_size_limit(1 << 30)
    line = 1
    try:
        with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            for values in reader:
                start, line = line, reader.line_num + 1
                if values:
                    yield start, values
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except csv.Error as error:
        raise WrongLineError(f"line {line}: is not CSV ({error})") from None
    finally:
        csv.field_size_limit(before)


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and content of each row.

    Raises:
        WrongLineError: a line is no row.
    """
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(BOM) if number == 1 else line
            if not content.strip():
                continue
            keys: list[str] = []
            try:
                row = json.loads(content.decode("utf-8"), object_pairs_hook=partial(_paired, keys))
            except UnicodeDecodeError:
                raise _not_utf8(path) from None
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", None) or str(error)
                raise WrongLineError(
                    f"line {number}: is not JSON ({reason}); one object a line is wanted"
                ) from None
            if not isinstance(row, dict):
                raise WrongLineError(
                    f"line {number}: is not a JSON object; one object a line is wanted"
                )
            if len(keys) > len(row) and (twice := [name for name in KNOWN if keys.count(name) > 1]):
                raise WrongLineError(f"line {number}: has {twice[0]} twice; leave one of them out")
            if b"\\u" in content and not _is_text(row):
                raise WrongLineError(
                    f"line {number}: holds half of a surrogate pair (\\ud800 to \\udfff), which is "
                    "no character; leave it out"
                )
            yield number, row


def _paired(keys: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; its keys, one for each time, are left in `keys` (the outermost's last)."""
    keys[:] = [key for key, _ in pairs]
    return dict(pairs)


def _is_text(row: dict[str, Any]) -> bool:
    """Whether all that is in a row can be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_utf8(path: Path) -> WrongLineError:
    with open_bytes(path) as file:
        if file.read(2) in UTF16:
            return WrongLineError("is UTF-16; save it as UTF-8")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return WrongLineError(f"line {number}: is not UTF-8; save it as UTF-8")
    return WrongLineError("is not UTF-8; save it as UTF-8")

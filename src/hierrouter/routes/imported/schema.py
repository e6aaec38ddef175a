"""The columns of a Parquet file of outcomes, and whether their types can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.errors import ConfigError
from hierrouter.progress import say
from hierrouter.routes.imported.columns import CHOICES, KNOWN, TEXTS, TYPES

if TYPE_CHECKING:
    from pathlib import Path


def parquet_columns(path: Path) -> list[str]:
    """The columns of a Parquet file, of types that can be read.

    A column of nothing (pandas writes such of type null) is as good as none, where none is needed.
    """
    try:
        schema = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: is not a whole Parquet file ({reason(error)})") from None
    if not rows:
        raise empty(path)
    found = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if pa.types.is_null(kind) and name not in (*TEXTS, "score"):
            continue
        if name == CHOICES and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            pass_over_choices(path, str(kind))
            continue
        if name in KNOWN:
            _check_type(path, name, kind)
        found.append(name)
    return found


def pass_over_choices(path: Path, what: str) -> None:
    """Says why a column of that name is not read: it often holds the choices themselves."""
    say(f"note: {path}: the column {CHOICES} is passed over, it holds {what} and no numbers")


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


def empty(path: Path) -> ConfigError:
    """What to say of a file without rows."""
    return ConfigError(f"{path}: holds no rows; it needs one for each query and model")


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__

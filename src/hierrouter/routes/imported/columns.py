"""What a file of outcomes must hold: its columns, and what may stand in each.

The rules are stated once, for single values: rows are judged in bulk, and the first that is refused
is judged again here, for what to say of it.
"""

from __future__ import annotations

import difflib
import json
import math
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from hierrouter.errors import ConfigError
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

Kind = Literal["csv", "jsonl", "parquet"]
TEXTS = ("query_id", "task", "prompt", "model")
TOKENS = ("tokens_in", "tokens_out")
CHOICES = "choices"
MOST_CHOICES = 1000
NEVER_NEEDED = ("latency_s", CHOICES)
"""Numbers of which some may be missing in any file."""
MEASURED = ("score", "cost", *TOKENS, "latency_s")
"""What is said of an answer, not of its query."""
NUMBERS = (*MEASURED, CHOICES)
SPLITS = ("train", "test")
VECTOR = "embedding"
KNOWN = (*TEXTS, *NUMBERS, "split", VECTOR)
TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys((*TEXTS, "split"), pa.string()),
    **dict.fromkeys(NUMBERS, pa.float64()),
    VECTOR: pa.list_(pa.float32()),
}
"""The columns that are read, and as what."""
OTHER_NAMES = {
    **dict.fromkeys(("id", "question_id", "request_id", "qid"), "query_id"),
    **dict.fromkeys(("dataset", "benchmark", "category"), "task"),
    **dict.fromkeys(("question", "input", "query", "messages", "text"), "prompt"),
    **dict.fromkeys(("model_name", "model_id", "llm"), "model"),
    **dict.fromkeys(("quality", "accuracy", "reward", "correct", "rating"), "score"),
    **dict.fromkeys(("spend", "price", "response_cost", "cost_usd", "usd"), "cost"),
    **dict.fromkeys(("prompt_tokens", "input_tokens"), "tokens_in"),
    **dict.fromkeys(("completion_tokens", "output_tokens"), "tokens_out"),
    **dict.fromkeys(("latency", "duration", "seconds"), "latency_s"),
}
"""What our columns are called elsewhere."""


def check_columns(path: Path, found: Sequence[str]) -> None:
    """Makes sure that a file has the columns that are needed, each once.

    Says which other columns may be optional ones by another name.

    Raises:
        ConfigError: it has not, or one is an optional column but for its case or a plural.
    """
    twice = sorted({name for name in found if found.count(name) > 1 and name in KNOWN})
    if twice:
        raise ConfigError(f"{path}: the column {twice[0]} stands twice; leave one of them out")
    priced = "cost" in found or set(TOKENS) <= set(found)
    needed = [*TEXTS, "score"]
    if not priced:
        needed += (
            [name for name in TOKENS if name not in found] if set(TOKENS) & set(found) else ["cost"]
        )
    others = [name for name in found if name not in KNOWN]
    for name in needed:
        if name not in found:
            near = nearest(name, others)
            hint = f" (is it {near}? rename that)" if near else ""
            also = ", or tokens_in and tokens_out" if name == "cost" else ""
            free = "; where costs do not matter, give each row a cost of 0" if also else ""
            has = ", ".join(found[:12]) + (", …" if len(found) > 12 else "") or "none"
            raise ConfigError(
                f"{path}: there is no column {name}{also}{hint}; its columns are: {has}{free}"
            )
    absent = [name for name in KNOWN if name not in found]
    for name in others:
        plain = name.strip().lower()
        if slip := next((known for known in absent if plain in (known, f"{known}s")), None):
            raise ConfigError(f"{path}: unknown column {name} (did you mean {slip}?); rename it")
        if nearly := difflib.get_close_matches(plain, absent, 1, 0.8):
            say(f"note: {path}: the column {name} is passed over; if it is {nearly[0]}, rename it")


def nearest(wanted: str, names: Sequence[str]) -> str | None:
    """The name that may stand for a column that is missing."""
    for name in names:
        if OTHER_NAMES.get(name.lower()) == wanted or name.lower() == wanted:
            return name
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    return near[0] if near else None


def complaint(column: str, value: Any, optional: Collection[str] = NEVER_NEEDED) -> str | None:
    """What is wrong with one value, in words; nothing if it may stand there.

    Args:
        column: one of `KNOWN`.
        value: as JSON has it; of a CSV file numbers are texts, too.
        optional: columns of numbers in which some may be missing.
    """
    if column in TEXTS:
        if value is None or value == "":
            return f"{column}: is missing; every row needs one"
        if isinstance(value, int) and not isinstance(value, bool) and column == "query_id":
            return None
        if not isinstance(value, str):
            return f"{column}: {show(value)} is not text; write it as text"
        return None if value.strip() else f"{column}: is blank; every row needs one"
    if column == "split":
        if value in (None, "", *SPLITS):
            return None
        return f"split: {show(value)} is not allowed; should be train or test, or empty"
    if column == VECTOR:
        return None if value is None or _is_vector(value) else f"{VECTOR}: is not a list of numbers"
    return _number_complaint(column, value, column in optional)


def _number_complaint(column: str, value: Any, optional: bool) -> str | None:
    if value is None or value == "":
        remedy = ", or import with --partial, which leaves such rows out"
        more = remedy if column == "score" else ""
        return None if optional else f"{column}: is missing; every row needs one{more}"
    if isinstance(value, str):
        try:
            value = (
                {"true": 1.0, "false": 0.0}.get(value.lower())
                if column == "score" and (value.lower() in ("true", "false"))
                else float(value)
            )
        except ValueError:
            hint = "; write decimals with a point" if _is_number(value.replace(",", ".")) else ""
            return f"{column}: {show(value)} is not a number{hint}"
    if not isinstance(value, int | float):
        return f"{column}: {show(value)} is not a number"
    if optional and math.isnan(value):
        return None
    if column == "score":
        if 0 <= value <= 1:
            return None
        return f"score: {_plain(value)} is not in [0, 1]; bring scores to that range"
    if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
        return f"{column}: {_plain(value)} is not allowed; should be a number from 0"
    if column == CHOICES and not (value <= MOST_CHOICES and value == int(value)):
        many = f"how many there are, to {MOST_CHOICES:,}"
        return f"{column}: {_plain(value)} is not allowed; should be {many}"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def mixed(column: str, value: Any, wanted: pa.DataType) -> str | None:
    """What is wrong with a value that may stand there, but not below a first row of another kind.

    Args:
        column: one of `KNOWN`.
        value: as JSON has it; of a CSV file numbers are texts, too.
        wanted: as what the column is read, which its first row decides.
    """
    if value is None or value == "" or column == VECTOR:
        return None
    truth = isinstance(value, bool) or str(value).lower() in ("true", "false")
    if pa.types.is_boolean(wanted) and not truth and value not in ("0", "1"):
        other = "a number, and the first row has true or false"
        return f"{column}: {show(value)} is {other}; write all of them as numbers from 0 to 1"
    if pa.types.is_floating(wanted) and truth:
        other = "no number, as the first row has one"
        return f"{column}: {show(value)} is {other}; write 1 for true and 0 for false"
    if pa.types.is_floating(wanted) and isinstance(value, str):
        return f"{column}: {show(value)} is text; write it as a plain number, without quotes"
    if pa.types.is_string(wanted) and not isinstance(value, str):
        other = "a number, and the first row has text"
        return f"{column}: {show(value)} is {other}; write all of them as text, in quotes"
    if pa.types.is_integer(wanted) and isinstance(value, str):
        other = "text, and the first row has a number"
        return f"{column}: {show(value)} is {other}; write all of them as text, in quotes"
    if pa.types.is_integer(wanted) and not -(2**63) <= value < 2**63:
        return (
            f"{column}: {show(value)} is too large a number; write all of them as text, in quotes"
        )
    return None


def _plain(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
            for each in value
        )
    )


def show(value: Any) -> str:
    """A value as it is shown in a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."

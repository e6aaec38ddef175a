"""Tasks of one's own: a file with a JSON object a line, each checked before any is used."""

from __future__ import annotations

import ast
import difflib
import json
import re
import string
import warnings
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hierrouter.data.tasks import Question, choices_prompt, tidy
from hierrouter.errors import ConfigError
from hierrouter.files import sha256_bytes, sha256_text

if TYPE_CHECKING:
    from hierrouter.config import OwnMetric, OwnTask

KEYS = ("question", "reference", "id", "reference_text", "choices", "tests")
GOES_WITH = {"choices": "letter", "tests": "unit_tests"}
"""Keys that one metric alone has, and needs."""
LONGEST_MATH = 400
"""Longer formulas are never compared (`quality/maths.py`), so no reply would be right."""
ID_DIGITS = 16
_ID = re.compile(r"\S{1,200}")
_NUMBER = re.compile(
    r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2})?|[-+]?\d+/\d+"
)
_LONGEST_NUMBER = 40


class _WrongLineError(ValueError):
    """What is wrong with a line."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}" if key else text)


@dataclass(frozen=True, slots=True)
class OwnQuestions:
    """What a file holds: its questions, and what queries.json says about where they came from."""

    questions: list[Question]
    provenance: dict[str, Any]


def own_questions(name: str, task: OwnTask) -> OwnQuestions:
    """All questions of an own task; equal questions without an `id` are taken once.

    A query's id is the line's `id`, else a hash of the question: it depends neither on the order
    of the lines nor on the other lines.

    Args:
        name: what the task is called.
        task: where it is, and how answers to it are judged.

    Raises:
        ConfigError: the file cannot be read, or a line of it is wrong; names file, line and key.
    """
    content = _read(name, task)
    known: dict[str, tuple[int, Question]] = {}
    for number, line in enumerate(_decoded(task, content).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _object(line)
            question = _question(name, task, row)
            before, other = known.setdefault(question.query_id, (number, question))
            if "id" in row and before != number:
                raise _WrongLineError("id", f"{_show(row['id'])} is that of line {before} too")
            if other != question:
                raise _WrongLineError(
                    "question", f"is that of line {before}, but what goes with it differs"
                )
        except _WrongLineError as wrong:
            raise ConfigError(f"{task.file}: line {number}: {wrong}") from None
    if not known:
        raise ConfigError(
            f"{task.file}: holds no questions; it needs a JSON object a line with question and "
            "reference"
        )
    return OwnQuestions(
        questions=[question for _, question in known.values()],
        provenance={"source": "file", "file": task.file, "sha256": sha256_bytes(content)},
    )


def has_changed(provenance: dict[str, Any]) -> bool:
    """Whether the file of a recorded source holds something else now; one that is gone does not."""
    try:
        return sha256_bytes(Path(provenance["file"]).read_bytes()) != str(provenance["sha256"])
    except OSError:
        return False


def count_lines(task: OwnTask) -> int | None:
    """How many lines with content a task's file has; none where it cannot be read."""
    try:
        return sum(bool(line.strip()) for line in Path(task.file).read_bytes().split(b"\n"))
    except OSError:
        return None


def _read(name: str, task: OwnTask) -> bytes:
    culprit = f"data.own.{name}.file: {task.file}"
    try:
        return Path(task.file).read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{culprit}: there is no such file (relative paths are taken from {Path.cwd()})"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{culprit}: is a folder; name a file of JSON lines") from None
    except OSError as error:
        raise ConfigError(f"{culprit}: cannot be read ({error.strerror})") from None


def _decoded(task: OwnTask, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{task.file}: line {line}: is not UTF-8; save it as UTF-8") from None


def _object(line: str) -> dict[str, Any]:
    """The JSON object of a line, without what is null; decimal numbers keep their digits."""
    try:
        row = json.loads(line, parse_float=Decimal, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise _WrongLineError(
            "", f"is not JSON ({error.msg} at column {error.colno}); one object a line is wanted"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _WrongLineError("", f"is not usable JSON ({reason})") from None
    if not isinstance(row, dict):
        raise _WrongLineError(
            "",
            f"{_show(row)} is not a JSON object; one a line is wanted, with question and reference",
        )
    return {key: value for key, value in row.items() if value is not None}


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _question(name: str, task: OwnTask, row: dict[str, Any]) -> Question:
    metric = task.metric
    for key in row:
        _refuse_misplaced(key, row, metric)
    prompt = _text("question", _needed("question", row, metric))
    metadata = {"kind": str(task.kind), "metric": str(metric)}
    choices = 0
    tests: tuple[str, ...] = ()
    if metric == "letter":
        texts = _choices(_needed("choices", row, metric))
        choices = len(texts)
        prompt = choices_prompt(prompt, texts)
        metadata["choices"] = str(choices)
    if metric == "unit_tests":
        tests = _tests(_needed("tests", row, metric))
    accepted: tuple[str, ...] = ()
    if metric != "unit_tests" or "reference" in row:  # there the tests judge, not the reference
        accepted = _accepted(_needed("reference", row, metric), metric, choices)
    if "reference_text" in row:
        reference_text = _text("reference_text", row["reference_text"])
    else:
        reference_text = accepted[0] if accepted else ""
    own_id = _id(row["id"]) if "id" in row else sha256_text(prompt)[:ID_DIGITS]
    return Question(f"{name}/{own_id}", name, prompt, accepted, reference_text, tests, metadata)


def _refuse_misplaced(key: str, row: dict[str, Any], metric: OwnMetric) -> None:
    """Refuses keys of another metric and slips of a key; files may have further columns."""
    if key in GOES_WITH and GOES_WITH[key] != metric:
        raise _WrongLineError(key, f"goes with `metric: {GOES_WITH[key]}`; this task's is {metric}")
    if key not in KEYS:
        near = difflib.get_close_matches(key, [k for k in KEYS if k not in row], n=1, cutoff=0.8)
        if near:
            raise _WrongLineError(key, f"unknown key (did you mean {near[0]}?)")


def _needed(key: str, row: dict[str, Any], metric: OwnMetric) -> Any:
    if key not in row:
        also = f" (`metric: {metric}` needs it)" if key in GOES_WITH else ""
        raise _WrongLineError(key, f"this key is missing{also}")
    return row[key]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _WrongLineError(key, f"{_show(value)} is not allowed; should be text (quote it)")
    text = tidy(value)
    if not text:
        raise _WrongLineError(key, "is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _WrongLineError(key, "holds half of a surrogate pair; save it as UTF-8") from None
    return text


def _id(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _ID.fullmatch(text) or not text.isprintable():
        raise _WrongLineError(
            "id", f"{_show(value)} is not allowed; should be a whole number, or text without spaces"
        )
    return text


def _accepted(value: Any, metric: OwnMetric, choices: int) -> tuple[str, ...]:
    """The accepted answers of a line; stated one way or another, each stands once."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise _WrongLineError("reference", "is empty; should be an answer, or a list of some")
    return tuple(dict.fromkeys(_reference(one, metric, choices) for one in values))


def _reference(value: Any, metric: OwnMetric, choices: int) -> str:
    if metric == "number" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = str(value)
    text = _text("reference", value)
    if metric == "number":
        return _number(text)
    if metric == "letter":
        letters = string.ascii_uppercase[:choices]
        if len(text) != 1 or text.upper() not in letters:
            raise _WrongLineError(
                "reference", f"{_show(value)} is no choice; should be a letter, A to {letters[-1]}"
            )
        return text.upper()
    if metric == "math" and len(text) > LONGEST_MATH:
        raise _WrongLineError("reference", f"is longer than {LONGEST_MATH} characters")
    if metric in ("exact_match", "token_f1") and not any(c.isalnum() for c in text):
        # Punctuation is not compared, so every reply without words would be right.
        raise _WrongLineError("reference", f"{_show(value)} has no letter or digit")
    return text


def _number(text: str) -> str:
    """A number without thousands separators."""
    bare = text.replace(",", "")
    try:
        if not _NUMBER.fullmatch(text) or len(text) > _LONGEST_NUMBER:
            raise ValueError
        Fraction(bare)
    except (ValueError, ZeroDivisionError):
        raise _WrongLineError(
            "reference",
            f"{_show(text)} is no number; should be one without unit, such as 42, -3.5 or 2/3",
        ) from None
    return bare


def _choices(value: Any) -> list[str]:
    most = len(string.ascii_uppercase)
    if not isinstance(value, list) or not 2 <= len(value) <= most:
        raise _WrongLineError(
            "choices", f"{_show(value)} is not allowed; should be a list of 2 to {most} texts"
        )
    return [_text("choices", text) for text in value]


def _tests(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _WrongLineError(
            "tests", f"{_show(value)} is not allowed; should be a list of Python statements"
        )
    tests = tuple(_text("tests", test) for test in value)
    for test in tests:
        try:
            with warnings.catch_warnings(action="ignore"):
                ast.parse(test)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _WrongLineError("tests", f"{_show(test)} is not Python") from None
    return tests


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."

"""The server's log: a JSON object a line, one line a request.

While it is kept, whatever else would be written to standard error is a line of it, too: what is
said to people, other libraries' warnings.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import traceback
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO, cast

from hierrouter.progress import console

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("hierrouter.serving")
NAMES = ("hierrouter", "kserve", "uvicorn")
"""Whose messages are written, each as JSON."""
DEEPEST = 8
"""Errors behind an error of which the log tells where they came from."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, texts: bool) -> None:
        """Takes whether what an error says may be written: it may quote a question."""
        super().__init__()
        self._texts = texts

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, what a request took, and where an error came from."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            told["error"] = (
                "".join(traceback.format_exception(error)) if self._texts else _of(error)
            )
        return json.dumps(told, ensure_ascii=False, default=str)


def _of(error: BaseException) -> str:
    """Where an error came from, and what kind it is; not what it says."""
    parts: list[str] = []
    behind: BaseException | None = error
    while behind is not None and len(parts) < DEEPEST:
        frames = traceback.extract_tb(behind.__traceback__)
        places = [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        parts.append("\n".join([f"{type(behind).__qualname__} at", *places]))
        hidden = behind.__suppress_context__
        behind = behind.__cause__ or (None if hidden else behind.__context__)
    return "\nbecause of ".join(parts)


class _Lines(io.TextIOBase):
    """What is said to people, line by line, into the log."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.strip, lines)):
            log.info("%s", line)
        return len(text)


@contextlib.contextmanager
def json_logs(texts: bool) -> Iterator[None]:
    """Sends everything that is said to standard error as JSON, in place of what others set up.

    Args:
        texts: whether what errors say may be written: it may quote a question.
    """
    # KServe's application answers in a way that FastAPI advises against.
    warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(texts))
    for name in NAMES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
    # A line for each request is written by the service, with more in it. KServe writes whole
    # tracebacks of refused requests, and lines of timings for each.
    for name in ("uvicorn.access", "kserve.trace"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).disabled = True
    logging.getLogger("kserve").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
    console.file = cast("TextIO", _Lines())
    try:
        yield
    finally:
        # What it had was whatever standard error is at the time.
        console.file = cast("TextIO", None)

"""The server's log: a JSON object a line, one line a request."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

NAMES = ("hierrouter", "kserve", "uvicorn")
"""Whose messages are written, each as JSON."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, what a request took, and where an error came from."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def write_json_logs() -> None:
    """Sends the server's messages to standard error as JSON, in place of what others set up."""
    # KServe's application answers in a way that FastAPI advises against.
    warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
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

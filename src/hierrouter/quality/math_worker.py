"""The process that compares mathematical answers: `python -m hierrouter.quality.math_worker`.

Reads one JSON pair `[answer, accepted]` a line and writes `true` or `false` a line. A process of
its own, because math-verify's timeouts need a main thread, and because sympy can hang in C code
that no timeout reaches: then `maths.py` ends this process and starts another.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

_SECONDS = 3
_MEMORY_BYTES = 3 << 30


def equal(answer: str, accepted: str) -> bool:
    """Whether two LaTeX expressions mean the same; false where either cannot be read."""
    configs = [LatexExtractionConfig(), ExprExtractionConfig()]
    read = [parse(f"${text}$", configs, parsing_timeout=_SECONDS) for text in (accepted, answer)]
    if not all(read):
        return False
    return bool(verify(read[0], read[1], timeout_seconds=_SECONDS))


def main() -> None:
    """Answers until standard input ends."""
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # Some systems have no such limit.
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # Whatever a library prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for line in sys.stdin:
        result = False
        with contextlib.suppress(Exception):
            result = equal(*json.loads(line))
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

"""Mathematical answers (MATH): finding the one a reply states, and comparing meanings."""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from queue import Empty, SimpleQueue

from hierrouter.errors import HierRouterError
from hierrouter.quality.statements import answer_statements, last_box, stated_line, tail

LONGEST_ANSWER = 400
"""Longer answers are not compared: no reference is as long, and sympy's time would explode."""
_START_SECONDS = 120.0
_HARD_SECONDS = 15.0

_INLINE = re.compile(r"\$\$([^$]{1,1000})\$\$|\$([^$\n]{1,400})\$")
_BRACKETED = re.compile(
    r"\\\[((?:[^\\]|\\(?!\])){1,1000}+)\\\]|\\\(((?:[^\\\n]|\\(?!\))){1,400}+)\\\)"
)
_LAST_NUMBER = re.compile(r"(?<![\w.])-?\d++(?:,\d{3})*+(?:\.\d++)?+(?:/\d++)?+")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname|boxed)\s?\{([^{}]*)\}"
)
_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|quad|qquad|big|Big)(?![a-zA-Z])|\s+")
_SHORT_NAME = re.compile(r"[a-zA-Z](?:\([a-z]\))?\s*=(?!=)\s*")
_LIST_WORDS = re.compile(r"\b(?:and|or)\b")
_PROSE = re.compile(r"(?:[A-Za-z'’]+[ ]){1,30}?(?:is|are|equals)[ ](?=[-\d\\([$])")
_SENTENCE = re.compile(r"\.(?:\s|$)|,?\s(?:because|since)\b|,\swhich\b")
_EQUATES = re.compile(r"\s*(?:=|≈|is|equals|is equal to|becomes)\s*")
_EQUATED = re.compile(rf"{_EQUATES.pattern}(-?\d++(?:,\d{{3}})*+(?:\.\d++)?+)(?!\w|/|\s?[-+*^])")
_CURRENCY = re.compile(r"\\?\$")
_DOLLARS = re.compile(r"(?<=\d)\s{0,4}(?:\\text\{\s?)?\bdollars?\}?(?=\s*$)", re.IGNORECASE)


def extract_math(reply: str) -> str | None:
    r"""The answer a reply states, as LaTeX without its marks.

    The last `\boxed{}` counts; else the last "Answer: " or "the answer is"; else the last formula
    between dollar signs; else the last number.
    """
    text = tail(reply)
    box = last_box(text)
    if box is not None:
        return _bare(box[1]) or None
    for statement in reversed(list(answer_statements(text, hashes=True))):
        stated = _stated(stated_line(text, statement.end))
        if stated:
            return stated
    return _last_formula(text)


def math_equal(answer: str, accepted: str) -> bool:
    """Whether two LaTeX answers mean the same: as text, else by math-verify.

    Safe in any thread; an answer that takes too long to understand counts as different.

    Raises:
        HierRouterError: the process that compares cannot be started.
    """
    if _plain_text(answer) == _plain_text(accepted):
        return True
    if max(len(answer), len(accepted)) > LONGEST_ANSWER:
        return False
    if _is_words(accepted):
        return False
    return _WORKERS.equal(_unpriced(answer), _unpriced(accepted))


def _stated(line: str) -> str | None:
    """The formula of an answer line: what its marks enclose, else its first sentence."""
    line = line.strip(" *_`:")
    if not re.search(r"[\w∞∅π]", line) or line.strip(" .$\"'") == "X":
        return None
    line = line.replace("\\$", "")
    if line.count("$") == 1:  # A lone dollar sign is a currency, or a formula cut off.
        line = _CURRENCY.sub("", line).replace("\\ ", " ")
    found = sorted([*_INLINE.finditer(line), *_BRACKETED.finditer(line)], key=re.Match.start)
    formulas = [_enclosed(match) for match in found]
    outside = _BRACKETED.sub("", _INLINE.sub("", line)).strip(" .*_,:")
    if formulas:
        # "$5$ and $6$" is a list; "$5$ is the least, as $n = 3$" means the formula it begins with;
        # in "with $n = 4$ we get $7$" the last one is meant.
        if not _LIST_WORDS.sub("", outside).strip(" ,;."):
            return _bare(", ".join(formulas)) or None
        meant = found[_meant(line, found)]
        return _value_after(line, meant) or _bare(_enclosed(meant)) or None
    end = _SENTENCE.search(line)
    line = line[: end.start()] if end else line
    return _bare(_PROSE.sub("", line, count=1)) or None


def _meant(line: str, found: list[re.Match[str]]) -> int:
    """Which formula of a line is the answer: "$x$ is $5$" goes on from the first to the second."""
    if found[0].start() > 0:
        return -1
    index = 0
    while index + 1 < len(found) and _EQUATES.fullmatch(
        line, found[index].end(), found[index + 1].start()
    ):
        index += 1
    return index


def _last_formula(text: str) -> str | None:
    found = max(
        (*_INLINE.finditer(text), *_BRACKETED.finditer(text)), key=re.Match.start, default=None
    )
    if found is not None:
        return _value_after(text, found) or _bare(_enclosed(found)) or None
    number = None
    for match in _LAST_NUMBER.finditer(text):
        number = match[0]
    return number


def _value_after(text: str, formula: re.Match[str]) -> str | None:
    """The number that a formula is said to be: "$f(x)$ is 10"."""
    value = _EQUATED.match(text, formula.end())
    return value[1] if value else None


def _enclosed(match: re.Match[str]) -> str:
    return match[1] or match[2] or ""


def _bare(formula: str) -> str:
    """A formula without the marks around it."""
    formula = formula.strip()
    while True:
        shorter = formula.strip("$ \n\t*`").removesuffix(".").rstrip()
        if (shorter[:2], shorter[-2:]) in (("\\(", "\\)"), ("\\[", "\\]")):
            shorter = shorter[2:-2]
        if shorter == formula:
            return formula
        formula = shorter


def _unpriced(formula: str) -> str:
    r"""A bare formula without its currency: `\$10` and "10 dollars" are 10."""
    return _DOLLARS.sub("", _bare(_bare(formula).replace("\\$", "")))


def _plain_text(formula: str) -> str:
    """A formula for comparison as text: no spacing, no wrappers, no "x ="."""
    text = _WRAPPER.sub(r"\1", _unpriced(formula[: 10 * LONGEST_ANSWER]))
    text = text.replace("dfrac", "frac").replace("tfrac", "frac").replace("^\\circ", "")
    text = _SPACING.sub("", text).replace("\\%", "").replace("%", "")
    return _SHORT_NAME.sub("", text, count=1).strip(".").lower() if text else ""


def _is_words(accepted: str) -> bool:
    r"""Whether an accepted answer is words (`\text{even}`), which only text can match."""
    inner = _WRAPPER.fullmatch(_bare(accepted))
    return inner is not None and re.fullmatch(r"[A-Za-z ,.'-]+", inner[1].strip()) is not None


class _Worker:
    """One comparing process."""

    def __init__(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hierrouter.quality.math_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us: we end it ourselves.
            )
        except OSError as error:
            raise HierRouterError(
                f"cannot start {sys.executable} to compare formulas ({error}); free some memory"
            ) from error
        if self.ask("1", "1", _START_SECONDS) is not True:
            self.end()
            raise HierRouterError(
                "the process that compares formulas does not answer; try "
                "`python -m hierrouter.quality.math_worker` and see what it says"
            )

    def ask(self, answer: str, accepted: str, seconds: float) -> bool | None:
        """The verdict; none when the process died or time is up."""
        sent, received = self._process.stdin, self._process.stdout
        assert sent is not None
        assert received is not None
        try:
            sent.write(json.dumps([answer, accepted]).encode() + b"\n")
            sent.flush()
            reply, deadline = b"", time.monotonic() + seconds
            while not reply.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([received], [], [], left)[0]:
                    return None
                part = os.read(received.fileno(), 64)
                if not part:
                    return None
                reply += part
        except OSError:
            return None
        return reply.strip() == b"true"

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class _Workers:
    """A few comparing processes, started when needed and used again."""

    def __init__(self) -> None:
        self._reset()
        # A forked child shares no worker with its parent: answers would mix.
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close)

    def _reset(self) -> None:
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._slots = threading.BoundedSemaphore(max(1, min(4, os.cpu_count() or 1)))

    def equal(self, answer: str, accepted: str) -> bool:
        """Asks an idle process; one that hangs or dies is replaced at the next question."""
        with self._slots:
            try:
                worker = self._idle.get_nowait()
            except Empty:
                worker = _Worker()
            verdict = worker.ask(answer, accepted, _HARD_SECONDS)
            if verdict is None:
                worker.end()
                return False
            self._idle.put(worker)
            return verdict

    def close(self) -> None:
        """Ends every idle process."""
        while True:
            try:
                self._idle.get_nowait().end()
            except Empty:
                return


_WORKERS = _Workers()

"""Progress on a log file: lines with what is done, the rate and the time left."""

from __future__ import annotations

import io
import itertools
import re

import pytest
from rich.console import Console

from hierrouter import progress
from hierrouter.progress import Progress, duration, say


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A console that is no terminal, and a clock that goes on by a second at each look."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, highlight=False, width=40))
    clock = itertools.count(100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    return written


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (360000, "100 h 0 min"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_say_keeps_brackets_and_long_lines(log: io.StringIO) -> None:
    text = "[bold] is no markup here " * 5
    say(text)
    assert log.getvalue() == text + "\n"


def test_a_log_gets_rate_and_time_left(log: io.StringIO) -> None:
    with Progress("recording", total=10, unit="nodes", every=0) as bar:
        bar.advance(5)  # one second after the start: 5 a second, 5 left
        assert bar.done == 5
    first, last = log.getvalue().splitlines()
    assert first == "recording: 5/10, 5.0 nodes/s, 1 s left"
    assert re.fullmatch(r"recording: 5 nodes in \d+ s", last)


def test_the_time_left_goes_by_the_work_where_units_differ(log: io.StringIO) -> None:
    with Progress("recording", total=10, unit="nodes", work=100, every=0) as bar:
        bar.advance(5, work=20)  # half of the nodes in a second, but a fifth of the work
    assert log.getvalue().startswith("recording: 5/10, 5.0 nodes/s, 4 s left\n")


def test_a_note_stands_at_the_end(log: io.StringIO) -> None:
    with Progress("recording", total=10, unit="nodes", every=0) as bar:
        bar.advance(5, note="32 tokens/s")
    assert log.getvalue().startswith("recording: 5/10, 5.0 nodes/s, 1 s left, 32 tokens/s\n")


def test_a_quiet_spell_between_lines(log: io.StringIO) -> None:
    with Progress("recording", total=1000, unit="nodes", every=20) as bar:
        for _ in range(60):
            bar.advance()
    assert 2 <= len(log.getvalue().splitlines()) <= 4  # 60 s: every 20 s, and the end


def test_nothing_done_says_nothing(log: io.StringIO) -> None:
    with Progress("recording", total=3, unit="nodes"):
        pass
    assert log.getvalue() == ""


def test_a_failure_is_not_called_finished(log: io.StringIO) -> None:
    def fail() -> None:
        with Progress("recording", total=3, unit="nodes") as bar:
            bar.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert " in " not in log.getvalue()

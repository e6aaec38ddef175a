"""Progress that reads well on a terminal and in a log file: done, rate, time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from types import TracebackType

console = Console(stderr=True, highlight=False)
"""Where messages for people go; results for programs go to standard output."""


def say(message: str) -> None:
    """Prints one line for people, without markup."""
    console.print(message, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A span of time as people say it: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Shows how far a piece of work is: a bar on a terminal, else a line every `every` seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0, every: float = 20) -> None:
        """Starts at `done` of `total` `unit`s; what was done before does not count for the rate."""
        self.label, self.total, self.unit = label, total, unit
        self.done = self._before = done
        self._every = every
        self._started = self._spoken = time.monotonic()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, rate="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is None and not console.is_terminal and self.done > self._before:
            took = time.monotonic() - self._started
            say(f"{self.label}: {self.done} {self.unit} in {duration(took)}")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more units as done; `note` is shown beside the rate."""
        self.done += count
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        rate = (self.done - self._before) / elapsed
        shown = f"{rate:,.1f} {self.unit}/s {note}".rstrip()
        self._bar.update(self._task, completed=self.done, rate=shown)
        if not console.is_terminal and now - self._spoken >= self._every and self.done < self.total:
            self._spoken = now
            left = duration((self.total - self.done) / rate)
            say(f"{self.label}: {self.done}/{self.total}, {shown}, {left} left")

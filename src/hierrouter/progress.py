"""Progress that reads well on a terminal and in a log file: done, rate, time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from types import TracebackType

console = Console(stderr=True, highlight=False, emoji=False)
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

    def __init__(
        self, label: str, total: int, unit: str, work: float | None = None, every: float = 20
    ) -> None:
        """Starts at none of `total` units.

        Args:
            label: what is going on.
            total: how many units there are.
            unit: what a unit is called, in the plural.
            work: how much work that is, where units differ much; the time left goes by it.
            every: seconds between lines where there is no terminal.
        """
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._work_total = float(total) if work is None else work
        self._work_done = 0.0
        self._every = every
        self._started = self._spoken = time.monotonic()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, rate="")

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
        if kind is None and not console.is_terminal and self.done:
            took = time.monotonic() - self._started
            say(f"{self.label}: {self.done} {self.unit} in {duration(took)}")

    def advance(self, count: int = 1, note: str = "", work: float | None = None) -> None:
        """Counts `count` more units as done; `note` is shown beside rate and time left."""
        self.done += count
        self._work_done += count if work is None else work
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        shown = f"{self.done / elapsed:,.1f} {self.unit}/s"
        if 0 < self._work_done < self._work_total:
            left = elapsed * (self._work_total - self._work_done) / self._work_done
            shown += f", {duration(left)} left"
        if note:
            shown += f", {note}"
        self._bar.update(self._task, completed=self.done, rate=shown)
        if not console.is_terminal and now - self._spoken >= self._every and self.done < self.total:
            self._spoken = now
            say(f"{self.label}: {self.done}/{self.total}, {shown}")

"""What made a tree: for each recording its command, date, machine, versions, time and nodes."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

JOURNAL = "recordings.json"
NOTE_EVERY = 60.0
"""Seconds after which a run's entry is written again: what a kill may leave untold."""
PACKAGES = ("hierrouter", "openvino-genai", "transformers", "torch", "openai")


class Recording:
    """One run's entry in a tree's journal, brought up to date while it records.

    A kill leaves no time for writing it at the end.
    """

    def __init__(self, folder: Path) -> None:
        """Begins an entry of the tree in `folder`; it is written when there are nodes to tell of.

        Args:
            folder: the tree.
        """
        self._folder = folder
        self._run = uuid4().hex[:16]
        self._entry: dict[str, Any] | None = None
        self._written = time.monotonic()
        self._since: float | None = None
        self._seconds = 0.0
        self._told = 0
        self.nodes = 0
        """How many nodes this run recorded so far."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time of this block as time of recording, loading models included."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._seconds, self._since = self._so_far(), None

    def add(self, nodes: int) -> None:
        """Counts nodes that were committed, and writes the entry every `NOTE_EVERY` seconds."""
        self.nodes += nodes
        if time.monotonic() - self._written >= NOTE_EVERY:
            # What cannot be written now is no reason to stop; the end says so.
            with contextlib.suppress(HierRouterError):
                self.write()

    def write(self) -> None:
        """Writes the entry anew, if nodes came since it was written.

        Raises:
            HierRouterError: the journal cannot be read or written now.
        """
        self._written = time.monotonic()
        if self.nodes == self._told:
            return
        entry = {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command_line(sys.argv),
            "nodes": self.nodes,
            "seconds": round(self._so_far(), 1),
            "machine": machine(),
            "versions": _versions(),
            "run": self._run,
        }
        others = [each for each in read_journal(self._folder) if each != self._entry]
        write_json(self._folder / JOURNAL, [*others, entry])
        self._entry, self._told = entry, self.nodes

    def _so_far(self) -> float:
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return self._seconds + running


def command_line(arguments: Sequence[str]) -> str:
    """A command as it may be passed on with a tree: of whole paths the last part alone.

    Where somebody keeps things, and under which name, is nobody else's business.

    Args:
        arguments: the program, and what it was given.
    """
    told = []
    for argument in arguments:
        option, sign, value = argument.rpartition("=")
        told.append(option + sign + (Path(value).name if Path(value).is_absolute() else value))
    return shlex.join(told)


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The entries, oldest first; none where the journal is missing or damaged.

    Raises:
        HierRouterError: it cannot be read now.
    """
    path = folder / JOURNAL
    if not path.exists():
        return []
    try:
        entries = read_json(path)
    except DamagedFileError:
        return []
    return entries if isinstance(entries, list) else []


def merge_journals(folders: list[Path], out: Path) -> None:
    """Writes the entries of all trees, each once, to the journal of `out`.

    Of a run that went on after its tree was merged first, the later entry counts.
    """
    entries: list[dict[str, Any]] = []
    for folder in (out, *folders):
        for entry in read_journal(folder):
            run = entry.get("run")
            before = next((each for each in entries if run and each.get("run") == run), None)
            if before is None:
                entries += [entry] if entry not in entries else []
            elif entry["nodes"] > before["nodes"]:
                entries[entries.index(before)] = entry
    if entries != read_journal(out):
        write_json(out / JOURNAL, sorted(entries, key=lambda entry: str(entry.get("ended"))))


def machine() -> str:
    """The processor, its cores and memory, and the accelerators."""
    gib = psutil.virtual_memory().total / 2**30
    parts = [f"{_processor()}, {psutil.cpu_count()} cores, {gib:.0f} GiB, {platform.system()}"]
    return ", ".join([*parts, *_accelerators()])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerators() -> list[str]:
    # Where nothing has loaded torch, nothing ran on an accelerator of this machine.
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

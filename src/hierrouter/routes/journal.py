"""What made a tree: for each recording its command, date, machine, versions, time and nodes."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from hierrouter.errors import DamagedFileError
from hierrouter.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

JOURNAL = "recordings.json"
PACKAGES = ("hierrouter", "openvino-genai", "transformers", "torch", "openai")


def note_recording(folder: Path, nodes: int, seconds: float) -> None:
    """Adds an entry to the journal of the tree in `folder`.

    Args:
        folder: the tree.
        nodes: how many nodes were recorded.
        seconds: how long that took, loading models included.
    """
    entry = {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(sys.argv),
        "nodes": nodes,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": _versions(),
    }
    write_json(folder / JOURNAL, [*read_journal(folder), entry])


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
    """Writes the entries of all trees, each once, to the journal of `out`."""
    entries: list[dict[str, Any]] = []
    for folder in (out, *folders):
        entries += [entry for entry in read_journal(folder) if entry not in entries]
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

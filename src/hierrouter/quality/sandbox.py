"""Runs a program and its asserts in a locked-down process of their own.

What holds it, and what does not, is listed in docs/quality.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHILD = Path(__file__).with_name("sandbox_child.py")
_TOKEN_BYTES = 32
_START_SECONDS = 20.0
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one run may use."""

    cpu_seconds: int = 3
    """Processor time; does not depend on how busy the machine is, so it normally decides."""
    wall_seconds: float = 10.0
    """Time by the clock, for programs that wait."""
    memory_bytes: int = 512 << 20
    """Address space."""


DEFAULT_LIMITS = SandboxLimits()


def passes_tests(
    program: str, tests: Sequence[str], limits: SandboxLimits = DEFAULT_LIMITS
) -> bool:
    """Whether `program` runs and then every entry of `tests` runs in its namespace.

    Success is a random token that the child reads only after the last test: a program that
    exits, crashes, hangs or exhausts a limit before that has failed.

    Args:
        program: Untrusted Python source.
        tests: Python source, in order: set-up snippets and asserts.
        limits: What it may use.

    Raises:
        HierRouterError: no process or temporary folder can be made on this machine.
    """
    token = secrets.token_bytes(_TOKEN_BYTES)
    try:
        folder = tempfile.mkdtemp(prefix="hierrouter-")
    except OSError as error:
        raise HierRouterError(
            f"cannot make a temporary folder ({error}); make room or set TMPDIR"
        ) from error
    ours, theirs = socket.socketpair()
    process: subprocess.Popen[bytes] | None = None
    try:
        with theirs:
            process = _start(theirs.fileno())
        return _ask(ours, _job(program, tests, limits, folder) + token, limits) == token
    finally:
        if process is not None:
            _end(process, ours)
        ours.close()
        _remove(folder)


def _start(channel: int) -> subprocess.Popen[bytes]:
    """Starts the child in a session of its own, with nothing of our environment."""
    # Not `-I`: that ignores PYTHONHASHSEED, and a score must not depend on the order of a set.
    command = [sys.executable, "-s", "-S", "-P", "-B", str(_CHILD), str(channel)]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[channel],
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
    except OSError as error:
        raise HierRouterError(
            f"cannot start {sys.executable} for unit tests ({error}); "
            "free some memory or raise the limit on processes"
        ) from error


def _job(program: str, tests: Sequence[str], limits: SandboxLimits, folder: str) -> bytes:
    texts = [text.encode("utf-8", "surrogatepass") for text in (program, *tests)]
    place = os.fsencode(folder)
    numbers = (limits.cpu_seconds, round(limits.wall_seconds * 1000), limits.memory_bytes)
    parts = [number.to_bytes(8, "big") for number in numbers]
    parts += [len(place).to_bytes(8, "big"), place, len(texts).to_bytes(8, "big")]
    for text in texts:
        parts += [len(text).to_bytes(8, "big"), text]
    return b"".join(parts)


def _ask(channel: socket.socket, job: bytes, limits: SandboxLimits) -> bytes:
    """Sends the job and waits for at most a token's length of answer."""
    answer = b""
    deadline = time.monotonic() + limits.wall_seconds + _START_SECONDS
    try:
        channel.settimeout(_START_SECONDS)
        channel.sendall(job)
        deadline = time.monotonic() + limits.wall_seconds
        while len(answer) < _TOKEN_BYTES:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            part = channel.recv(_TOKEN_BYTES)
            if not part:
                break
            answer += part
    except OSError:  # Time is up (TimeoutError is one), or the child is gone.
        return b""
    return answer


def _end(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    """Kills the child's whole group, and waits until nobody holds the channel any more.

    The process that ran the program may have left the group; it dies with its watcher.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + _END_SECONDS
    with contextlib.suppress(OSError):
        while (left := deadline - time.monotonic()) > 0:
            channel.settimeout(left)
            if not channel.recv(4096):
                break


def _remove(folder: str) -> None:
    """Removes the folder, even if the program has locked folders in it."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            with contextlib.suppress(OSError):
                path = Path(place, name)
                if not path.is_symlink():
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

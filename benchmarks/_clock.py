"""A clock on an event loop that ticks every millisecond, and knows how late it was.

As a process of its own (`python benchmarks/_clock.py`) it ticks until its input ends, then writes
how late each tick was as JSON: what the machine alone makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK_S = 0.001


async def tick(late_ms: list[float]) -> None:
    """Ticks until it is cancelled."""
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late_ms.append((time.perf_counter() - due) * 1e3)


@contextlib.contextmanager
def elsewhere(late_ms: list[float]) -> Iterator[None]:
    """A clock in another process, which does nothing else, for as long as the block."""
    command = [sys.executable, str(Path(__file__))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            told, _ = process.communicate()
            late_ms += json.loads(told)


async def _until_input_ends() -> list[float]:
    late_ms: list[float] = []
    ticking = asyncio.create_task(tick(late_ms))
    print("ticking", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    ticking.cancel()
    return late_ms


if __name__ == "__main__":
    told = json.dumps(asyncio.run(_until_input_ends()))
    # Where Python does not buffer, a long write may end half-way.
    with open(sys.stdout.fileno(), "w", closefd=False) as out:
        out.write(told)

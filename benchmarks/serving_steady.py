"""Whether HierRouter's server holds: many streams side by side for minutes, each word looked at.

    python benchmarks/serving_steady.py [--minutes 5] [--concurrency 32]

The stub upstream, `_stub.py`, gives every question a reply of 40 words of its own, one every few
milliseconds; no question is asked twice, so none of its vectors is at hand. Counts streams, errors
and wrong replies, and looks at the server's memory, models apart, at each half minute. The slope
is the least squares line through the later half, when what the server keeps (newest vectors) is
full: the 95 % interval of a flat one holds zero, or is next to nothing beside the memory.

Ends with exit code 1 where anything but right streams was seen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _load import Load, run_load
from _report import print_header
from _servers import hierrouter, make_router, scripted_pool, stub

if TYPE_CHECKING:
    from _servers import Server

DENSE_S = 2.0
"""Seconds between two looks at the memory; each half minute's is printed."""


class Watch:
    """Looks at a server's memory until it is told to end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self.seconds: list[float] = []
        self.megabytes: list[float] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Looks no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        began, told = time.monotonic(), -30.0
        while True:
            now = time.monotonic() - began
            self.seconds.append(now)
            self.megabytes.append(self._server.memory() / 1e6)
            if now >= told + 30:
                told += 30
                print(f"  {told:5.0f} s  {self.megabytes[-1]:7.1f} MB", flush=True)
            if self._ended.wait(DENSE_S):
                return


def slope(seconds: list[float], megabytes: list[float]) -> str:
    """Megabytes a minute over the later half, with a 95 % interval.

    Neighbouring looks at the memory are alike, so the interval is that of ten means of them.
    """
    from scipy.stats import linregress, t

    later = len(seconds) // 2
    x = [float(part.mean()) / 60 for part in np.array_split(seconds[later:], 10)]
    y = [float(part.mean()) for part in np.array_split(megabytes[later:], 10)]
    line = linregress(x, y)
    half = t.ppf(0.975, len(x) - 2) * line.stderr
    low, high = line.slope - half, line.slope + half
    return f"{line.slope:+.3f} MB a minute (95 % {low:+.3f} to {high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=5.0, help="how long (5)")
    add("--concurrency", type=int, default=32, help="streams side by side (32)")
    add("--gap-ms", type=float, default=5.0, help="milliseconds between two words (5)")
    add("--encoder", default="hashing", help="the router's encoder (hashing)")
    given = parser.parse_args()
    if given.minutes < 0.75:
        parser.error("--minutes must be at least 0.75: the slope needs some looks at the memory")
    print_header("Serving for minutes", "kserve", "fastapi", "uvicorn", "uvloop", "aiohttp")
    print(
        f"{given.concurrency} streams side by side for {given.minutes:g} minutes, "
        f"{given.gap_ms:g} ms between words, encoder {given.encoder}; memory:"
    )
    with tempfile.TemporaryDirectory() as folder, stub(given.gap_ms) as upstream:
        router = make_router(scripted_pool(given.encoder))
        with hierrouter(router, Path(folder), upstream) as server:
            load = Load(
                server.port,
                "/openai/v1/chat/completions",
                {"model": "hierrouter", "stream": True, "hierrouter": {"max_hops": 1}},
                given.concurrency,
                seconds=60 * given.minutes,
            )
            used = server.processor_s()
            watch = Watch(server)
            seen = run_load(load)
            watch.end()
            used = server.processor_s() - used
    good = len(seen.took)
    print(f"right streams   {good} ({good / seen.wall:.1f} a second)")
    print(f"anything else   {sum(seen.problems.values())}")
    for problem, count in sorted(seen.problems.items(), key=lambda each: -each[1])[:10]:
        print(f"    {count} x {problem}")
    if good:
        p50, p99 = np.quantile(seen.took, (0.5, 0.99)) * 1e3
        print(f"whole answers   p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        print(f"first text      p50 {np.median(seen.first) * 1e3:.0f} ms")
        print(f"processor       {used / good * 1e3:.2f} ms a stream")
    print(f"memory          {watch.megabytes[0]:.0f} to {max(watch.megabytes):.0f} MB; ", end="")
    print(slope(watch.seconds, watch.megabytes))
    sys.exit(bool(seen.problems) or not good)


if __name__ == "__main__":
    main()

"""What HierRouter's server costs a request, side by side with LiteLLM's proxy.

    python benchmarks/serving_speed.py [--requests 400] [--rounds 5] [--concurrency 1 8 32]

Both answer in front of the same stub upstream, `_stub.py`: a process that gives each question's
reply of 40 words, plain or as a stream of 40 events, for next to nothing. Both have one worker and
their defaults, and ask for no keys. HierRouter's server picks one of three models for each request
(hierrouter.max_hops is 1); the same eight questions are asked over and over, so that their vectors
are at hand. LiteLLM gets an environment of its own, made at the first run. Clients are a process of
their own, ask again as soon as they have their answer, each over a connection of its own, and look
at every word.

A round measures every case with both servers, one right after the other and in turns first; the
ratios of a round go side by side into the intervals. Processor time is the server process's, its
children's included: what else the machine does lengthens latencies, and hardly that.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _load import Load, run_load
from _report import mean_interval, print_header
from _servers import (
    QUESTIONS,
    hierrouter,
    litellm,
    litellm_venv,
    make_router,
    scripted_pool,
    stub,
)

if TYPE_CHECKING:
    from _servers import Server

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FIGURES = {
    "p50": "p50, ms",
    "p95": "p95, ms",
    "first": "first text, p50, ms",
    "rate": "requests a second",
    "processor": "processor ms a request",
}
OURS, THEIRS = "hierrouter", "litellm"


@dataclass(frozen=True)
class Contender:
    """One of the servers, and how it is asked."""

    server: Server
    path: str
    body: dict[str, object]


@dataclass(frozen=True)
class Case:
    """How many clients ask, and for what."""

    stream: bool
    concurrency: int

    def __str__(self) -> str:
        return f"{'streamed' if self.stream else 'plain'}, {self.concurrency} concurrent"


def measure(
    contender: Contender, upstream: Server, case: Case, requests: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of one run, and how busy the stub and the clients were in it."""
    load = Load(
        contender.server.port,
        contender.path,
        {"max_tokens": 64, "stream": case.stream, **contender.body},
        case.concurrency,
        requests,
        questions=QUESTIONS,
    )
    before, stub_before = contender.server.processor_s(), upstream.processor_s()
    seen = run_load(load)
    used, stub_used = contender.server.processor_s() - before, upstream.processor_s() - stub_before
    if seen.problems:
        raise SystemExit(f"{case}: wrong answers: {seen.problems}")
    figures = {
        "p50": float(np.median(seen.took)) * 1e3,
        "p95": float(np.quantile(seen.took, 0.95)) * 1e3,
        "rate": requests / seen.wall,
        "processor": used / requests * 1e3,
    }
    if case.stream:
        figures["first"] = float(np.median(seen.first)) * 1e3
    return figures, {"stub": stub_used / seen.wall, "clients": seen.processor / seen.wall}


def report(case: Case, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Prints the figures of a case, and the ratios between the servers."""
    print(f"\n{case}: mean over the rounds")
    for key, title in FIGURES.items():
        if key not in rounds[0][OURS]:
            continue
        parts = [f"  {title:<24}"]
        for name in rounds[0]:
            parts.append(f"{name} {mean_interval([each[name][key] for each in rounds]):<38}")
        if THEIRS in rounds[0]:
            ratios = [each[OURS][key] / each[THEIRS][key] for each in rounds]
            parts.append(f"ratio {mean_interval(ratios)}")
        print(" ".join(parts).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--requests", type=int, default=400, help="requests of each run (400)")
    add("--rounds", type=int, default=5, help="rounds, at least 2 (5)")
    add("--concurrency", type=int, nargs="+", default=[1, 8, 32], help="clients (1 8 32)")
    add("--modes", nargs="+", choices=("plain", "streamed"), default=["plain", "streamed"])
    add("--only", choices=("ours",), help="without LiteLLM")
    add("--gap-ms", type=float, default=0.0, help="milliseconds between two words of a stream (0)")
    add(
        "--encoder",
        default="hashing",
        help="the router's encoder, for the memory figure (hashing; e.g. "
        "sentence-transformers/all-mpnet-base-v2)",
    )
    add(
        "--litellm-venv",
        type=Path,
        default=CACHE / "hierrouter" / "benchmarks" / "litellm",
        help="LiteLLM's environment, made if need be (below the user's cache)",
    )
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds must be at least 2: an interval takes two")
    if given.requests < 2 * max(given.concurrency):
        parser.error("--requests must be at least twice the clients")
    version = "" if given.only else litellm_venv(given.litellm_venv.absolute())

    print_header("Serving speed", "kserve", "fastapi", "uvicorn", "uvloop", "aiohttp")
    if version:
        print(f"LiteLLM {version}")
    print(
        f"{given.requests} requests a run, {given.rounds} rounds, {given.gap_ms:g} ms between "
        f"words, encoder {given.encoder}",
        flush=True,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(stub(given.gap_ms))
        router = make_router(scripted_pool(given.encoder))
        ours = stack.enter_context(hierrouter(router, folder, upstream))
        contenders = {
            OURS: Contender(
                ours,
                "/openai/v1/chat/completions",
                {"model": "hierrouter", "hierrouter": {"max_hops": 1}},
            )
        }
        if version:
            theirs = stack.enter_context(litellm(given.litellm_venv, folder, upstream))
            contenders[THEIRS] = Contender(theirs, "/v1/chat/completions", {"model": "stub"})
        fresh = {name: each.server.memory() for name, each in contenders.items()}
        cases = [
            Case(mode == "streamed", concurrency)
            for mode in given.modes
            for concurrency in given.concurrency
        ]
        for case in cases:
            for contender in contenders.values():
                measure(contender, upstream, case, max(2 * case.concurrency, len(QUESTIONS)))
        found: dict[Case, list[dict[str, dict[str, float]]]] = {case: [] for case in cases}
        busiest = {"stub": 0.0, "clients": 0.0}
        order = list(contenders)
        for number in range(given.rounds):
            for case in cases:
                figures: dict[str, dict[str, float]] = {}
                for name in order if number % 2 == 0 else order[::-1]:
                    figures[name], busy = measure(contenders[name], upstream, case, given.requests)
                    busiest = {key: max(busiest[key], busy[key]) for key in busy}
                    told = ", ".join(f"{key} {value:.2f}" for key, value in figures[name].items())
                    print(f"round {number + 1}  {case!s:<24} {name}: {told}", file=sys.stderr)
                found[case].append({name: figures[name] for name in order})
        for case, rounds in found.items():
            report(case, rounds)
        print("\nmemory, MB: after the start, and at the end")
        for name, contender in contenders.items():
            now = contender.server.memory()
            print(f"  {name:<11} {fresh[name] / 1e6:6.0f} {now / 1e6:6.0f}")
        print("what was not measured, at its busiest, in cores: ", end="")
        print(", ".join(f"{key} {share:.2f}" for key, share in busiest.items()))


if __name__ == "__main__":
    main()

"""What side by side brings on one model in the server's process: requests batched, or one by one.

    python benchmarks/serving_batching.py [--concurrency 16] [--rounds 5]

`hierrouter serve` with a router whose pool is SmolLM2-135M-Instruct alone, run by what
`backend: auto` takes here (openvino on a processor where it is installed). A round asks the same
questions one after the other, and side by side, each first in turns; the ratios of a round go into
the interval. Replies end where the model ends them, at --tokens at the latest; in batches they may
differ in late words, so new tokens a second are the figure, and requests a second stand beside it.
Processor time is the server's; on a machine that does other things as well, new tokens a second of
it show best what a batch saves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from _load import Load, Seen, run_load
from _report import mean_interval, print_header
from _servers import Server, hierrouter, make_router

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TOPICS = (
    *("the sea", "a bicycle", "bread", "the moon", "a library", "rain", "a violin", "chess"),
    *("a volcano", "tea", "the desert", "a clock", "honey", "a bridge", "snow", "a lighthouse"),
)

FIGURES = ("new tokens a second", "requests a second", "new tokens a processor second")


def ask(server: Server, concurrency: int, requests: int, tokens: int) -> tuple[list[float], Seen]:
    """The figures of one run, as in `FIGURES`."""
    load = Load(
        server.port,
        "/openai/v1/chat/completions",
        {"model": "hierrouter", "max_tokens": tokens},
        concurrency,
        requests,
        questions=[f"Write a short story about {topic}." for topic in TOPICS],
        check=False,
    )
    used = server.processor_s()
    seen = run_load(load)
    used = server.processor_s() - used
    if seen.problems:
        raise SystemExit(f"wrong answers: {seen.problems}")
    return [seen.tokens / seen.wall, requests / seen.wall, seen.tokens / used], seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--concurrency", type=int, default=16, help="requests side by side (16)")
    add("--requests", type=int, default=32, help="requests of a run side by side (32)")
    add("--single", type=int, default=8, help="requests of a run one by one (8)")
    add("--tokens", type=int, default=64, help="most new tokens of a reply (64)")
    add("--rounds", type=int, default=5, help="rounds, at least 2 (5)")
    add("--backend", default="auto", help="the model's backend (auto)")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds must be at least 2: an interval takes two")
    print_header("Batching in the server", "openvino-genai", "transformers", "torch", "kserve")
    print(f"{MODEL}, {given.concurrency} side by side, at most {given.tokens} new tokens\n")
    model = {
        "name": "smollm2-135m",
        "model": MODEL,
        "backend": given.backend,
        "billion_parameters": 0.135,
        "limits": {"analyze": given.tokens, "solve": given.tokens},
    }
    pool = {"models": [model], "hops": 1, "encoder": {"model": "hashing"}}
    speeds: dict[int, list[list[float]]] = {1: [], given.concurrency: []}
    router = make_router(pool, "direct")
    with tempfile.TemporaryDirectory() as folder, hierrouter(router, Path(folder)) as server:
        ask(server, given.concurrency, given.concurrency, 8)
        for number in range(given.rounds):
            order = list(speeds)
            for concurrency in order if number % 2 == 0 else order[::-1]:
                requests = given.single if concurrency == 1 else given.requests
                figures, seen = ask(server, concurrency, requests, given.tokens)
                speeds[concurrency].append(figures)
                print(
                    f"round {number + 1}  {concurrency:>3}: {seen.tokens} new tokens of "
                    f"{requests} requests in {seen.wall:.1f} s",
                    file=sys.stderr,
                )
        memory = server.memory()
    print("mean over the rounds")
    one, many = speeds.values()
    for at, title in enumerate(FIGURES):
        print(f"  {title}")
        for concurrency, rounds in speeds.items():
            print(f"    {concurrency:>3} at once  {mean_interval([each[at] for each in rounds])}")
        ratios = [b[at] / a[at] for a, b in zip(one, many, strict=True)]
        print(f"    ratio        {mean_interval(ratios)}")
    print(f"memory of the server, the model among it: {memory / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

"""What a decision costs beside the encoder's own forward, and whether the event loop waits for it.

    python benchmarks/decision_speed.py [--questions 20] [--rounds 5]

  decision  the vector of a question that was not seen before, as the server asks for it
            (`Vectors`: a thread of its own), and the policy's scores at hop 0 (`Router.scores`)
  bare      the same sentence-transformers model, its tokenizer and forward alone, in the main
            thread, on another question of the same length

Questions are of a short and a long kind (53 and 400 tokens), no two alike. The two ways take turns
question by question; a round's ratio is that of its medians.

While more decisions are made, a clock ticks every millisecond on their event loop (here), and
another one in a process that does nothing else (elsewhere): what the machine makes late is late
there, too, so the difference between the two is what the loop waits for.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _clock import elsewhere, tick
from _report import mean_interval, print_header
from _servers import make_router

from hierrouter.config import EncoderConfig
from hierrouter.routes.encoder import open_encoder
from hierrouter.serving.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from hierrouter.learning.router import Router

WORDS = (
    *("river", "engine", "garden", "number", "letter", "window", "market", "silver", "forest"),
    *("island", "pencil", "summer", "planet", "doctor", "bridge", "winter", "candle", "mirror"),
)
KINDS = {"short": 53, "long": 400}


def texts(tokens: int, count: int, seed: int, length: Callable[[str], int]) -> list[str]:
    """Questions of so many tokens, no two alike."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words = [str(word) for word in rng.choice(WORDS, size=2 * tokens)]
        # Every one of these words is a token or two; what is too long is cut off.
        while length(" ".join(words)) > tokens:
            words.pop()
        made.append(" ".join(words))
    return made


async def measure(encoder: Any, router: Router, given: argparse.Namespace) -> None:
    """All kinds, all rounds."""
    vectors = Vectors(encoder)
    model = encoder._model
    spent = np.zeros(1)

    def length(text: str) -> int:
        return len(model.tokenizer(text, verbose=False)["input_ids"])

    async def decide(question: str) -> None:
        (vector,) = await vectors.of([question])
        router.scores(vector[None], vector[None], 0, spent, 0.1)

    def bare(question: str) -> None:
        # As `encode` does before and after: onto the device, and back as numbers.
        with torch.inference_mode():
            features = model.preprocess([question])
            features = {
                key: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for key, value in features.items()
            }
            model(features)["sentence_embedding"].cpu().numpy()

    for kind, tokens in KINDS.items():
        ratios, ours, theirs = [], [], []
        late: dict[str, list[float]] = {"here": [], "elsewhere": []}
        for number in range(given.rounds):
            asked = texts(tokens, 2 * given.questions + 2, 100 * tokens + number, length)
            took: dict[str, list[float]] = {"decision": [], "bare": []}
            await decide(asked[0])
            bare(asked[1])
            for at in range(2, len(asked), 2):
                for way in ("decision", "bare") if at % 4 else ("bare", "decision"):
                    question = asked[at] if way == "decision" else asked[at + 1]
                    began = time.perf_counter()
                    if way == "decision":
                        await decide(question)
                    else:
                        bare(question)
                    took[way].append((time.perf_counter() - began) * 1e3)
            ours.append(float(np.median(took["decision"])))
            theirs.append(float(np.median(took["bare"])))
            ratios.append(ours[-1] / theirs[-1])
            fresh = texts(tokens, given.questions, 100 * tokens + number + 50, length)
            with elsewhere(late["elsewhere"]):
                ticking = asyncio.create_task(tick(late["here"]))
                for question in fresh:
                    await decide(question)
                ticking.cancel()
        print(f"\n{kind} questions, {tokens} tokens")
        print(f"  decision, ms    {mean_interval(ours)}")
        print(f"  bare, ms        {mean_interval(theirs)}")
        print(f"  ratio           {mean_interval(ratios)}")
        for title, values in late.items():
            high, most = np.quantile(values, 0.99), max(values)
            above = np.mean(np.asarray(values) > 10)
            print(
                f"  clock {title:<9} {len(values)} ticks, 99 % at most {high:.1f} ms late, "
                f"the latest {most:.1f} ms, {above:.2%} above 10 ms",
                flush=True,
            )
    vectors.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--questions", type=int, default=20, help="of each way in a round (20)")
    add("--rounds", type=int, default=5, help="rounds, at least 2 (5)")
    add("--encoder", default=EncoderConfig().model, help=f"the encoder ({EncoderConfig().model})")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds must be at least 2: an interval takes two")
    print_header("Decisions", "torch", "sentence-transformers", "transformers", "numpy")
    pool = {
        "models": [
            {"name": name, "model": name, "backend": "scripted", "base_rate": 1.0, "scripted": {}}
            for name in "ABC"
        ],
        "encoder": {"model": given.encoder},
    }
    router = make_router(pool)
    encoder = open_encoder(EncoderConfig(model=given.encoder))
    print(f"{given.encoder}, {torch.get_num_threads()} threads, {encoder.device}")
    try:
        import uvloop
    except ImportError:
        asyncio.run(measure(encoder, router, given))
    else:
        uvloop.run(measure(encoder, router, given))


if __name__ == "__main__":
    main()

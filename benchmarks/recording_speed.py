"""How many useful new tokens a second the ways to record the study's direct answers give.

    hierrouter sample --config configs/small_pool.yaml --out runs/record/queries
    python benchmarks/recording_speed.py [--model 0.5b] [--queries 60] [--rounds 3]

The messages are those that `hierrouter collect` sends for configs/small_pool.yaml: the first
queries of every task in the order of their hash, each member's instruction, answer format and
limit, all members of one model in one call (equal prompts once). A token is useful up to its
reply's end: the first end token, or the limit of its prompt. All count alike.

  openvino       the openvino backend: int8 weights, so its replies are another model's
  transformers   the transformers backend, the number format that it chooses here
  bare loop      the same weights; prompts sorted by length, batches of 24, padded on the left, one
                 greedy `generate` each with the longest limit of the batch and the model's end
                 tokens, the rest of every row cut off; no log-probabilities
  one at a time  the same weights; one such `generate` a prompt, as an environment calls that asks a
                 model at each step; on `--single` of the prompts, spread over all, since it is slow

Two sets of prompts: all three members, and the member asked step by step alone. Each round runs
every contender once, in turn from another one on; the ratios of a round go side by side into the
intervals. Wall time and the processor time of all threads are both given: what else the machine
does lengthens the first, and hardly the second. Weights are loaded, and one prompt answered,
before any clock starts.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from _report import mean_interval, print_header

from hierrouter.configfile import load_config
from hierrouter.data.queries import read_queries
from hierrouter.pool.openvino_backend import OpenVINOBackend
from hierrouter.pool.prompts import instruction_for, limit_for, whole_message
from hierrouter.pool.transformers_backend import TransformersBackend
from hierrouter.pool.weights import prepare, prepare_openvino
from hierrouter.routes.calls import unit_numbers
from hierrouter.routes.scores import answer_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hierrouter.config import Config, ModelSpec
    from hierrouter.data.queries import Query

CONFIG = Path(__file__).parents[1] / "configs" / "small_pool.yaml"
BATCH = 24


@dataclass(frozen=True)
class Asked:
    """One call of a backend: prompts for one model, with the limit of each."""

    spec: ModelSpec
    prompts: list[str]
    limits: list[int]


class Model:
    """One checkpoint behind both backends, and bare."""

    def __init__(self, spec: ModelSpec, batch_tokens: int, with_openvino: bool) -> None:
        folder = prepare(spec).folder
        self.transformers = TransformersBackend(folder, spec.name, batch_tokens)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.transformers.generate([self.transformers.render("Hi")], [2])
        if with_openvino:
            self.openvino = OpenVINOBackend(prepare_openvino(spec), spec.name)
            self.openvino.generate([self.openvino.render("Hi")], [2])
        # The backend's own weights: a second copy would not fit into every machine.
        self.bare: Any = self.transformers._model
        self.stops = sorted(self.transformers._stops)

    def bare_generate(self, prompts: Sequence[str], limits: Sequence[int]) -> int:
        """One greedy `generate`; returns how many of its tokens are useful."""
        inputs = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        output = self.bare.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max(limits),
            eos_token_id=self.stops,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        useful = 0
        for row, limit in zip(new, limits, strict=True):
            end = next((i for i, token in enumerate(row) if token in self.stops), len(row))
            useful += min(end + 1, limit, len(row))
        return useful

    def bare_loop(self, asked: Asked) -> int:
        """Length-sorted batches."""
        lengths = [len(tokens) for tokens in self.tokenizer(asked.prompts)["input_ids"]]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        return sum(
            self.bare_generate(
                [asked.prompts[i] for i in order[start : start + BATCH]],
                [asked.limits[i] for i in order[start : start + BATCH]],
            )
            for start in range(0, len(order), BATCH)
        )

    def one_at_a_time(self, asked: Asked, count: int) -> int:
        """A spread of the prompts, one by one."""
        chosen = [i * len(asked.prompts) // count for i in range(min(count, len(asked.prompts)))]
        return sum(self.bare_generate([asked.prompts[i]], [asked.limits[i]]) for i in chosen)


def ask(
    config: Config, members: Sequence[ModelSpec], queries: Sequence[Query], models: dict[str, Model]
) -> list[Asked]:
    """The calls of the recorder for the direct answers of these members."""
    calls: list[Asked] = []
    for name, model in models.items():
        own = [spec for spec in members if len(models) == 1 or spec.model == name]
        asked: dict[tuple[str, int], None] = {}
        for spec in own:
            for query in queries:
                message = whole_message(
                    query.prompt,
                    [],
                    instruction_for(config.pool.prompts, spec, 0, "solve", any_before=False),
                    getattr(config.pool.prompts.answer_formats, answer_kind(query)),
                )
                asked[model.transformers.render(message), limit_for(spec, "solve", query.task)] = (
                    None
                )
        if asked:
            calls.append(Asked(own[0], [p for p, _ in asked], [limit for _, limit in asked]))
    return calls


def measure(work: Callable[[], int]) -> tuple[int, float, float]:
    """Useful tokens, wall seconds and processor seconds of one run."""
    wall, processor = time.perf_counter(), time.process_time()
    useful = work()
    return useful, time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--sample", type=Path, default=Path("runs/record/queries"), help="folder of the sample")
    add(
        "--model",
        choices=("0.5b", "1.5b", "study"),
        default="0.5b",
        help="whom all members' messages go to; study: each member's own model (0.5b)",
    )
    add("--queries", type=int, default=60, help="queries, as many of each task (60)")
    add("--rounds", type=int, default=3, help="rounds, at least 2 (3)")
    add("--limit", type=int, help="cut every limit of new tokens to this, for a quick look")
    add("--single", type=int, default=6, help="prompts a model, one at a time (6)")
    add("--without", nargs="*", default=[], help="contenders to leave out, by their first word")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds must be at least 2: an interval takes two")

    config = load_config(CONFIG)
    queries = read_queries(given.sample / "queries.parquet")
    unit = unit_numbers(queries, given.queries)
    queries = [query for query in queries if unit[query.query_id] == 0]
    members = config.pool.models
    names = list(dict.fromkeys(spec.model for spec in members))
    if given.model != "study":
        names = [name for name in names if f"-{given.model}-" in name.lower()]
    print_header("Recording speed", "torch", "transformers", "openvino", "openvino-genai")
    models = {
        name: Model(
            next(spec for spec in members if spec.model == name),
            config.pool.batch_tokens,
            "openvino" not in given.without,
        )
        for name in names
    }
    some = models[names[0]].transformers
    print(f"{len(queries)} queries; {', '.join(names)}; {torch.get_num_threads()} threads")
    print(f"transformers and both bare ways: {some.dtype}, batch_tokens {config.pool.batch_tokens}")

    def backend_run(name: str) -> Callable[[Asked, Model], int]:
        def run(asked: Asked, model: Model) -> int:
            made = getattr(model, name).generate(asked.prompts, asked.limits)
            return sum(completion.tokens_out for completion in made)

        return run

    contenders: dict[str, Callable[[Asked, Model], int]] = {
        "openvino": backend_run("openvino"),
        "transformers": backend_run("transformers"),
        "bare loop": lambda asked, model: model.bare_loop(asked),
        "one at a time": lambda asked, model: model.one_at_a_time(asked, given.single),
    }
    contenders = {n: run for n, run in contenders.items() if n.split()[0] not in given.without}
    sets = {
        "all three members": members,
        "step by step alone": [spec for spec in members if spec.name.endswith("-steps")],
    }
    for title, chosen in sets.items():
        calls = ask(config, chosen, queries, models)
        if given.limit:
            calls = [
                Asked(c.spec, c.prompts, [min(n, given.limit) for n in c.limits]) for c in calls
            ]
        by_call = [
            (call, models[names[0]] if len(names) == 1 else models[call.spec.model])
            for call in calls
        ]
        speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        print(f"\n{title}: {sum(len(call.prompts) for call in calls)} prompts", flush=True)
        order = list(contenders)
        for round_ in range(given.rounds):
            turn = round_ % len(order)
            for name in order[turn:] + order[:turn]:
                run = contenders[name]
                useful, wall, processor = measure(
                    lambda run=run, by_call=by_call: sum(run(*each) for each in by_call)
                )
                speeds[name].append((useful / wall, useful / processor))
                print(
                    f"  round {round_ + 1}  {name:<14} {useful:>6} useful tokens, {wall:7.1f} s, "
                    f"{processor:7.1f} s of processor time",
                    flush=True,
                )
        report(speeds)


def report(speeds: dict[str, list[tuple[float, float]]]) -> None:
    """Prints each contender's speed and the ratios between them."""
    print("  useful tokens a second of wall time, and of processor time, over the rounds")
    for name, pairs in speeds.items():
        wall, processor = (list(each) for each in zip(*pairs, strict=True))
        print(f"    {name:<14} {mean_interval(wall):<36} {mean_interval(processor)}")
    print("  ratios")
    for above, below in (
        ("openvino", "bare loop"),
        ("transformers", "bare loop"),
        ("openvino", "transformers"),
        ("openvino", "one at a time"),
        ("transformers", "one at a time"),
    ):
        if above in speeds and below in speeds:
            ratios = [
                [a[i] / b[i] for a, b in zip(speeds[above], speeds[below], strict=True)]
                for i in (0, 1)
            ]
            print(
                f"    {above + ' / ' + below:<29} {mean_interval(ratios[0]):<36} "
                f"{mean_interval(ratios[1])}"
            )


if __name__ == "__main__":
    main()

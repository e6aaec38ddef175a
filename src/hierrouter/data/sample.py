"""The sampling stage: which queries are asked, which train and which test.

Everything hangs on hashes of the data seed and the normalised text, so a sample does not depend on
the order of its source, a larger sample contains the smaller one, and any prefix of a task's
queries is about as balanced as the whole.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from hierrouter.data.near_duplicates import leaders
from hierrouter.data.queries import Query, digest_queries, read_queries, write_queries
from hierrouter.data.sources import load_questions, still_same
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import claim_folder, read_json, write_json
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierrouter.config import DataConfig
    from hierrouter.data.sources import Recorded, TaskQuestions
    from hierrouter.data.tasks import Question

FORMAT_VERSION = 1
SUMMARY = "queries.json"
TABLE = "queries.parquet"


def normalise(prompt: str) -> str:
    """A prompt with what does not matter taken away: case, spacing, forms of a character."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def hash_unit(purpose: str, seed: int, text: str) -> float:
    """A number in [0, 1) that is uniform over texts and independent between purposes."""
    digest = sha256(f"{purpose}\x1f{seed}\x1f{text}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A question taken into the sample; `order` says how soon a smaller sample would have it."""

    order: tuple[int, float, str]
    question: Question
    text: str


def sample_queries(config: DataConfig, out: Path, recorded: Recorded | None = None) -> Path:
    """Samples queries of every configured task and gives each its split and fold.

    Near-duplicates, over all tasks, share the split and the fold of the one that comes first. A
    sample that is there and was made by the same config from the same sources is kept.

    Args:
        config: the data part of the configuration.
        out: a new or empty folder, or an earlier output.
        recorded: where a tree's questions came from, as for `load_questions`.

    Returns:
        The table, `out/queries.parquet`; `out/queries.json` says where the queries came from.

    Raises:
        ConfigError: an unknown task, or a folder that is not ours.
        UnreachableError: neither hub nor mirror answers.
        HierRouterError: a source is wrong, or the disk is full.
    """
    claim_folder(out, SUMMARY)
    table, summary_path = out / TABLE, out / SUMMARY
    if _is_done(config, out, recorded or {}):
        say(f"queries: those in {out} are kept")
        return table
    sources = load_questions(config, recorded)
    queries, tasks = choose(config, sources)
    summary = {
        "format_version": FORMAT_VERSION,
        "config": config.model_dump(mode="json"),
        "tasks": tasks,
        "train": sum(query.split == "train" for query in queries),
        "test": sum(query.split == "test" for query in queries),
        "digest": digest_queries(queries),
    }
    # The summary goes first: it makes the folder ours, and its digest tells a table that belongs
    # to it from an older or missing one should this process end between the two.
    write_json(summary_path, summary)
    write_queries(table, queries)
    say(f"queries: {summary['train']} train, {summary['test']} test, in {table}")
    return table


def _is_done(config: DataConfig, out: Path, recorded: Recorded) -> bool:
    """Whether the folder holds this very sample, whole. Asks neither hub nor mirror."""
    if not (out / SUMMARY).exists() or not (out / TABLE).exists():
        return False
    try:
        summary = read_json(out / SUMMARY)
        return bool(
            summary["format_version"] == FORMAT_VERSION
            and summary["config"] == config.model_dump(mode="json")
            and all(still_same(task) for task in summary["tasks"].values())
            and all(
                task.get(key) == recorded.get(name, task).get(key)
                for name, task in summary["tasks"].items()
                for key in ("source", "revision", "sha256")
            )
            and summary["digest"] == digest_queries(read_queries(out / TABLE))
        )
    except (DamagedFileError, KeyError, TypeError, AttributeError):
        say(f"queries: what is in {out} is damaged and is made anew")
        return False


def choose(
    config: DataConfig, sources: Sequence[TaskQuestions]
) -> tuple[list[Query], dict[str, dict[str, Any]]]:
    """Samples, splits and folds.

    Returns:
        The queries, task by task, each task in the order of its sampling hash, so that the first n
        of a task are the sample of size n; and for each task its source and counts.
    """
    chosen: list[_Chosen] = []
    tasks: dict[str, dict[str, Any]] = {}
    for source in sources:
        ranked = _ranked(config.seed, source)
        taken = ranked[: config.queries_per_task]
        if not taken:
            raise HierRouterError(f"{source.task}: the source has no questions")
        if len(taken) < config.queries_per_task:
            say(
                f"{source.task}: {len(taken)} queries, all there are "
                f"({config.queries_per_task} asked for)"
            )
        chosen += taken
        tasks[source.task] = {
            **source.provenance,
            "available": len(source.questions),
            "distinct": len(ranked),
            "taken": len(taken),
        }
    queries = _split(config, chosen)
    for name, counts in tasks.items():
        for split in ("train", "test"):
            counts[split] = sum(q.task == name and q.split == split for q in queries)
    return queries, tasks


def _ranked(seed: int, source: TaskQuestions) -> list[_Chosen]:
    """A task's distinct questions in the order in which a growing sample takes them.

    Of equal texts the least query id stays. A balanced task takes one question of each part
    (subject), then a second of each, and so on.
    """
    distinct: dict[str, Question] = {}
    for question in source.questions:
        text = normalise(question.prompt)
        other = distinct.get(text)
        if other is None or question.query_id < other.query_id:
            distinct[text] = question
    hashed = sorted((hash_unit("sample", seed, text), text) for text in distinct)
    parts: dict[str, int] = {}
    rounds: list[tuple[int, float, str]] = []
    for value, text in hashed:
        part = distinct[text].metadata.get(source.balanced_by, "")
        turn = parts.get(part, 0) if source.balanced_by else 0
        parts[part] = turn + 1
        rounds.append((turn, value, text))
    return [
        _Chosen((rank, value, text), distinct[text], text)
        for rank, (_, value, text) in enumerate(sorted(rounds))
    ]


def _split(config: DataConfig, chosen: Sequence[_Chosen]) -> list[Query]:
    """Gives every chosen question a split and a fold.

    A group of near-duplicates follows the member that a smaller sample would have first. Thus a
    query keeps its side when a sample grows, unless a newcomer joins two groups.
    """
    by_order = sorted(range(len(chosen)), key=lambda at: chosen[at].order)
    first = leaders([chosen[at].text for at in by_order], config.near_duplicate_jaccard)
    leading = {at: chosen[by_order[first[place]]].text for place, at in enumerate(by_order)}
    queries = []
    for at, one in enumerate(chosen):
        text = leading[at]
        train = hash_unit("split", config.seed, text) < config.train_share
        question = one.question
        queries.append(
            Query(
                query_id=question.query_id,
                task=question.task,
                split="train" if train else "test",
                fold=int(hash_unit("fold", config.seed, text) * config.folds),
                prompt=question.prompt,
                reference=question.reference,
                reference_text=question.reference_text,
                tests=question.tests,
                metadata=question.metadata,
            )
        )
    return queries

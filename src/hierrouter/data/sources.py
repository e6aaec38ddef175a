"""Where questions come from: the hub, or else a mirror; the scripted world; files of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierrouter import hub, mirror
from hierrouter.data.mirrored import ASSET, mirrored_rows
from hierrouter.data.own import count_lines, has_changed, own_questions
from hierrouter.data.scripted import scripted_questions
from hierrouter.data.tasks import TASKS, known_tasks, questions_of
from hierrouter.errors import ConfigError, HierRouterError, UnreachableError
from hierrouter.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import DataConfig
    from hierrouter.data.tasks import Question, Row, Task

Recorded = Mapping[str, Mapping[str, Any]]
"""Where the questions of a tree came from, by task."""
MAIN = "main"
"""The revision of a data set for which none is named."""
SPARE = 1.2
"""Scripted questions made for each one asked for, so that sampling has something to choose."""


@dataclass(frozen=True, slots=True)
class TaskQuestions:
    """All questions of one task, and where they came from (written to queries.json)."""

    task: str
    questions: list[Question]
    provenance: dict[str, Any]
    balanced_by: str = ""


def load_questions(config: DataConfig, recorded: Recorded | None = None) -> list[TaskQuestions]:
    """All questions of the configured tasks.

    Args:
        config: the data part of the configuration.
        recorded: where a tree's questions came from, by task (`tasks` of queries.json). They are
            taken from there again: the mirror's from the mirror and the hub's at their commit, and
            only where that is not to be had from the other.

    Raises:
        ConfigError: a task is unknown or named twice, or a file of one's own is wrong.
        UnreachableError: neither hub nor mirror answers.
        HierRouterError: a data set is missing on the hub, or the mirror's differs from its digest.
    """
    twice = sorted({task for task in config.tasks if config.tasks.count(task) > 1})
    if twice:
        raise ConfigError(f"data.tasks names {', '.join(twice)} twice; name each task once")
    if config.source == "benchmarks":
        known_tasks(config.tasks, config.own)
    # Files first: a wrong line in one is said before anything is downloaded.
    own = {name: _own(name, config) for name in config.tasks if name in config.own}
    if unused := [name for name in config.own if name not in own]:
        say(f"not sampled, as data.tasks does not name it: {', '.join(unused)}")
    return [own[name] if name in own else _public(name, config, recorded) for name in config.tasks]


def _own(name: str, config: DataConfig) -> TaskQuestions:
    task = config.own[name]
    read = own_questions(name, task)
    say(f"{name}: {len(read.questions)} questions from {task.file}")
    return TaskQuestions(name, read.questions, read.provenance)


def _public(name: str, config: DataConfig, recorded: Recorded | None) -> TaskQuestions:
    if config.source == "scripted":
        wanted = max(round(config.queries_per_task * SPARE), config.queries_per_task + 5)
        questions = scripted_questions(name, wanted, config.seed)
        return TaskQuestions(name, questions, scripted_provenance())
    return _load(TASKS[name], config.revisions.get(name, MAIN), (recorded or {}).get(name, {}))


def most_queries(config: DataConfig) -> dict[str, int]:
    """At most how many queries each task will have, asking neither hub nor mirror."""
    most = dict.fromkeys(config.tasks, config.queries_per_task)
    for name in config.tasks:
        if name in config.own and (lines := count_lines(config.own[name])) is not None:
            most[name] = min(most[name], lines)
    return most


def scripted_provenance() -> dict[str, Any]:
    """What queries.json says about scripted questions."""
    return {"source": "scripted"}


def mirror_provenance(asset: mirror.Asset) -> dict[str, Any]:
    """What queries.json says about questions from a mirror."""
    return {"source": "mirror", "packages": asset.packages, "sha256": asset.sha256}


def still_same(provenance: dict[str, Any]) -> bool:
    """Whether a recorded source is what would be read now, as far as this machine knows.

    A mirror's entry and a file may have changed; a commit of the hub stays what it is, and asking
    for a newer one would need the network, so it is kept, as is a file's sample when it is gone.
    """
    if provenance.get("source") == "file":
        return not has_changed(provenance)
    if provenance.get("source") != "mirror":
        return provenance.get("source") in ("hub", "scripted")
    asset = mirror.find(ASSET)
    return asset is not None and mirror_provenance(asset).items() <= provenance.items()


def _load(task: Task, revision: str, recorded: Mapping[str, Any]) -> TaskQuestions:
    if (asset := _mirrored(revision, recorded)) is not None:
        try:
            rows = _mirror_rows(task, hub.take_again(asset))
            return _questions(task, rows, mirror_provenance(asset))
        except HierRouterError as error:
            say(f"{task.name}: the mirror does not serve ({error}); the hub is asked")
    at = str(recorded["revision"]) if _of_hub(task, revision, recorded) else revision
    commit = hub.dataset_revision(task.repo, at)
    cached = None if commit is not None or at == MAIN else _cached(task, at)
    if commit is not None:
        say(f"{task.name}: from the hub, {task.repo} at {commit[:12]}")
        rows_by_config = {config: _hub_rows(task, config, commit) for config in task.configs}
        provenance: dict[str, Any] = {"source": "hub", "repo": task.repo, "revision": commit}
    elif cached is not None:
        say(f"{task.name}: from the Hugging Face cache, {task.repo} at {at[:12]}")
        rows_by_config = cached
        provenance = {"source": "hub", "repo": task.repo, "revision": at}
    else:
        asset = hub.mirror_serves(ASSET, f"data set {task.repo}", revision)
        rows_by_config = _mirror_rows(task, mirror.take(asset))
        provenance = mirror_provenance(asset)
    return _questions(task, rows_by_config, provenance)


def _mirrored(revision: str, recorded: Mapping[str, Any]) -> mirror.Asset | None:
    """The mirror's copy, if these questions came from it and no version is pinned."""
    asset = mirror.find(ASSET) if recorded.get("source") == "mirror" and revision == MAIN else None
    return asset if asset is not None and asset.sha256 == recorded.get("sha256") else None


def _of_hub(task: Task, revision: str, recorded: Mapping[str, Any]) -> bool:
    """Whether the hub's commit is known that these questions came from."""
    repo = recorded.get("repo") if recorded.get("source") == "hub" else None
    return repo == task.repo and revision == MAIN and bool(recorded.get("revision"))


def _mirror_rows(task: Task, folder: Path) -> dict[str, list[Row]]:
    return {config: mirrored_rows(folder, task, config) for config in task.configs}


def _questions(
    task: Task, rows_by_config: dict[str, list[Row]], provenance: dict[str, Any]
) -> TaskQuestions:
    questions = [
        question
        for config, rows in rows_by_config.items()
        for question in questions_of(task, config, rows)
    ]
    return TaskQuestions(task.name, questions, provenance, task.balanced_by)


def _hub_rows(task: Task, config: str, commit: str) -> list[Row]:
    # Importing datasets takes seconds, which the mirror and the scripted world need not wait for.
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        rows = datasets.load_dataset(task.repo, config, split="test", revision=commit).to_list()
    except (hub.HTTPError, DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UnreachableError(
            f"the data set {task.repo} ({config}) cannot be read from the Hugging Face hub "
            f"({reason}); run the same command again"
        ) from error
    return list(rows)


def _cached(task: Task, commit: str) -> dict[str, list[Row]] | None:
    """The rows of a commit that the Hugging Face cache holds whole."""
    folder = hub.cached_dataset(task.repo, commit)
    if folder is None:
        return None
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return {
            config: datasets.load_dataset(str(folder), config, split="test").to_list()
            for config in task.configs
        }
    except (DatasetsError, OSError, ValueError):
        return None  # Another part of the data set was downloaded, or a part of this one.


def download_bytes(config: DataConfig, recorded: Recorded | None = None) -> int:
    """Bytes that sampling has to download from a mirror; 0 where the hub or a cache serves.

    Its arguments are those of `load_questions`.

    Raises:
        ConfigError: a task is unknown.
        HierRouterError: the hub does not know a data set or its revision.
        UnreachableError: the hub is not reached, and no mirror has a data set or its revision.
    """
    if config.source == "scripted":
        return 0
    needed = 0
    for task in known_tasks(config.tasks, config.own):
        revision = config.revisions.get(task.name, MAIN)
        if (again := _mirrored(revision, (recorded or {}).get(task.name, {}))) is not None:
            needed = mirror.bytes_to_download(again)
            continue
        if hub.dataset_revision(task.repo, revision) is not None:
            continue
        if revision == MAIN or hub.cached_dataset(task.repo, revision) is None:
            asset = hub.mirror_serves(ASSET, f"data set {task.repo}", revision)
            needed = mirror.bytes_to_download(asset)
    return needed

"""`data`: which queries are asked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hierrouter.config.base import (
    BENCHMARK_TASKS,
    NAME_PATTERN,
    AnswerKind,
    KeyedError,
    Name,
    OwnMetric,
    Section,
    Seed,
    Share,
    nearest,
)


class OwnTask(Section):
    """A task of your own: questions with references, and how an answer is judged."""

    file: Annotated[str, Field(min_length=1)]
    """JSON lines with `question` and `reference` (docs/own_tasks.md). A relative path is taken
    from the folder in which the command runs, like every other path."""
    metric: OwnMetric
    """What `accuracy` means on this task. `letter`, `number`, `math`, `unit_tests`: as on the
    benchmarks. `exact_match`: the answer is an accepted text, but for case, punctuation and
    spacing. `token_f1`: the share of words, in [0, 1], that it has in common with one."""

    @property
    def kind(self) -> AnswerKind:
        """The kind of its answers."""
        if self.metric == "exact_match" or self.metric == "token_f1":
            return "text"
        return self.metric


class DataConfig(Section):
    """Which queries are asked (section 4 of the paper)."""

    source: Literal["benchmarks", "scripted"] = "benchmarks"
    """`benchmarks`: the public data sets, from the hub or else a mirror. `scripted`: synthetic
    queries that the scripted pool understands."""
    tasks: Annotated[list[Name], Field(min_length=1)] = list(BENCHMARK_TASKS)
    """Tasks to sample: benchmarks and those of `own`. Not given: those of `own`, if there are any,
    else the six benchmarks. With `source: scripted` any names will do."""
    own: dict[Name, OwnTask] = {}
    """Tasks of your own, by name."""
    revisions: dict[Name, Annotated[str, Field(min_length=1)]] = {}
    """Commit, tag or branch of a task's data set on the hub, by task; tasks not named: main. The
    commit is recorded with the sample. A mirror holds one version only, so it serves for main."""
    queries_per_task: Annotated[int, Field(gt=0, le=100_000)] = 300
    """At most this many queries a task: those with the smallest hash of seed and text."""
    train_share: Share = 0.7
    """Share of queries in the training split, by a second hash of the text."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Number of folds for cross-fitting, by a third hash of the text."""
    near_duplicate_jaccard: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Queries whose word shingles are at least this similar stay on one side of the split."""
    seed: Seed = 42
    """The data seed: which queries, which split, which folds."""

    withheld: list[Name] = []
    """Tasks whose questions may not be passed on with the recorded replies: what a reply repeats of
    them is stored as a place in the question. To pass such a tree on, leave out its tables of
    queries; whoever opens it takes the questions from their source."""

    @model_validator(mode="before")
    @classmethod
    def _own_alone(cls, values: Any) -> Any:
        """Takes the own tasks where none are named; a wrong name is left to be reported in own."""
        if not isinstance(values, dict) or "tasks" in values:
            return values
        own = values.get("own")
        if not own or not isinstance(own, dict):
            return values
        named = all(isinstance(name, str) and re.match(NAME_PATTERN, name) for name in own)
        return {**values, "tasks": list(own)} if named else values

    @model_validator(mode="after")
    def _own_named(self) -> Self:
        for task in self.own:
            if task in BENCHMARK_TASKS:
                raise KeyedError(("own", task), "is the name of a benchmark; choose another")
        return self

    @model_validator(mode="after")
    def _withheld_asked(self) -> Self:
        for task in self.withheld:
            if task not in self.tasks:
                near = nearest(task, {*self.tasks})
                raise KeyedError(("withheld",), f"{task} is not among the tasks{near}")
        return self

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.revisions and self.source == "scripted":
            raise KeyedError(("revisions",), "goes with `source: benchmarks` only")
        for task in self.revisions:
            if task in self.own:
                raise KeyedError(("revisions", task), "is a task of your own, which has a file")
            if task not in (known := {*self.tasks, *BENCHMARK_TASKS} - self.own.keys()):
                raise KeyedError(
                    ("revisions", task), f"no task has this name{nearest(task, known)}"
                )
        return self

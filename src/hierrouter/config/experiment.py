"""A whole experiment: the four parts of the configuration, held together."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from hierrouter.config.base import BENCHMARK_TASKS, KeyedError, Section, nearest
from hierrouter.config.data import DataConfig
from hierrouter.config.evaluation import EvaluationConfig
from hierrouter.config.pool import PoolConfig
from hierrouter.config.training import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


class Config(Section):
    """A whole experiment."""

    data: DataConfig = DataConfig()
    """Which queries are asked."""
    pool: PoolConfig
    """Whom the router may call, and how."""
    training: TrainingConfig = TrainingConfig()
    """How the router learns."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How routers are judged."""

    @model_validator(mode="after")
    def _tasks_named(self) -> Self:
        for part, specs in (("models", self.pool.models), ("references", self.pool.references)):
            for index, spec in enumerate(specs):
                at = ("pool", part, str(index))
                self._refuse_unknown((*at, "limits", "solve_by_task"), spec.limits.solve_by_task)
                if spec.scripted is not None:
                    self._refuse_unknown((*at, "scripted", "solve"), spec.scripted.solve)
        return self

    def _refuse_unknown(self, keys: tuple[str, ...], by_task: Mapping[str, object]) -> None:
        """Refuses task names that would be passed over in silence.

        Scripted tasks have free names, and an experiment may ask only some of those that its pool
        knows; there only what looks like a slip of a task's name is refused.
        """
        known = {*self.data.tasks, *self.data.own, *BENCHMARK_TASKS}
        for task in by_task:
            slips = difflib.get_close_matches(task, sorted(known - set(by_task)), n=1, cutoff=0.8)
            if task not in known and (slips or self.data.source == "benchmarks"):
                raise KeyedError((*keys, task), f"no task has this name{nearest(task, known)}")

"""The typed configuration: every number of an experiment, documented where it is defined.

A config has four parts. A stage reads only its own part and what its inputs came from:
`data` (sampling), `pool` (collecting), `training` and `evaluation`. `hierrouter config --explain`
prints the descriptions.
"""

from __future__ import annotations

from hierrouter.config.base import (
    ALPHA_GRID,
    BENCHMARK_TASKS,
    MOST_ALPHA,
    MOST_HOPS,
    NAME_PATTERN,
    Alpha,
    AnswerKind,
    KeyedError,
    MetricName,
    Name,
    OwnMetric,
    Positive,
    Recipe,
    Section,
    Share,
    View,
)
from hierrouter.config.data import DataConfig, OwnTask
from hierrouter.config.evaluation import EvaluationConfig
from hierrouter.config.experiment import Config
from hierrouter.config.model import Endpoint, ModelSpec, ScriptedSkills, TokenLimits
from hierrouter.config.pool import AnswerFormats, EncoderConfig, PoolConfig, Prompts
from hierrouter.config.training import TrainingConfig

__all__ = [
    "ALPHA_GRID",
    "BENCHMARK_TASKS",
    "MOST_ALPHA",
    "MOST_HOPS",
    "NAME_PATTERN",
    "Alpha",
    "AnswerFormats",
    "AnswerKind",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "Endpoint",
    "EvaluationConfig",
    "KeyedError",
    "MetricName",
    "ModelSpec",
    "Name",
    "OwnMetric",
    "OwnTask",
    "PoolConfig",
    "Positive",
    "Prompts",
    "Recipe",
    "ScriptedSkills",
    "Section",
    "Share",
    "TokenLimits",
    "TrainingConfig",
    "View",
]

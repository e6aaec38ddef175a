"""Sampling, as a pipeline's stage."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from hierrouter.config import DataConfig
from hierrouter.configfile import load_part
from hierrouter.data.queries import digest_queries, read_queries
from hierrouter.data.sample import sample_queries
from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Sampled(NamedTuple):
    """What the pipeline goes on with."""

    shown: dict[str, Any]
    """How many queries, by split and task, and their digest."""
    shards: list[str]
    """"0/4", "1/4", …: one a recorder."""


def sample(data: str, shards: int, out: Path) -> Sampled:
    """Samples the queries, and plans who records them.

    Args:
        data: the data part of a config, as YAML or JSON.
        shards: how many record side by side.
        out: the folder for `queries.parquet` and `queries.json`.

    Raises:
        ConfigError: `data` or `shards` is wrong.
        UnreachableError: neither hub nor mirror answers.
    """
    if shards < 1:
        raise ConfigError(f"shards {shards}: give at least 1")
    queries = read_queries(sample_queries(load_part(DataConfig, data, "data"), out))
    shown = {
        "digest": digest_queries(queries),
        **Counter(query.split for query in queries),
        **Counter(f"task {query.task}" for query in queries),
    }
    return Sampled(shown, [f"{index}/{shards}" for index in range(shards)])

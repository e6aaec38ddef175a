"""Small files of outcomes where it pays to route, in every format."""

from __future__ import annotations

import csv
import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.config import Config, EncoderConfig, PoolConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Row = dict[str, Any]
MODELS = ("openai/small", "openai/large", "local")
WORDS = ("river", "stone", "cloud", "amber", "violin", "harbor", "meadow", "copper", "lantern")


def outcomes(count: int = 40, seed: int = 0) -> list[Row]:
    """`count` queries of two tasks by three models: each task has one model that is good at it."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        task = ("code", "law")[number % 2]
        words = " ".join(draw.choice(WORDS, 8))
        for position, model in enumerate(MODELS):
            good = 0.95 if position == number % 2 else 0.2
            rows.append(
                {
                    "query_id": f"{task}/{number}",
                    "task": task,
                    "prompt": f'About {task}, {task} number {number}: {words}?\nSay, "why".',
                    "model": model,
                    "score": float(draw.random() < good),
                    "cost": float(0.001 * (position + 1)),
                }
            )
    return rows


def save(path: Path, rows: list[Row]) -> Path:
    """Writes rows as the path's ending says."""
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt", encoding="utf-8", newline="") as file:
            if ".csv" in path.suffixes:
                writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)))
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture
def make_rows() -> Callable[..., list[Row]]:
    return outcomes


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[Row], name: str = "log.csv") -> Path:
        return save(tmp_path / name, rows)

    return write


@pytest.fixture
def config() -> Config:
    """The hashing encoder, all models, all defaults."""
    return Config(pool=PoolConfig(encoder=EncoderConfig(model="hashing", dimensions=32)))

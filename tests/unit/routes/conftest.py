"""A small scripted world: pools, queries and recorded trees of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hierrouter.config import DataConfig, EncoderConfig, ModelSpec, PoolConfig, ScriptedSkills
from hierrouter.data.queries import read_queries, write_queries
from hierrouter.data.sample import sample_queries
from hierrouter.routes.collect import collect_routes

if TYPE_CHECKING:
    from pathlib import Path


class World:
    """Makes pools, samples and trees under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"

    def model(self, name: str, skill: float = 0.5, rate: float = 0.001, **more: Any) -> ModelSpec:
        """A scripted model, equally good at everything."""
        skills = ScriptedSkills(solve_otherwise=skill, words=6)
        fields = {"model": name, "backend": "scripted", "scripted": skills, "base_rate": rate}
        return ModelSpec(name=name, **{**fields, **more})

    def pool(self, *models: ModelSpec, **more: Any) -> PoolConfig:
        """Models A, B and C unless others are given, two hops, three queries a unit."""
        usual = (self.model("A", 0.9), self.model("B", 0.5, 0.002), self.model("C", 0.1, 0.004))
        fields = {
            "models": list(models or usual),
            "encoder": EncoderConfig(model="hashing", dimensions=16),
            "queries_per_unit": 3,
        }
        return PoolConfig(**{**fields, **more})

    def sample(self, count: int = 4, seed: int = 42, name: str = "queries") -> Path:
        """`count` scripted queries of each of two tasks."""
        config = DataConfig(
            source="scripted", tasks=["x", "y"], queries_per_task=count, seed=seed, train_share=0.5
        )
        return sample_queries(config, self.folder / name)

    def altered(self, queries: Path, **fields: Any) -> Path:
        """The same queries, but for the first one's `fields`."""
        first, *others = read_queries(queries)
        path = self.folder / "altered" / "queries.parquet"
        write_queries(path, [replace(first, **fields), *others])
        return path

    def record(self, pool: PoolConfig, queries: Path) -> Path:
        """Collects into the world's one tree."""
        return collect_routes(pool, queries, self.tree)

    def states(self, pattern: str = "nodes/*.parquet") -> dict[str, tuple[int, int]]:
        """Of each file of the tree, what tells whether it was written again."""
        return {
            path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in self.tree.glob(pattern)
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def queries(world: World) -> Path:
    """Eight queries: units of three, three and two."""
    return world.sample()


@pytest.fixture
def tree(world: World, queries: Path) -> Path:
    """The recorded tree of the eight queries and the three models."""
    return world.record(world.pool(), queries)

"""A small router with its evaluation and queries, and places to register it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hierrouter.config import (
    Config,
    EncoderConfig,
    EvaluationConfig,
    ModelSpec,
    PoolConfig,
    TrainingConfig,
)
from hierrouter.data.queries import Query, digest_queries, write_queries
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.records import write_records
from hierrouter.files import write_json, write_text
from hierrouter.learning.network import Network, Projection
from hierrouter.learning.router import Router, RouterInfo, query_hash
from hierrouter.routes.encoder import encoder_identity, open_encoder
from hierrouter.routes.outcomes import Outcomes

if TYPE_CHECKING:
    from pathlib import Path

MODELS = ("small", "large")
CONFIG = EvaluationConfig(alphas=[0, 0.1], alpha=0.1, bootstrap=100)
WIDTH = 32


@dataclass(frozen=True)
class Stage:
    """What the stages before registering leave behind."""

    router: Path
    evaluation: Path
    tree: Path


def make_stage(folder: Path, seed: int) -> Stage:
    """A router with weights drawn by `seed`, evaluated on forty made-up queries."""
    random = np.random.default_rng(seed)
    tasks = np.array([("sums", "facts")[number % 2] for number in range(40)])
    prompts = [f"{task}: what about item {number}?" for number, task in enumerate(tasks)]
    ids = tuple(f"{task}/{number}" for number, task in enumerate(tasks))
    train = np.arange(40) % 4 != 3
    queries = [
        Query(
            query_id=name,
            task=str(task),
            split="train" if trained else "test",
            fold=0,
            prompt=prompt,
            reference=("1",),
            reference_text="one",
            tests=(),
            metadata={"kind": "number"},
        )
        for name, task, trained, prompt in zip(ids, tasks, train, prompts, strict=True)
    ]
    encoder = EncoderConfig(model="hashing", dimensions=WIDTH)
    vectors = open_encoder(encoder).encode(prompts)
    outcomes = Outcomes(
        query_ids=ids,
        tasks=tasks,
        train=train,
        folds=np.arange(40) % 5,
        models=MODELS,
        hops=2,
        metric="accuracy",
        embeddings=np.repeat(vectors[:, None], 3, axis=1),
        analyze_cost=np.full((40, 3, 2), 0.001),
        solve_cost=np.tile([0.001, 0.004], (40, 3, 1)),
        solve_quality=random.integers(0, 2, (40, 3, 2)).astype(float),
    )
    config = Config(
        pool=PoolConfig(
            models=[ModelSpec(name=name, model=f"org/{name}", base_rate=0.001) for name in MODELS],
            encoder=encoder,
        ),
        training=TrainingConfig(iterations=3, projection=None, hidden=[8, 8]),
    )

    def drawn(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    router = Router(
        RouterInfo(
            models=MODELS,
            hops=2,
            moves="early_exit",
            metric="accuracy",
            view="paper",
            activation="tanh",
            alpha_range=(0, 1),
            cost_unit_usd=0.004,
            encoder={
                "config": encoder.model_dump(mode="json"),
                "identity": encoder_identity(encoder),
            },
            dimensions={"embedding": WIDTH, "projection": WIDTH, "actions": 5},
            config={
                part: getattr(config, part).model_dump(mode="json")
                for part in ("data", "pool", "training")
            },
            weights={spec.name: "3" * 64 for spec in config.pool.models},
            scorer_version=1,
            query_digest=digest_queries(queries),
            tree_digest="2" * 64,
            training_query_hashes=tuple(query_hash(name) for name in np.array(ids)[train]),
            data_seed=42,
            training_seed=seed,
            validation={"reward": 0.5, "iteration": 3, "queries": 6},
        ),
        Projection.fit(vectors, None),
        Network(
            stage=drawn(2, 4),
            first_weight=drawn(8, WIDTH + 2 + 4) * 3,
            first_bias=drawn(8),
            second_weight=drawn(8, 8),
            second_bias=drawn(8),
            action_weight=drawn(5, 8),
            action_bias=drawn(5),
        ),
    )
    curve = [
        {
            "iteration": step,
            "transitions": 512 * step,
            "metrics": {"reward": step / 10, "loss": None if step == 1 else 1 / step},
        }
        for step in (1, 2, 3)
    ]
    stage = Stage(folder / "router", folder / "evaluation", folder / "tree")
    router.save(stage.router, curve, "# A router\n")
    saved = Router.load(stage.router)
    measured = measure(outcomes, saved, CONFIG)
    metrics = {**measured.metrics, "router": {"weights_sha256": saved.info.weights_sha256}}
    stage.evaluation.mkdir()
    write_records(stage.evaluation / "per_query.parquet", measured.test, measured.played, 0.004)
    write_text(stage.evaluation / "report.html", "<p>report</p>")
    write_json(stage.evaluation / "metrics.json", metrics)
    write_queries(stage.tree / "queries.parquet", queries)
    return stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path / "one", seed=1)


@pytest.fixture
def other_stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path / "two", seed=2)

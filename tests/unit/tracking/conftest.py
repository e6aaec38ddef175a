"""A small router with its evaluation and queries, and places to register it."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.routers import arbitrary_info, arbitrary_policy

from hierrouter.config import (
    Config,
    EncoderConfig,
    EvaluationConfig,
    ModelSpec,
    PoolConfig,
    TrainingConfig,
)
from hierrouter.configfile import load_config
from hierrouter.data.queries import Query, digest_queries, write_queries
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.policies.contenders import Workshop
from hierrouter.evaluation.records import write_records
from hierrouter.files import digest_of, read_json, write_json, write_text
from hierrouter.learning.heads import Heads
from hierrouter.learning.projection import Projection
from hierrouter.learning.router import Router, query_hash
from hierrouter.learning.train import train_router
from hierrouter.routes.encoder import encoder_identity, open_encoder
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

OUTCOMES = Path(__file__).parents[3] / "configs" / "outcomes.yaml"
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
        training=TrainingConfig(iterations=3, projection=None, centres=0),
    )

    policy = arbitrary_policy(WIDTH, len(MODELS), 2, seed)
    assert isinstance(policy, Heads)
    # Fitted, so that queries are told apart.
    query, context = Projection.fit(vectors, 4), Projection.fit(vectors, 3)
    policy = replace(policy, features=replace(policy.features, query=query, context=context))
    info = arbitrary_info(
        MODELS,
        2,
        policy,
        cost_unit_usd=0.004,
        encoder={
            "config": encoder.model_dump(mode="json"),
            "identity": encoder_identity(encoder),
        },
        config={
            part: getattr(config, part).model_dump(mode="json")
            for part in ("data", "pool", "training")
        },
        weights={spec.name: "3" * 64 for spec in config.pool.models},
        query_digest=digest_queries(queries),
        tree_digest="2" * 64,
        training_query_hashes=tuple(query_hash(name) for name in np.array(ids)[train]),
        data_seed=42,
        training_seed=seed,
        validation={"reward": 0.5, "iteration": 3, "queries": 6},
    )
    router = Router(info, policy)
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
    known = ("weights_sha256", "data_seed", "training_seed")
    metrics = {**measured.metrics, "router": {key: getattr(saved.info, key) for key in known}}
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


SKILLS = {"good": 0.9, "fair": 0.55, "twin": 0.55, "poor": 0.2, "double": 0.55}
"""How often each model of the imported trees is right. `twin` is `fair` but for few queries,
`double` for all."""


class Pool:
    """Trees of imported outcomes of the same queries, and routers that always choose one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = itertools.count()
        draw = np.random.default_rng(3)
        luck = {name: draw.random(600) for name in SKILLS}
        luck["twin"] = np.where(draw.random(600) < 0.9, luck["fair"], luck["twin"])
        luck["double"] = luck["fair"]
        self._right = {name: luck[name] < SKILLS[name] for name in SKILLS}

    def tree(
        self,
        models: Sequence[str] = ("good", "fair", "twin", "poor"),
        *settings: str,
        prices: Mapping[str, float] | None = None,
        scale: float = 1.0,
    ) -> Path:
        """A tree of some of the models; the same for the same arguments.

        `prices` are dollars a query, .001 of models that it does not name; `scale` is the score of
        a right answer.
        """
        prices = prices or {}
        named = digest_of([*models, *settings, prices, scale])
        folder = self.folder / f"tree-{named[:8]}"
        if folder.exists():
            return folder
        path = folder.with_suffix(".csv")
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["query_id", "task", "prompt", "model", "score", "cost"])
            for number in range(600):
                task = ("code", "law")[number % 2]
                prompt = f"{task} {digest_of(number)}"
                for name in models:
                    score = scale * float(self._right[name][number])
                    price = prices.get(name, 0.001)
                    writer.writerow([f"{task}/{number}", task, prompt, name, score, price])
        given = ["pool.encoder={model: hashing, dimensions: 16}", "data.train_share=0.5", *settings]
        return import_outcomes(path, folder, load_config(OUTCOMES, given, any_pool=True))

    def _trained(self, tree: Path) -> Router:
        folder = tree.with_suffix(".router")
        if not folder.exists():
            recipe = TrainingConfig(
                moves="direct", start="nothing", iterations=1, rollouts=8, centres=4
            )
            train_router(recipe, tree, folder)
        return Router.load(folder)

    def stage(
        self,
        model: str,
        tree: Path | None = None,
        seeds: int = 1,
        alphas: Sequence[float] = (0, 0.1),
        **changes: Any,
    ) -> Stage:
        """A router that always chooses this model, evaluated.

        The last of `alphas` is the headline's. `changes` are of the router's description, made
        after the evaluation.
        """
        tree = tree or self.tree()
        trained = self._trained(tree)
        assert isinstance(trained.policy, Heads)
        quality = np.zeros_like(trained.policy.quality)
        quality[:, 2 * trained.info.models.index(model) + 1, 0] = 1.0  # u(s) begins with a 1
        flat = replace(trained.policy, quality=quality, cost=np.zeros_like(quality))
        folder = self.folder / f"stage-{next(self._number)}"
        stage = Stage(folder / "router", folder / "evaluation", tree)
        curve = read_json(tree.with_suffix(".router") / "learning_curve.json")
        Router(trained.info, flat).save(stage.router, curve, "# A router\n")
        saved = Router.load(stage.router)
        asked = {"seeds": seeds, "alphas": list(alphas), "alpha": alphas[-1]}
        config = CONFIG.model_copy(update=asked)
        outcomes = load_outcomes(tree, "accuracy", saved.info.view, "direct")
        made = tree_info(tree)
        workshop = Workshop(saved, made, seeds, (), stage.evaluation / "routers")
        measured = measure(outcomes, saved, config, None, workshop)
        unit = saved.info.cost_unit_usd
        write_records(stage.evaluation / "per_query.parquet", measured.test, measured.played, unit)
        write_text(stage.evaluation / "report.html", "<p>report</p>")
        if changes:
            info = saved.info.model_copy(update=changes)
            Router(info, flat).save(stage.router, curve, "# A router\n")
            saved = Router.load(stage.router)
        origin = {
            "router": {
                key: getattr(saved.info, key)
                for key in ("weights_sha256", "data_seed", "training_seed")
            },
            "tree": {
                **{key: made[key] for key in ("query_digest", "tree_digest", "scorer_version")},
                "pool_digest": digest_of(made["pool"]),
            },
            "evaluation": config.model_dump(mode="json"),
        }
        write_json(stage.evaluation / "metrics.json", {**measured.metrics, **origin})
        write_json(stage.evaluation / "evaluation.json", origin)
        return stage


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(tmp_path_factory.mktemp("pool"))

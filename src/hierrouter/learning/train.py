"""Training a router on a route tree: data in, PPO, the best checkpoint out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter import __version__
from hierrouter.config import PoolConfig, TrainingConfig
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder
from hierrouter.learning.card import model_card
from hierrouter.learning.environment import Game
from hierrouter.learning.network import Projection
from hierrouter.learning.ppo import learn, one_thread
from hierrouter.learning.router import Router, RouterInfo, query_hash
from hierrouter.progress import say
from hierrouter.routes.load import load_outcomes, tree_info

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Outcomes


def train_router(config: TrainingConfig, tree: Path, out: Path) -> Path:
    """Trains a router with PPO on the training queries of a route tree.

    Args:
        config: the training part of a config.
        tree: the folder of a route tree.
        out: the folder the router goes to.

    Returns:
        `out`, now a router (`router.safetensors`, `router.json`, `learning_curve.json`,
        `README.md`).

    Raises:
        ConfigError: `out` is not ours, or the tree has no training queries.
        HierRouterError: `tree` holds no tree.
    """
    claim_folder(out, "router.json")
    outcomes = load_outcomes(tree, config.metric, config.view, config.moves)
    info = tree_info(tree)
    router, curve = fit(config, outcomes, info)
    router.save(out, curve, model_card(router.info))
    kept = router.info.validation
    result = f"iteration {kept['iteration']:.0f} of {config.iterations}"
    if "reward" in kept:
        on = f"on {kept['queries']:.0f} validation queries"
        result += f", reward {on} {kept['reward']:.3f}"
    say(f"router: {out} ({result})")
    return out


def is_trained(config: TrainingConfig, tree: Path, router: Path) -> bool:
    """Whether `router` holds what `train_router` would make from this config and tree."""
    try:
        known = Router.load(router).info
    except HierRouterError:
        return False
    info = tree_info(tree)
    return (
        known.config["training"] == config.model_dump(mode="json")
        and known.config["pool"] == info["pool"]
        and known.encoder["identity"] == info["encoder"]
        and (known.query_digest, known.tree_digest) == (info["query_digest"], info["tree_digest"])
        and known.weights == {name: info["weights"][name] for name in known.models}
        and known.scorer_version == info["scorer_version"]
        and known.library_version == __version__
    )


def fit(
    config: TrainingConfig, outcomes: Outcomes, info: dict[str, Any]
) -> tuple[Router, list[dict[str, Any]]]:
    """Trains on outcomes at hand.

    Args:
        config: the training part of a config.
        outcomes: N queries; only those in the training split are used.
        info: `tree.json`, with what the router must remember of its origin.

    Returns:
        The router and its learning curve, one entry an iteration.

    Raises:
        ConfigError: there are fewer than two training queries.
    """
    train = outcomes.select(outcomes.train)
    if len(train) < 2:
        raise ConfigError(
            f"the tree has {len(train)} training queries, at least 2 are needed; "
            "sample more (data.queries_per_task) or record more of them"
        )
    held_back = validation_mask(train.tasks, config.validation_share, config.seed)
    fitting, validation = train.select(~held_back), train.select(held_back)
    unit = train.cost_unit_usd() if config.cost_unit_usd == "auto" else config.cost_unit_usd
    # Only contexts from which a call can be made are seen, and they all are.
    seen = fitting.embeddings.reshape(-1, fitting.embeddings.shape[2])
    with one_thread():
        projection = Projection.fit(seen, config.projection)
        state = projection(fitting.embeddings)
    low, high = (alpha / (1 + alpha) for alpha in config.alpha_range)
    game = Game(fitting, state, config.moves, unit, low, high)
    pool = PoolConfig.model_validate(info["pool"])
    described = RouterInfo(
        models=train.models,
        hops=train.hops,
        moves=config.moves,
        metric=config.metric,
        view=config.view,
        activation=config.activation,
        alpha_range=config.alpha_range,
        cost_unit_usd=unit,
        encoder={"config": pool.encoder.model_dump(mode="json"), "identity": info["encoder"]},
        dimensions={
            "embedding": train.embeddings.shape[2],
            "projection": projection.components.shape[0],
            "actions": int(game.action_space().n),
        },
        config={
            "data": info["data"].get("config", {}),
            "pool": info["pool"],
            "training": config.model_dump(mode="json"),
        },
        weights={name: info["weights"][name] for name in train.models},
        scorer_version=info["scorer_version"],
        query_digest=info["query_digest"],
        tree_digest=info["tree_digest"],
        training_query_hashes=tuple(sorted(query_hash(name) for name in train.query_ids)),
        data_seed=int(info["data"].get("config", {}).get("seed", 0)),
        training_seed=config.seed,
        validation={},
    )
    return learn(config, game, projection, described, validation)


def validation_mask(tasks: NDArray[np.str_], share: float, seed: int) -> NDArray[np.bool_]:
    """Which training queries are kept back to choose the checkpoint.

    Args:
        tasks: N task names.
        share: share of all queries, spread over the tasks as evenly as whole queries allow; unless
            it is 0, at least one query is kept back, and one not.
        seed: the training seed.

    Returns:
        N flags.
    """
    random = np.random.default_rng([seed, 1])
    chosen = np.zeros(len(tasks), dtype=np.bool_)
    names, sizes = np.unique(tasks, return_counts=True)
    # Whole queries of each task, and the rest where most of one is owed (largest remainders): tasks
    # of a query or two would otherwise give none, however many tasks there are.
    counts = np.floor(share * sizes).astype(np.int64)
    owed = share * sizes - counts
    counts[np.argsort(-owed, kind="stable")[: round(share * len(tasks)) - counts.sum()]] += 1
    for task, count in zip(names, counts, strict=True):
        members = np.flatnonzero(tasks == task)
        chosen[random.permutation(members)[:count]] = True
    if share and not chosen.any():
        chosen[random.integers(len(tasks))] = True
    if chosen.all():
        chosen[random.integers(len(tasks))] = False
    return chosen

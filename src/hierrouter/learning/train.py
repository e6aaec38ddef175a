"""Training a router on a route tree: data in, a learner, the router out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter import __version__
from hierrouter.config import PoolConfig, TrainingConfig
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder
from hierrouter.learning.card import model_card
from hierrouter.learning.environment import Game
from hierrouter.learning.greedy import mean_reward
from hierrouter.learning.heads import Heads
from hierrouter.learning.ppo import learn
from hierrouter.learning.router import Router, RouterInfo, query_hash
from hierrouter.learning.stages import too_many_stages
from hierrouter.learning.threads import threads
from hierrouter.learning.workbench import Workbench
from hierrouter.progress import Progress, say
from hierrouter.routes.fill import filling
from hierrouter.routes.load import load_outcomes, tree_info

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.learning.workbench import Start
    from hierrouter.routes.fill import Filler
    from hierrouter.routes.outcomes import Outcomes


def train_router(
    config: TrainingConfig,
    tree: Path,
    out: Path,
    max_dollars: float | None = None,
    look: Callable[[Outcomes], object] | None = None,
    pool: PoolConfig | None = None,
) -> Path:
    """Trains a router on the training queries of a route tree.

    Args:
        config: the training part of a config.
        tree: the folder of a route tree. With `fill` its direct answers must be there, and it gets
            what episodes visit; training that was cut short starts anew, but takes all that is
            there already from the tree.
        out: the folder the router goes to.
        max_dollars: with `fill`, what its calls may cost by the pool's rates; never exceeded.
        look: gets what was recorded before anything is learned from it; not with `fill`.
        pool: with `fill`, says where servers are asked; none: where the tree was recorded.

    Returns:
        `out`, now a router (`router.safetensors`, `router.json`, `learning_curve.json`,
        `README.md`).

    Raises:
        ConfigError: `out` is not ours, or the tree has no training queries.
        HierRouterError: `tree` holds no tree; or filling it stopped, at `max_dollars` or because
            a model failed.
    """
    if max_dollars is not None and not config.fill:
        raise ConfigError(
            "--max-dollars: training on a recorded tree makes no calls; leave it out, or set "
            "training.fill=true"
        )
    claim_folder(out, "router.json")
    if config.fill:
        with filling(tree, config.metric, config.view, max_dollars, pool) as filler:
            direct = load_outcomes(tree, config.metric, config.view, "direct")
            router, curve = fit(config, direct, tree_info(tree), filler)
        say(f"{tree}: {filler.made} nodes filled in, ${filler.spent_usd:.4f}")
        grown = {"tree_digest": tree_info(tree)["tree_digest"]}
        router.info = router.info.model_copy(update=grown)
    else:
        # Read first: should the tree grow meanwhile, the router is trained again, not kept.
        info = tree_info(tree)
        outcomes = load_outcomes(tree, config.metric, config.view, config.moves, whole=False)
        if look is not None:
            look(outcomes)
        router, curve = fit(config, outcomes, info)
    router.save(out, curve, model_card(router.info))
    kept = router.info.validation
    result = f"iteration {kept['iteration']:.0f} of {config.iterations}"
    if config.learner == "regression":
        result = "by regression"
    elif config.start == "regression" and not kept["iteration"]:
        result = "PPO found nothing better than its start, the regression"
    if "reward" in kept:
        on = f"on {kept['queries']:.0f} validation queries"
        result += f", reward {on} {kept['reward']:.3f}"
        if kept.get("refitted"):
            result += " before it was fitted to these, too"
    say(f"router: {out} ({result})")
    return out


def is_trained(config: TrainingConfig, tree: Path, router: Path) -> bool:
    """Whether `router` holds what `train_router` would make from this config and tree."""
    try:
        known = Router.load(router).info
    except HierRouterError:
        return False
    return is_made_of(known, config, tree_info(tree))


def is_made_of(known: RouterInfo, config: TrainingConfig, tree: Mapping[str, Any]) -> bool:
    """Whether a router was made by this recipe from this tree, as far as they tell.

    Args:
        known: the router's description.
        config: the recipe.
        tree: what `tree_info` says of the tree: replies and scores, and also the encoder and the
            rates, which change vectors and costs and no reply.
    """
    return (
        known.config["training"] == config.model_dump(mode="json")
        and known.config["pool"] == tree["pool"]
        and known.encoder["identity"] == tree["encoder"]
        and known.query_digest == tree["query_digest"]
        # A tree that is filled grows with each router trained or judged on it.
        and (config.fill or known.tree_digest == tree["tree_digest"])
        and known.weights == {name: tree["weights"][name] for name in known.models}
        and known.scorer_version == tree["scorer_version"]
        and known.library_version == __version__
    )


def fit(
    config: TrainingConfig,
    outcomes: Outcomes,
    info: dict[str, Any],
    filler: Filler | None = None,
    label: str = "training",
) -> tuple[Router, list[dict[str, Any]]]:
    """Trains on outcomes at hand.

    Args:
        config: the training part of a config.
        outcomes: N queries; only those in the training split are used. With a filler, their
            direct answers.
        info: `tree.json`, with what the router must remember of its origin.
        filler: makes what episodes visit; none: all is in `outcomes`.
        label: what progress is called.

    Returns:
        The router and its learning curve, one entry an iteration.

    Raises:
        ConfigError: there are fewer than two training queries.
        HierRouterError: the policy diverged, or filling stopped.
    """
    train = outcomes.select(outcomes.train)
    if len(train) < 2:
        raise ConfigError(
            f"the tree has {len(train)} training queries, at least 2 are needed; "
            + (
                "import more of them, with outcomes of two models or more"
                if outcomes.signals is None
                else "sample more (data.queries_per_task) or record more of them"
            )
        )
    held_back = validation_mask(train.tasks, config.validation_share, config.seed)
    fitting, validation = train.select(~held_back), train.select(held_back)
    unit = train.cost_unit_usd() if config.cost_unit_usd == "auto" else config.cost_unit_usd
    workbench = Workbench(config, train, unit, filler)
    stages = workbench.stages
    if too_many := too_many_stages(stages.models, stages.hops, stages.moves):
        raise ConfigError(f"training.{too_many}")
    if stages.answered and train.signals is None:
        raise ConfigError(
            f"training.moves: {config.moves} looks at answers, and imported outcomes have none; "
            "set training.moves=direct"
        )
    game_contexts, kept_back = workbench.contexts(fitting), workbench.contexts(validation)
    low, high = (alpha / (1 + alpha) for alpha in config.alpha_range)
    game = Game(game_contexts, config.moves, low, high, config.limited_share)
    pool = PoolConfig.model_validate(info["pool"])
    described = RouterInfo(
        models=train.models,
        hops=game_contexts.hops,
        moves=config.moves,
        metric=config.metric,
        view=config.view,
        policy=config.policy,
        activation=config.activation,
        alpha_range=config.alpha_range,
        cost_unit_usd=unit,
        encoder={"config": pool.encoder.model_dump(mode="json"), "identity": info["encoder"]},
        dimensions={
            "embedding": train.embeddings.shape[2],
            "state": game_contexts.state.shape[1],
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
    if config.learner == "regression":
        return _fitted(workbench, described, train, label)
    start = workbench.start(fitting)
    if isinstance(start.policy, Heads):
        game = replace(game, heads=start.policy)
    if start.returned is not None:
        game_contexts.returned = start.returned
    router, curve = learn(config, game, start.policy, described, kept_back, label)
    if config.start == "regression":
        _refit(router, start, workbench.start(train))
    return router, curve


def _refit(router: Router, start: Start, whole: Start) -> None:
    """Puts what PPO found, a step away from `start`, behind a start from all training queries."""
    assert isinstance(start.policy, Heads)
    assert isinstance(whole.policy, Heads)
    assert isinstance(router.policy, Heads)
    found = router.info.validation
    if found["iteration"] and start.goes_on != whole.goes_on:
        # Heads that go on after an answer and heads that do not are no two versions of one policy:
        # a step from one leads nowhere from the other. What was validated stays as it is.
        return
    router.policy = whole.policy.stepped(start.policy, router.policy)
    if "reward" in found:
        router.info = router.info.model_copy(update={"validation": found | {"refitted": 1.0}})


def _fitted(
    workbench: Workbench, described: RouterInfo, train: Outcomes, label: str
) -> tuple[Router, list[dict[str, Any]]]:
    """The router of the regression alone, on all training queries, and its one point of a curve."""
    with Progress(label, 1, "fits") as progress:
        policy = workbench.start(train).policy
        assert isinstance(policy, Heads)
        progress.advance(1)
    router = Router(described, policy)
    contexts = workbench.contexts(train)
    with threads(1):
        rewards = mean_reward(router, contexts, workbench.alphas)
    point = {
        "iteration": 1,
        "transitions": len(contexts.depth),
        "metrics": {"training_reward": float(rewards.mean())},
    }
    found = {"iteration": 1.0, "queries": 0.0}
    router.info = described.model_copy(update={"validation": found})
    return router, [point]


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

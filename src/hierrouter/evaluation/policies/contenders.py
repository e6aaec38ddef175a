"""Routers that are trained for an evaluation: more seeds, other folds, other recipes.

How good a recipe is cannot be told from one router. So an evaluation may train the same recipe with
other training seeds, on other parts of the queries (cross-fitting, leaving one task out), and other
recipes for comparison. Each is kept in a folder and not trained again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.config import TrainingConfig
from hierrouter.errors import HierRouterError
from hierrouter.evaluation.kept import kept_config
from hierrouter.evaluation.policies.arena import Contender
from hierrouter.learning.card import model_card
from hierrouter.learning.paper import PAPER_RECIPE
from hierrouter.learning.router import Router, query_hash
from hierrouter.learning.train import fit, is_made_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import Recipe
    from hierrouter.evaluation.policies.arena import Chooser
    from hierrouter.routes.outcomes import Outcomes


class Workshop:
    """Trains contenders on parts of a tree, and remembers what it has trained."""

    def __init__(
        self, router: Router, info: dict[str, Any], seeds: int, recipes: Sequence[Recipe], out: Path
    ) -> None:
        """Takes the router whose recipe is judged.

        Args:
            router: its recipe, cost unit and training seed are those of the others.
            info: `tree_info` of the tree.
            seeds: S, how many training seeds, the router's own the first.
            recipes: further recipes to train for comparison.
            out: the folder in which trained routers are kept.
        """
        self._router, self._tree, self._out = router, info, out
        recipe = kept_config(
            TrainingConfig,
            router.info.config.get("training"),
            "the router's router.json, training",
            "train the router anew",
        )
        # One unit for all, so that rewards can be compared and put together.
        self._recipe = recipe.model_copy(update={"cost_unit_usd": router.info.cost_unit_usd})
        self.seeds = tuple(recipe.seed + number for number in range(seeds))
        """The training seeds."""
        self._recipes = tuple(recipes)

    def without(self, hops: int) -> tuple[str, ...]:
        """Recipes asked for that differ from no other where routes have so many calls."""
        return tuple(name for name in self._recipes if name == "one_hop" and hops < 2)

    @property
    def fills(self) -> bool:
        """Whether the router learned from what its episodes visited, and not from a whole tree."""
        return self._recipe.fill

    def folder(self, part: str, policy: str, seed: int) -> Path:
        """Where a router that was trained here is kept."""
        return self._out / part / policy / str(seed)

    def on_split(self, outcomes: Outcomes) -> tuple[Contender, ...]:
        """Contenders for the tree's own split; the first is the router itself and its siblings."""
        return self._contenders(outcomes, "split", self._router)

    def on_part(
        self, outcomes: Outcomes, train: NDArray[np.bool_], name: str
    ) -> tuple[Contender, ...]:
        """Contenders trained on some of the queries.

        Args:
            outcomes: N queries.
            train: N flags.
            name: what the part is called, on disk.
        """
        return self._contenders(replace(outcomes, train=train), name, None)

    def _contenders(
        self, outcomes: Outcomes, name: str, first: Router | None
    ) -> tuple[Contender, ...]:
        found = [self._contender("router", self._recipe, outcomes, name, first)]
        if "one_hop" in self._recipes and outcomes.hops > 1:
            direct = self._recipe.model_copy(update={"moves": "direct", "fill": False})
            found.append(self._contender("one_hop", direct, outcomes.first_hop(), name))
        if "router_ppo_paper" in self._recipes:
            recipe = self._recipe
            paper = PAPER_RECIPE.model_copy(update={"metric": recipe.metric, "view": recipe.view})
            there = outcomes if outcomes.analysed else outcomes.first_hop()
            found.append(self._contender("router_ppo_paper", paper, there, name))
        return tuple(found)

    def _contender(
        self,
        policy: str,
        recipe: TrainingConfig,
        outcomes: Outcomes,
        part: str,
        first: Router | None = None,
    ) -> Contender:
        own = [] if first is None else [first]
        seeds = self.seeds[len(own) :]
        routers: list[Chooser] = [*own]
        for seed in seeds:
            config = recipe.model_copy(update={"seed": seed})
            label = f"training {policy} ({part}, seed {seed})"
            folder = self.folder(part, policy, seed)
            routers.append(self._trained(config, outcomes, folder, label))
        return Contender(policy, tuple(routers), recipe.moves, outcomes.hops)

    def _trained(
        self, config: TrainingConfig, outcomes: Outcomes, folder: Path, label: str
    ) -> Router:
        """The router of a recipe on the training queries of `outcomes`, from the folder or anew."""
        names = np.array(outcomes.query_ids)[outcomes.train]
        hashes = tuple(sorted(query_hash(str(name)) for name in names))
        try:
            kept = Router.load(folder)
        except HierRouterError:
            kept = None
        if (
            kept is not None
            and kept.info.training_query_hashes == hashes
            and is_made_of(kept.info, config, self._tree)
        ):
            return kept
        router, curve = fit(config, outcomes, self._tree, label=label)
        router.save(folder, curve, model_card(router.info))
        return router

"""`evaluation`: how routers are judged, and where they are registered."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hierrouter.config.base import ALPHA_GRID, Alpha, Name, Recipe, Section, Seed, Share


class EvaluationConfig(Section):
    """How routers are judged and where they are registered."""

    alphas: Annotated[list[Alpha], Field(min_length=1)] = list(ALPHA_GRID)
    """The alpha grid of reports."""
    alpha: Alpha = 0.1
    """The headline alpha; one of the grid."""
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """Resamples of the paired bootstrap over test queries, stratified by task (small tasks
    together)."""
    confidence: Share = 0.95
    """Coverage of the intervals."""
    seed: Seed = 42
    """Seed of the bootstrap, and of what else is drawn in evaluating."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Training seeds that the recipe is judged by: the router's own and the next ones, whose
    routers are trained for the evaluation. From 2 on intervals hold what other seeds would give."""
    recipes: list[Recipe] = ["one_hop", "router_ppo_paper"]
    """Further recipes that are trained for comparison. `one_hop`: the router's own with direct
    answers alone. `router_ppo_paper`: the paper's numbers (section 3.3, Appendix C)."""
    cross_fit: bool = False
    """Whether everything is also judged on all queries: fold by fold, trained on the others."""
    leave_one_task_out: bool = False
    """Whether a router is also trained without each task, to see what is left when it is new."""
    experiment: Name = "hierrouter"
    """MLflow experiment that runs go to."""
    registered_name: Name = "hierrouter"
    """Name of the registered router in MLflow."""

    @model_validator(mode="after")
    def _headline(self) -> Self:
        if self.alpha not in self.alphas:
            raise ValueError(f"alpha {self.alpha:g} must be one of alphas {self.alphas}")
        return self

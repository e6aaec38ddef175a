"""The decomposed policy fitted to recorded outcomes, from the last hop backwards.

On the last hop the outcome of every answer is known, and quality and cost are regressed on u(s).
One hop earlier the outcome of an analysis is what the policy fitted so far makes of it: each query
is played on by heads that were fitted without it, so that luck is not taken for skill. How it
plays on depends on alpha; the line in alpha that is closest to what it gets gives the quality and
the cost of the analysis. An answer after which the route may go on is judged the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.learning.actions import ACCEPT, ANALYZE, SOLVE, action_count
from hierrouter.learning.stacking import fit_scores, see
from hierrouter.learning.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.learning.contexts import RecordedContexts
    from hierrouter.learning.features import Features
    from hierrouter.learning.stacking import Seen
    from hierrouter.routes.outcomes import Moves


@dataclass(frozen=True)
class Fit:
    """What was learned from R contexts, for S stages, A actions and F features."""

    quality: NDArray[np.float32]
    """S x A x F."""
    cost: NDArray[np.float32]
    """S x A x F."""
    belief: NDArray[np.float32]
    """S' x M x F, of the stages with answers in hand."""
    returned: NDArray[np.int64] | None
    """R: whose answer is believed in most, by beliefs that were fitted without the query; none
    where an answer ends the route."""
    played: NDArray[np.float64]
    """N rewards, averaged over the alphas, each query played by what was fitted without it."""
    seen: Seen
    """The contexts that it was learned from."""
    held_quality: NDArray[np.float64]
    """R x A: the quality of every action that a context allows, by what was fitted without it."""
    held_cost: NDArray[np.float64]
    """R x A."""


def regress(
    features: Features,
    contexts: RecordedContexts,
    tasks: NDArray[np.int64],
    moves: Moves,
    alphas: Sequence[float],
    parts: NDArray[np.int64],
) -> Fit:
    """Fits quality and cost of every action at every stage, and the belief in every answer.

    Args:
        features: as fitted on the queries, and maybe on others.
        contexts: R contexts of N queries; their `state` is u(s).
        tasks: N task numbers (`see`).
        moves: which actions a hop allows.
        alphas: at which analyses are played on.
        parts: N part numbers, of the parts that are predicted from each other.

    Returns:
        Weights of the qualities, of the costs, and of the beliefs.
    """
    rows, stages = len(contexts.depth), Stages(contexts.models, contexts.hops, moves)
    grid = np.asarray(alphas)
    width = contexts.state.shape[1]
    quality = np.zeros((len(stages), action_count(contexts.models), width), np.float32)
    cost = np.zeros_like(quality)
    belief = np.zeros((len(stages.answered), contexts.models, width), np.float32)
    returned = None if contexts.after is None else contexts.returned.copy()
    seen = see(features, contexts.state, contexts.query, tasks, parts)
    held_quality = np.full((rows, action_count(contexts.models)), np.nan)
    held_cost = np.full_like(held_quality, np.nan)
    later = Later.unknown(grid, rows)
    for stage in np.argsort(-stages.calls, kind="stable"):
        here = np.flatnonzero(contexts.stage == stage)
        if not len(here):
            continue
        part = seen.select(here)
        if stage >= stages.before and returned is not None:
            _, who = stages.answered[stage - stages.before]
            columns = list(who)
            found, held = fit_scores(part, contexts.quality[here][:, columns])
            belief[stage - stages.before, columns] = found
            returned[here] = np.array(who)[held.argmax(axis=1)]
        gained, paid = outcomes_of(contexts, here, returned, later)
        lines_quality, lines_cost = lines(gained, paid, grid)
        wanted = np.flatnonzero(stages.allowed[stage])
        place = np.ix_(here, wanted)
        quality[stage, wanted], held_quality[place] = fit_quality(
            part, lines_quality[:, wanted], stage >= stages.before
        )
        cost[stage, wanted], held_cost[place] = fit_scores(part, lines_cost[:, wanted])
        never = wanted[np.isnan(lines_quality[:, wanted]).all(axis=0)]
        if 0 < len(never) < len(wanted):
            # Nothing is known of it: it is the last to be asked, and not one that takes nothing.
            quality[stage, never, 0] = -1.0
            cost[stage, never, 0] = np.nanmax(lines_cost)
        later.add(here, gained, paid, wanted, held_quality[here], held_cost[here])
    played = later.quality[:, contexts.roots] - grid[:, None] * later.cost[:, contexts.roots]
    return Fit(quality, cost, belief, returned, played.mean(axis=0), seen, held_quality, held_cost)


@dataclass(frozen=True)
class Later:
    """What playing on from each of R contexts gives at each of G alphas; NaN where not known."""

    grid: NDArray[np.float64]
    """G alphas."""
    quality: NDArray[np.float64]
    """G x R."""
    cost: NDArray[np.float64]
    """G x R."""

    @classmethod
    def unknown(cls, grid: NDArray[np.float64], rows: int) -> Later:
        """Nothing is known yet."""
        return cls(grid, np.full((len(grid), rows), np.nan), np.full((len(grid), rows), np.nan))

    def add(
        self,
        here: NDArray[np.int64],
        gained: NDArray[np.float64],
        paid: NDArray[np.float64],
        wanted: NDArray[np.int64],
        held_quality: NDArray[np.float64],
        held_cost: NDArray[np.float64],
    ) -> None:
        """Plays some contexts on, each by what was fitted without it.

        Args:
            here: R' contexts.
            gained: G x R' x A, what each action gives.
            paid: G x R' x A, what it costs.
            wanted: the actions that may be taken.
            held_quality: R' x A, what is predicted of what it gives.
            held_cost: R' x A, and of what it costs.
        """
        index = np.arange(len(here))
        for number, alpha in enumerate(self.grid):
            # What was never recorded cannot be played on with.
            known = ~np.isnan(gained[number][:, wanted])
            value = held_quality[:, wanted] - alpha * held_cost[:, wanted]
            chosen = wanted[np.where(known, value, -np.inf).argmax(axis=1)]
            self.quality[number, here] = gained[number][index, chosen]
            self.cost[number, here] = paid[number][index, chosen]


def fit_quality(
    part: Seen, scores: NDArray[np.float64], answered: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """As `fit_scores`; with answers in hand, what the others add to accepting is what is fitted.

    How good an answer looks tells much about itself and little about what another would add; each
    gets the learners that are right for it, and what is said of both cancels out.
    """
    if not answered or scores.shape[1] == 1:
        return fit_scores(part, scores)
    weights, held = fit_scores(part, scores[:, ACCEPT:])
    more, held_more = fit_scores(part, scores[:, :ACCEPT] - scores[:, ACCEPT:])
    return (
        np.concatenate([weights + more, weights]),
        np.concatenate([held + held_more, held], axis=1),
    )


def outcomes_of(
    contexts: RecordedContexts,
    here: NDArray[np.int64],
    returned: NDArray[np.int64] | None,
    later: Later,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quality and cost still to come of each action, G x R x A each; NaN where not known."""
    models = contexts.models
    gained = np.full((len(later.grid), len(here), action_count(models)), np.nan)
    paid = np.full_like(gained, np.nan)
    for model in range(models):
        analyze, solve = 2 * model + ANALYZE, 2 * model + SOLVE
        known = contexts.child[here, model] >= 0
        rows, after = here[known], contexts.child[here[known], model]
        analysis = contexts.spent[after] - contexts.spent[rows]
        gained[:, known, analyze] = later.quality[:, after]
        paid[:, known, analyze] = analysis + later.cost[:, after]
        if contexts.after is None:
            gained[:, :, solve] = contexts.quality[here, model]
            paid[:, :, solve] = contexts.price[here, model]
            continue
        known = contexts.after[here, model] >= 0
        rows, after = here[known], contexts.after[here[known], model]
        gained[:, known, solve] = later.quality[:, after]
        paid[:, known, solve] = contexts.price[rows, model] + later.cost[:, after]
    if returned is not None:
        answered = returned[here] >= 0
        gained[:, answered, ACCEPT] = contexts.quality[here, returned[here]][answered]
        paid[:, answered, ACCEPT] = 0.0
    return gained, paid


def lines(
    gained: NDArray[np.float64], paid: NDArray[np.float64], grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The line `q - alpha * c` closest to each action's reward over the grid: q and c, R x A.

    Where the outcome does not depend on alpha, as of an answer, that is the outcome itself.
    """
    if len(grid) == 1:
        return gained[0], paid[0]
    reward = gained - grid[:, None, None] * paid
    away = grid - grid.mean()
    slope = np.tensordot(away, reward, axes=1) / np.square(away).sum()
    return reward.mean(axis=0) - slope * grid.mean(), -slope

"""Other splits of the same queries: folds that are put together, and one task left out.

On the test split a third of the queries say something of a router. Cross-fitted, all of them do:
each is judged by routers and baselines that were made from the other folds alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.policies.arena import Arena, Played
from hierrouter.evaluation.policies.play import play_all
from hierrouter.evaluation.tradeoff.marks import marks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.policies.contenders import Workshop
    from hierrouter.evaluation.summary import Plays
    from hierrouter.evaluation.tradeoff.marks import Marks
    from hierrouter.routes.outcomes import Outcomes


def cross_fitted(
    outcomes: Outcomes,
    arena: Arena,
    workshop: Workshop,
    alphas: Sequence[float],
    learned: Outcomes | None = None,
) -> tuple[Plays, list[Marks]]:
    """Plays every query with what was made from the other folds.

    Args:
        outcomes: N queries, of both splits, with their folds.
        arena: for moves, cost unit and seed.
        workshop: trains the routers.
        alphas: at which it is played.
        learned: what routers learn from, where that is more than `outcomes`: training queries of
            which only some models' outcomes are known.

    Returns:
        By alpha and policy, in the order of `outcomes`, where policies that one of the folds lacks
        are left out; and of each fold what the others say of fixed routes.

    Raises:
        HierRouterError: there are fewer than two folds.
    """
    folds = np.unique(outcomes.folds)
    if len(folds) < 2:
        raise HierRouterError(
            "all queries are in one fold, so none can be judged by the others; sample them with "
            "data.folds above 1, or set evaluation.cross_fit=false"
        )
    learned = outcomes if learned is None else learned
    parts, order, marks = [], [], []
    for fold in folds:
        rest = outcomes.folds != fold
        inside = Arena(
            train=outcomes.select(rest),
            test=outcomes.select(~rest),
            moves=arena.moves,
            cost_unit_usd=arena.cost_unit_usd,
            contenders=workshop.on_part(learned, learned.folds != fold, f"fold{fold}"),
            seed=arena.seed,
        )
        parts.append({alpha: play_all(inside, alpha) for alpha in alphas})
        order.append(np.flatnonzero(~rest))
        marks.append(marks_of(inside, order[-1]))
    back = np.argsort(np.concatenate(order))
    names = [name for name in parts[0][alphas[0]] if all(name in part[alphas[0]] for part in parts)]
    plays = {
        alpha: {
            name: tuple(
                joined([part[alpha][name][seed] for part in parts], back)
                for seed in range(len(parts[0][alpha][name]))
            )
            for name in names
        }
        for alpha in alphas
    }
    return plays, marks


def joined(parts: Sequence[Played], back: NDArray[np.int64]) -> Played:
    """One result from those of several parts.

    Args:
        parts: one policy's results.
        back: positions in the parts, one after the other, in the order of the queries.
    """
    taken = [part.taken for part in parts if part.taken is not None]
    predicted = [part.predicted for part in parts if part.predicted is not None]
    return replace(
        parts[0],
        quality=np.concatenate([part.quality for part in parts])[back],
        cost=np.concatenate([part.cost for part in parts])[back],
        taken=np.concatenate(taken)[back] if taken else None,
        predicted=np.concatenate(predicted)[back] if predicted else None,
    )


def left_out_tasks(
    learned: Outcomes, arena: Arena, workshop: Workshop, alpha: float
) -> dict[str, dict[str, tuple[Played, ...]]]:
    """What is left of each policy on a task that nothing was made from.

    Args:
        learned: what routers learn from: the queries of the tree, whole or not.
        arena: the split; test queries of a task are judged by what the training queries of all
            others give.
        workshop: trains the routers.
        alpha: at which it is played.

    Returns:
        By task and policy, of its test queries; with `router_with_task`, the judged recipe trained
        on all tasks. A task is passed over where it is the only one.
    """
    found = {}
    for task in map(str, np.unique(arena.test.tasks)):
        others = arena.train.tasks != task
        if others.sum() < 2:
            continue
        rest = learned.train & (learned.tasks != task)
        inside = Arena(
            train=arena.train.select(others),
            test=arena.test.select(arena.test.tasks == task),
            moves=arena.moves,
            cost_unit_usd=arena.cost_unit_usd,
            contenders=workshop.on_part(learned, rest, f"without_{task}"),
            seed=arena.seed,
        )
        plays = play_all(inside, alpha)
        whole = replace(inside, contenders=arena.contenders)
        plays["router_with_task"] = play_all(whole, alpha)["router"]
        found[task] = plays
    return found

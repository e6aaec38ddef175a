"""What is left of a router on tasks that it was not trained on, as paired differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.resplit import joined
from hierrouter.evaluation.statistics.crossed import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from hierrouter.evaluation.policies.arena import Played
    from hierrouter.evaluation.statistics.intervals import Means
    from hierrouter.evaluation.summary import Plays, Results

KNOWING = "router_with_task"
"""The judged recipe, trained on all tasks."""
RIVALS = (KNOWING, "best_single")
"""What the router that does not know the task is compared with: what it loses by that, and whether
it is still worth having."""


def new_tasks(
    found: Mapping[str, dict[str, tuple[Played, ...]]],
    tasks: NDArray[np.str_],
    alpha: float,
    counted: Callable[[Plays, NDArray[np.str_]], Results],
) -> dict[str, Any]:
    """The router without a task minus its rivals there, in reward, by task and over all of them.

    Args:
        found: by task that was left out, what each policy got for the task's test queries, in
            their order.
        tasks: of all test queries.
        alpha: the headline.
        counted: gives results of plays.

    Returns:
        `tasks` (by task) and `all`, each by rival: `mean`, `low`, `high` and `p` of the paired
        difference; and `n`, the queries behind `all`. Over all tasks each query is judged by what
        was made without its own.
    """
    rows = np.concatenate([np.flatnonzero(tasks == task) for task in found])
    back = np.argsort(rows)
    plays = {
        name: tuple(
            joined([policies[name][seed] for policies in found.values()], back)
            for seed in range(len(next(iter(found.values()))[name]))
        )
        for name in ("router", *RIVALS)
    }
    results = counted({alpha: plays}, tasks[np.sort(rows)])
    own = results.values(alpha, "router")
    columns = np.concatenate(
        [own[:, :, 2:] - results.values(alpha, name)[:, :, 2:] for name in RIVALS], axis=2
    )
    # The ends of what there can be, for a task of a single query.
    dearest = max(float(results.values(alpha, name)[:, :, 1].max()) for name in plays)
    most = np.full(len(RIVALS), 1 + alpha * dearest)
    by_task = results.crossed.by_task(columns, -most, most)
    confidence = results.confidence
    return {
        "n": len(rows),
        "all": _told(results.crossed.overall(columns), confidence),
        "tasks": {task: _told(means, confidence) for task, means in by_task.items()},
    }


def _told(means: Means, confidence: float) -> dict[str, dict[str, float]]:
    return {
        name: {"mean": each.mean, "low": each.low, "high": each.high, "p": each.p}
        for name, each in zip(RIVALS, compare(means, confidence), strict=True)
    }

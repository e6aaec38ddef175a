"""The paper's weak points, computed from its own numbers, and the same asked of our data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.cautions import visible_points
from hierrouter.evaluation.paper.results import (
    ALPHA,
    CODER,
    CODER_RATE,
    COST,
    F1,
    LETTER_TASKS,
    POOL,
    QUERIES,
    REFERENCE,
    ROUTER,
    SEED,
    TASKS,
    TEST_SHARE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RIVALS = ("best_single", "best_single_per_task", "best_path_per_task", "knn", "random")
"""Baselines that the paper does not have, and that are named in a sentence."""


@dataclass(frozen=True)
class Found:
    """What findings are computed from."""

    ours: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By row and task: `f1`, `cost`, `accuracy`, `tokens_out`, `n`."""
    pool: Sequence[str]
    """Rows of the pool's models."""
    references: Sequence[str]
    """Rows of the references."""
    changes: tuple[float, float] | None
    """Between which two alphas the router first takes other routes."""
    cost_unit_usd: float
    metrics: Mapping[str, Any]
    """As in metrics.json."""


def findings(found: Found) -> list[dict[str, str]]:
    """Each as two texts: `paper` and `ours`."""
    return [
        {"paper": _their_alpha(), "ours": _our_alpha(found)},
        {"paper": _their_ratios(), "ours": _our_ratios(found)},
        {"paper": _their_f1(), "ours": _our_f1(found)},
        {"paper": _their_certainty(), "ours": _our_certainty(found)},
    ]


def first_change(
    cost: Mapping[str, float], quality: Mapping[str, float]
) -> tuple[float, str, str] | None:
    """The least alpha at which another model becomes the best, as costs count more.

    The best at alpha 0 gives way to a cheaper one at (difference in quality) / (difference in
    cost).

    Args:
        cost: mean dollars by model.
        quality: mean quality by model.

    Returns:
        Alpha in quality a dollar, the best at alpha 0 and what follows it; none where the best is
        the cheapest.
    """
    best = min(cost, key=lambda name: (-quality[name], cost[name]))
    turns = [
        ((quality[best] - quality[name]) / (cost[best] - cost[name]), best, name)
        for name in cost
        if cost[name] < cost[best]
    ]
    return min(turns, default=None)


def _their_alpha() -> str:
    dearest = max(COST[ROUTER])
    models = [F1[name] for name in F1 if name != ROUTER]
    spread = [max(column) - min(column) for column in zip(*models, strict=True)]
    return (
        f"alpha is inert. It is {ALPHA:g}; at the router's dearest task, {_usd(dearest)} a query, "
        f"alpha * C is {ALPHA * dearest:.2g}, while the F1 of the models of a task differ by "
        f"{min(spread):.3f} to {max(spread):.3f}."
    )


def _our_alpha(found: Found) -> str:
    rows = [*found.references, *found.pool]
    tasks = _tasks(found)
    dearest = max(each["cost"] for columns in found.ours.values() for each in columns.values())
    spread = [
        max(found.ours[row][task]["f1"] for row in rows)
        - min(found.ours[row][task]["f1"] for row in rows)
        for task in tasks
    ]
    said = (
        f"In dollars alpha * C is at most {ALPHA * dearest:.2g} here; the F1 of the models of a "
        f"task differ by {min(spread):.3f} to {max(spread):.3f}. "
    )
    turns = []
    for task in tasks:
        columns = {row: found.ours[row][task] for row in found.pool}
        turn = first_change(
            {row: each["cost"] for row, each in columns.items()},
            {row: each["f1"] for row, each in columns.items()},
        )
        if turn is not None:
            turns.append((*turn, task))
    if turns:
        alpha, before, after, task = min(turns)
        said += (
            f"By F1 the best model of a task first changes at alpha {alpha:.3g} a dollar "
            f"({task}: from {before} to {after}), {alpha / ALPHA:,.0f} times the paper's. "
        )
    else:
        said += "By F1 the cheapest model is the best of every task, so no alpha changes that. "
    if found.changes is None:
        return said + "The router takes the same routes at every alpha of our grid."
    low, high = found.changes
    unit = found.cost_unit_usd
    return said + (
        f"The router first takes other routes between alpha {low:g} and {high:g} of our grid, "
        f"{low / unit:,.3g} and {high / unit:,.3g} a dollar."
    )


def _their_ratios() -> str:
    best = [max(F1[name][k] for name in POOL) for k in range(len(TASKS))]
    quality = [mine / other for mine, other in zip(F1[ROUTER], best, strict=True)]
    large, coder = (
        [mine / other for mine, other in zip(COST[ROUTER], COST[name], strict=True)]
        for name in (REFERENCE, CODER)
    )
    tokens = [1000 * min(COST[ROUTER]) / CODER_RATE, 1000 * max(COST[ROUTER]) / CODER_RATE]
    return (
        f"The router's F1 is {_each(quality)} times that of the best single model of its pool "
        f"({_listed(TASKS)}). It costs {min(large):.1f} to {max(large):.1f} times {REFERENCE}, the "
        f"large reference, and {min(coder):.1f} to {max(coder):.1f} times {CODER}: at its rate of "
        f"{CODER_RATE:g} for 1,000 tokens {tokens[0]:,.0f} to {tokens[1]:,.0f} tokens a query, not "
        "two ordinary hops. The text says that it costs less than one call of a very large model."
    )


def _our_ratios(found: Found) -> str:
    router = found.ours.get("router")
    if router is None:
        return "The replies on the router's routes are not scored here."
    tasks = _tasks(found)
    best = [max(found.ours[row][task]["f1"] for row in found.pool) for task in tasks]
    quality = [
        f"{router[task]['f1'] / top:.2f}" if top else "(all 0)"
        for task, top in zip(tasks, best, strict=True)
    ]
    said = (
        f"The router's F1 is {', '.join(quality)} times that of the best single model "
        f"({_listed(tasks)})"
    )
    others = found.references or found.pool
    weight = {row: _mean(found, row, "cost", tasks) for row in (*others, "router")}
    dearest = max(others, key=lambda row: weight[row])
    if not weight[dearest]:
        return f"{said}. Calls cost nothing here."
    what = "the dearest reference" if found.references else "the dearest of the pool"
    beside = "" if found.references else " (no reference was recorded)"
    ratio = weight["router"] / weight[dearest]
    return f"{said}. It costs {ratio:.2f} times {dearest}, {what}{beside}."


def _their_f1() -> str:
    letters = [k for k, task in enumerate(TASKS) if task in LETTER_TASKS]
    values = [F1[name][k] for name in F1 for k in letters]
    words = [2 / value - 1 for value in (max(values), min(values))]
    return (
        "Against a reference of one letter, token F1 is at most 2 / (n + 1) for a reply of n "
        f"different words: it measures brevity. Its values on {_listed(LETTER_TASKS)}, "
        f"{min(values):.3f} to {max(values):.3f}, are those of right replies of {words[1]:,.0f} to "
        f"{words[0]:,.0f} different words, or of wrong ones of any length."
    )


def _our_f1(found: Found) -> str:
    tasks = [task for task in _tasks(found) if task in LETTER_TASKS]
    if not tasks:
        return "None of these three tasks is here."
    told = {}
    for row in (*found.references, *found.pool):
        told[row] = {key: _mean(found, row, key, tasks) for key in ("f1", "accuracy", "tokens_out")}
    listed = "; ".join(
        f"{row} F1 {each['f1']:.3f}, accuracy {each['accuracy']:.3f}, "
        f"{each['tokens_out']:.0f} tokens"
        for row, each in sorted(told.items(), key=lambda item: item[1]["tokens_out"])
    )
    said = f"On {_listed(tasks)}, shortest replies first: {listed}. "
    if len(told) < 2:
        return said.rstrip()
    shown = max(told, key=lambda row: told[row]["f1"])
    right = max(told, key=lambda row: told[row]["accuracy"])
    if told[right]["accuracy"] <= told[shown]["accuracy"]:
        return said + f"{shown} is best by both."
    less = 100 * (told[right]["accuracy"] - told[shown]["accuracy"])
    return said + (
        f"{shown} is best by F1 and {less:.1f} points of accuracy behind {right}, which is best "
        "by accuracy."
    )


def _their_certainty() -> str:
    queries = round(QUERIES * TEST_SHARE)
    return (
        f"One number a model and task, from one seed ({SEED}), without intervals, and no fixed "
        f"path, no choice by task, no nearest neighbours, no random router, no oracle beside it. "
        f"Of {queries} test queries a task, differences in accuracy under about "
        f"{visible_points(queries, 0.95):.0f} points cannot be seen (two models that disagree on "
        "30% of the queries)."
    )


def _our_certainty(found: Found) -> str:
    metrics = found.metrics
    seeds = "one training seed" if metrics["seeds"] == 1 else f"{metrics['seeds']} training seeds"
    told = []
    for name in RIVALS:
        if name in metrics["differences"]:
            mean, low, high = (
                100 * metrics["differences"][name]["reward"][end] for end in ("mean", "low", "high")
            )
            told.append(f"{mean:+.1f} to {name} ({low:+.1f} to {high:+.1f})")
    return (
        f"Over {metrics['n_test']} test queries and {seeds}, the router differs in points of "
        f"reward at alpha {metrics['alpha']:g} ({metrics['metric']}) by {', '.join(told)}; in "
        f"brackets the {metrics['confidence']:.0%} interval."
    )


def _tasks(found: Found) -> list[str]:
    """The paper's tasks that are here."""
    return [task for task in TASKS if all(task in columns for columns in found.ours.values())]


def _mean(found: Found, row: str, key: str, tasks: Sequence[str]) -> float:
    """Over all queries of some tasks."""
    columns = [found.ours[row][task] for task in tasks]
    return float(
        np.average([each[key] for each in columns], weights=[each["n"] for each in columns])
    )


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _usd(value: float) -> str:
    return f"${value:.4f}"

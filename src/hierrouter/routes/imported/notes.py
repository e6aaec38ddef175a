"""What a user should know of outcomes that are right: lines that an import prints beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.progress import say

if TYPE_CHECKING:
    from hierrouter.routes.imported.cells import Cells
    from hierrouter.routes.imported.gather import Gathered
    from hierrouter.routes.imported.sides import Sides

FEW = 10
"""Queries of a task under which it says little."""
MANY_SMALL = 10
"""Such tasks from which on they are told of."""
TOO_LARGE = 0.5
"""Share of all queries in one group of near-duplicates from which a split means little."""


def say_tasks(gathered: Gathered) -> None:
    """Says so where tasks are too many to mean much."""
    count = len(gathered.tasks)
    small = int((np.bincount(gathered.task_of, minlength=count) < FEW).sum())
    if small >= MANY_SMALL:
        say(
            f"note: {count:,} tasks, {small:,} with under {FEW} queries; results by task say "
            "little there, and what is chosen by task is chosen by chance: let task be one of a "
            "few kinds of queries"
        )


def say_sides(gathered: Gathered, sides: Sides) -> None:
    """Says what of the split a user should know."""
    count = len(gathered.query_ids)
    if sides.straddling:
        say(
            f"note: {sides.straddling:,} queries have a near-duplicate on the other side of the "
            "split that the file gives; what is measured on them flatters the router"
        )
    if count > 3 and sides.largest_group > TOO_LARGE * count:
        say(
            f"note: {sides.largest_group:,} of {count:,} prompts are near-duplicates of one "
            "another (one template?) and stay on one side of the split; leave the template out of "
            "the prompts, or set data.near_duplicate_jaccard=1"
        )
    for name, none in (("training", not sides.train.any()), ("test", bool(sides.train.all()))):
        if none:
            say(f"note: there is no {name} query; a split column or more queries would give some")


def say_whole(cells: Cells, sides: Sides) -> None:
    """Says so where no query of a side has all outcomes, so that nothing can be compared on it."""
    whole = ~np.isnan(cells.score).any(axis=1)
    for name, mine in (("training", sides.train), ("test", ~sides.train)):
        if mine.any() and not (whole & mine).any():
            say(
                f"note: no {name} query has the outcomes of all models, so nothing can be "
                "evaluated: ask all of them a few hundred of the same queries, or name those to "
                "keep in pool.models"
            )

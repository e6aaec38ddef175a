"""Whether two routers may be compared at all, in words where they may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.learning.router import query_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

SPLIT_RULE = ("train_share", "near_duplicate_jaccard")
"""The settings that, with the data seed, say which queries are for training."""


def unlike(
    mine: tuple[str, int], theirs: tuple[str, int], names: tuple[str, str] = ("one", "the other")
) -> str | None:
    """What keeps two evaluations apart, if something does.

    Args:
        mine: metric and data seed of one.
        theirs: the same of the other.
        names: what to call them.
    """
    for what, one, other in zip(("metric", "data seed"), mine, theirs, strict=True):
        if one != other:
            return f"{names[0]} has the {what} {one}, {names[1]} {other}"
    return None


def other_split(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Which setting of the split differs, if one does; one that only one side has does.

    Args:
        mine: the data part of a router's config; empty where its tree did not say.
        theirs: the same of another router.
    """
    for key in SPLIT_RULE:
        one, other = mine.get(key), theirs.get(key)
        if one != other:
            first, second = ("unknown" if value is None else f"{value:g}" for value in (one, other))
            return f"data.{key} is {first} for one and {second} for the other"
    return None


def trained_on(queries: Iterable[str], hashes: Collection[str]) -> list[str]:
    """Those of some queries that a router was trained on.

    Args:
        queries: ids.
        hashes: `training_query_hashes` of the router.
    """
    used = set(hashes)
    return [name for name in queries if query_hash(name) in used]

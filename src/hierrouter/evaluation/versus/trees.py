"""Whether two evaluations held answers to the same scores and prices.

The digests of two trees differ as soon as one has grown or was collected for another pool, which is
no reason not to compare. What each model gave and cost by itself is: it does not depend on the
router, and an evaluation has it for every test query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

SINGLE = "single:"
"""Before a model's name: the policy that always takes its direct answer."""
DIGESTS = ("tree_digest", "pool_digest")
"""Of an evaluation's tree: what was recorded or imported, and models with their prices."""

Singles = dict[str, dict[str, tuple[float, float]]]
"""By model, then by query id: quality and dollars of the model's direct answer."""


def read_singles(path: Path, alpha: float) -> Singles:
    """What each single model got in an evaluation; empty where none was played.

    Args:
        path: `per_query.parquet`.
        alpha: one that was evaluated; what a single model gets is the same at all.

    Raises:
        DamagedFileError: the file cannot be read.
    """
    columns = ["query_id", "policy", "quality", "cost"]
    try:
        table: pa.Table = pq.read_table(path, columns=columns, filters=[("alpha", "==", alpha)])
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); evaluate again") from error
    policies, ids = (
        np.array(table[name].cast("string").to_pylist(), dtype=np.str_)
        for name in ("policy", "query_id")
    )
    quality, cost = (table[name].to_numpy() for name in ("quality", "cost"))
    found = {}
    for policy in np.unique(policies):
        if policy.startswith(SINGLE):
            rows = policies == policy
            pairs = zip(quality[rows].tolist(), cost[rows].tolist(), strict=True)
            found[policy.removeprefix(SINGLE)] = dict(zip(ids[rows].tolist(), pairs, strict=True))
    return found


def changed_answers(mine: Singles, theirs: Singles, queries: Sequence[str]) -> str | None:
    """Which model's answers are worth or cost something else in two evaluations, if some are.

    Args:
        mine: of one evaluation.
        theirs: of the other.
        queries: ids of queries that both have.
    """
    for model in sorted(mine.keys() & theirs.keys()):
        known = [name for name in queries if name in mine[model] and name in theirs[model]]
        one, other = (
            np.array([each[model][name] for name in known]).reshape(-1, 2)
            for each in (mine, theirs)
        )
        differs = ~np.isclose(one, other, rtol=1e-9, atol=0.0, equal_nan=True)
        for column, what in enumerate(("has other scores", "costs other dollars")):
            if count := int(differs[:, column].sum()):
                return (
                    f"{model} {what} for {count} of {len(known)} queries in the tree of one than "
                    "in the other's"
                )
    return None


def changed_tree(then: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether a tree is no longer what an evaluation was made on.

    Args:
        then: what the evaluation says of its tree.
        now: the same of the tree.
    """
    return any(then.get(key) not in (None, now.get(key)) for key in DIGESTS)

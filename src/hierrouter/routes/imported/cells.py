"""From rows to one cell for each query and model, with every pair there once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.config import ModelSpec
from hierrouter.errors import ConfigError
from hierrouter.files import digest_of
from hierrouter.pool.open import identity
from hierrouter.progress import say
from hierrouter.routes.imported.names import valid_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from hierrouter.config import PoolConfig
    from hierrouter.routes.imported.gather import Gathered

NAMED = 3
"""Most pairs, models or queries that a message names."""


@dataclass(frozen=True)
class Cells:
    """Outcomes of Q queries, in the order of the file, by C models: the pool, then references."""

    models: tuple[ModelSpec, ...]
    """C; the pool's first."""
    pool_size: int
    """How many of them are the pool's."""
    originals: dict[str, str]
    """What the file calls each, by our name."""
    identities: dict[str, dict[str, Any]]
    """What each is, as in `pool.open.identity`."""
    score: NDArray[np.float64]
    """Q x C; NaN where the file has no row."""
    cost: NDArray[np.float64]
    """Q x C dollars; NaN where the file has no row."""
    latency: NDArray[np.float32] | None
    """Q x C seconds, where the file tells them."""


def cells_of(gathered: Gathered, pool: PoolConfig, partial: bool) -> Cells:
    """Sorts rows into cells.

    Args:
        gathered: the rows.
        pool: models and references to take, and their rates; naming no models, it takes all.
        partial: whether pairs may be missing.

    Raises:
        ConfigError: a pair stands twice or is missing, a model is missing, or a rate.
    """
    specs, column = _specs(gathered, pool)
    counted = len(specs) - len(pool.references)
    shape = (len(gathered.query_ids), len(specs))
    at = column[gathered.model]
    taken = np.flatnonzero(at >= 0)
    key = gathered.query[taken].astype(np.int64) * shape[1] + at[taken]
    count = np.bincount(key, minlength=shape[0] * shape[1])
    if (count > 1).any():
        raise _twice(gathered, taken, key, count, specs, shape[1])
    if not partial and (count == 0).any():
        raise _missing(gathered, count.reshape(shape) == 0, specs)
    cost = _dollars(
        gathered, specs, column, {spec.name for spec in (*pool.models, *pool.references)}
    )

    def spread(values: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
        table = np.full(shape[0] * shape[1], np.nan, dtype=values.dtype)
        table[key] = values[taken]
        return table.reshape(shape)

    return Cells(
        models=tuple(spec for spec, _ in specs),
        pool_size=counted,
        originals={spec.name: original for spec, original in specs},
        identities={spec.name: _identity(spec) for spec, _ in specs},
        score=spread(gathered.score),
        cost=spread(cost),
        latency=None if gathered.latency is None else spread(gathered.latency).astype(np.float32),
    )


def choices_of(gathered: Gathered, cells: Cells) -> NDArray[np.int32] | None:
    """Q numbers of choices, 0 where there are none to guess among; none where no query has any.

    Answers that are neither right nor wrong were not guessed, or nobody can say how often.
    """
    if gathered.choices is None:
        return None
    plain = (np.isnan(cells.score) | np.isin(cells.score, (0.0, 1.0))).all(axis=1)
    offered = gathered.choices > 1
    if graded := int((offered & ~plain).sum()):
        say(
            f"note: the choices of {graded:,} queries are passed over: guesses are told from "
            "scores of 0 and 1 alone"
        )
    return np.where(offered & plain, gathered.choices, 0) if (offered & plain).any() else None


def _specs(
    gathered: Gathered, pool: PoolConfig
) -> tuple[list[tuple[ModelSpec, str]], NDArray[np.int64]]:
    """Each column's model with its name in the file; and the column of each model of the file."""
    path = gathered.source.path
    known = set(gathered.models)
    found: dict[str, ModelSpec] = {}
    for spec in (*pool.models, *pool.references):
        original = next((name for name in (spec.name, spec.model) if name in known), None)
        if original is None or original in found:
            raise ConfigError(
                f"{path}: there are no outcomes of {spec.name}, which the config's pool names; the "
                f"models there are {_some(sorted(known))}: name it as the file does, by `name` or "
                "`model`, or leave it out of the pool"
            )
        found[original] = spec
    if not pool.models:
        given = {original: spec.name for original, spec in found.items()}
        names = valid_names("model", sorted(known), given)
        rest = [original for original in sorted(known) if original not in found]
        mine = {original: _plain_spec(gathered, names[original], original) for original in rest}
        found = {**mine, **found}
        if not mine:
            raise ConfigError(f"{path}: there is no model beside the references")
    elif left_out := sorted(known - set(found)):
        say(f"{path}: left out, as the pool does not name them: {_some(left_out)}")
    column = np.array(
        [list(found).index(name) if name in found else -1 for name in gathered.models]
    )
    return [(spec, original) for original, spec in found.items()], column


def _plain_spec(gathered: Gathered, name: str, original: str) -> ModelSpec:
    """A model that nothing is known of but its outcomes.

    Its rate, which only tells what a served answer costs, is what the file's costs and tokens come
    to.
    """
    rate = 0.0
    if gathered.cost is not None and gathered.tokens is not None:
        rows = gathered.model == gathered.models.index(original)
        rows &= ~np.isnan(gathered.tokens)
        tokens = float(gathered.tokens[rows].sum())
        rate = 1000 * float(gathered.cost[rows].sum()) / tokens if tokens else 0.0
    return ModelSpec(name=name, model=original, backend="imported", base_rate=rate)


def _identity(spec: ModelSpec) -> dict[str, Any]:
    if spec.backend == "imported":
        return {
            "weights_digest": digest_of(["imported", spec.model]),
            "generation": {},
            "provenance": {"source": "imported", "repo": spec.model},
        }
    return identity(spec)


def _dollars(
    gathered: Gathered,
    specs: Sequence[tuple[ModelSpec, str]],
    column: NDArray[np.int64],
    rated: set[str],
) -> NDArray[np.float64]:
    """N costs: those of the file, or of its tokens by the rates of the models that have one."""
    if gathered.cost is not None:
        return gathered.cost
    priceless = [original for spec, original in specs if spec.name not in rated]
    if priceless:
        raise ConfigError(
            f"{gathered.source.path}: has tokens and no cost, and the config has no rate for "
            f"{_some(priceless)}; add a column cost (dollars), or give base_rate (dollars per "
            "1,000 tokens) for each model in pool.models"
        )
    assert gathered.tokens is not None
    rates = np.array([spec.rate for spec, _ in specs])
    return np.asarray(rates[column[gathered.model]] * gathered.tokens / 1000)


def _twice(
    gathered: Gathered,
    taken: NDArray[np.int64],
    key: NDArray[np.int64],
    count: NDArray[np.int64],
    specs: Sequence[tuple[ModelSpec, str]],
    width: int,
) -> ConfigError:
    rows = taken[count[key] > 1]
    cells = key[count[key] > 1]
    _, first = np.unique(cells, return_index=True)
    again = np.ones(len(rows), dtype=np.bool_)
    again[first] = False
    row = int(rows[again.argmax()])
    cell = cells[again.argmax()]
    before = int(rows[np.flatnonzero(cells == cell)[0]])
    query, model = divmod(int(cell), width)
    pairs = int((count > 1).sum())
    more = f" (and {pairs - 1} more pairs)" if pairs > 1 else ""
    return ConfigError(
        f"{gathered.source.path}: {gathered.where(row)}: query {_ids(gathered, [query])[0]} has an "
        f"outcome of {specs[model][1]} on {gathered.where(before)} already{more}; keep one row a "
        "query and model"
    )


def _missing(
    gathered: Gathered,
    missing: NDArray[np.bool_],
    specs: Sequence[tuple[ModelSpec, str]],
) -> ConfigError:
    queries, models = np.nonzero(missing)
    some = ", ".join(
        f"{query} of {specs[model][1]}"
        for query, model in zip(
            _ids(gathered, queries[:NAMED].tolist()), models[:NAMED], strict=True
        )
    )
    more = f" and {len(queries) - NAMED:,} more" if len(queries) > NAMED else ""
    return ConfigError(
        f"{gathered.source.path}: {len(queries):,} of {missing.size:,} outcomes are missing: {some}"
        f"{more}; add them, or import what there is with --partial"
    )


def _ids(gathered: Gathered, numbers: Sequence[int]) -> list[str]:
    """The ids of some queries."""
    wanted = dict.fromkeys(numbers, "")
    for query_id, number in gathered.query_ids.items():
        if number in wanted:
            wanted[number] = query_id
    return [wanted[number] for number in numbers]


def _some(names: Sequence[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

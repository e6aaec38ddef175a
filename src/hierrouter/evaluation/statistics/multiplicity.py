"""Many comparisons at once, and how many test queries one of them needs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hierrouter.evaluation.statistics.crossed import Parts

POWER = 0.8
LEVEL = 0.05


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Step-down adjusted p-values (Holm, 1979).

    Of m p-values the k-th smallest is multiplied by m - k + 1; none is less than the adjusted one
    before it, none more than 1. Whoever calls those under 5% real is wrong about any of them in at
    most 5% of studies, however the comparisons hang together.

    Args:
        p_values: by the name of the comparison, of one family: all that were looked at.

    Returns:
        The adjusted ones, in the order given.

    Raises:
        ValueError: one is not in [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"the p-value of {name} is {p}")
    names = sorted(p_values, key=lambda name: p_values[name])
    adjusted, least = dict(p_values), 0.0
    for number, name in enumerate(names):
        least = max(least, min(1.0, (len(names) - number) * p_values[name]))
        adjusted[name] = least
    return adjusted


@dataclass(frozen=True)
class Need:
    """What it takes to see a difference."""

    difference: float
    """In the units of the values."""
    queries: int | None
    """Test queries; none where no number is enough, because of the seeds."""
    seen: float
    """The smallest difference that the present queries and seeds show with that power."""
    seen_at_best: float
    """The smallest that any number of queries shows with the present seeds; 0 with one seed."""
    reason: str | None
    """Why there is no number, in a sentence; else none."""


def queries_needed(
    parts: Parts,
    queries: int,
    difference: float,
    power: float = POWER,
    level: float = LEVEL,
) -> Need:
    """How many test queries show a difference, going by the spread of those at hand.

    With z the normal quantiles, a two-sided test sees a difference d with the stated power where
    (z(1 - level / 2) + z(power))^2 * (F + V n / n') <= d^2: V is the queries' part of the variance
    of the mean over n queries (paired differences, within strata, and what seeds do together with
    queries), n' the number sought, and F the part of the seeds alone, which more queries do not
    remove (Cohen, Statistical Power Analysis, 1988, for paired means; F is ours). Seeds and the mix
    of tasks stay as they are. Normal quantiles are a little hopeful with few seeds.

    Args:
        parts: of one column, the paired difference; see `Crossed.parts`.
        queries: n, behind `parts`.
        difference: to be seen; its sign does not matter.
        power: chance of seeing it.
        level: of the two-sided test.

    Raises:
        ValueError: the difference is 0, or there is not one column.
    """
    if difference == 0 or parts.queries.shape != (1,):
        raise ValueError("power is about one difference that is not 0")
    normal = NormalDist()
    z = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)
    floor, spread = float(parts.seeds_alone[0]), float(parts.queries[0]) * queries
    seen, at_best = z * sqrt(floor + spread / queries), z * sqrt(floor)
    room = (difference / z) ** 2 - floor
    if room <= 0:
        reason = (
            f"A difference of {abs(difference):.3g} is below what the spread between training "
            f"seeds lets show ({at_best:.3g}), however many queries there are: train more seeds."
        )
        return Need(difference, None, seen, at_best, reason)
    needed = max(2, ceil(spread / room - 1e-9)) if spread > 0 else 2
    return Need(difference, needed, seen, at_best, None)

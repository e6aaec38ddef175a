"""What calls take, added up: the rows and sums of a plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from hierrouter.routes.lanes import HERE, whole_time

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from hierrouter.pool.prompts import Role
    from hierrouter.routes.lanes import Lane

Basis = Literal["recorded", "relatives", "limits"]
"""Where the length of replies is taken from: nodes of the same model, role, depth and task; other
nodes of the model, or of one that shares its replies; a share of the token limits."""

TimeBasis = Literal["latencies", "recordings", "sizes"]
"""Where hours are taken from: recorded latencies; the durations of whole recordings, where
latencies do not tell all; model sizes."""


class Kind(NamedTuple):
    """The calls of one row of a plan."""

    hop: int
    role: Role
    model: str


@dataclass(frozen=True)
class Amount:
    """What some calls take. Estimates are means, so they need not be whole."""

    nodes: float = 0.0
    generations: float = 0.0
    """Replies that are really asked for: nodes with the same prompt to the same weights share one.
    Tokens, dollars, seconds and texts are of these."""
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    dollars: float = 0.0
    seconds: float = 0.0
    """Of one accelerator, with all models loaded."""
    bytes: float = 0.0
    """Of files of nodes."""
    texts: float = 0.0
    """To be encoded."""

    def __add__(self, other: Amount) -> Amount:
        """Both together."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Amount(*(mine + its for mine, its in pairs))

    def __mul__(self, factor: float) -> Amount:
        """So much of it."""
        return Amount(*(factor * value for value in vars(self).values()))


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of some amounts."""
    return sum(amounts, Amount())


@dataclass(frozen=True)
class Row:
    """One kind of call."""

    kind: Kind
    recorded: Amount
    left: Amount
    basis: Basis
    """Of what is left; the widest that was needed."""


@dataclass(frozen=True)
class Plan:
    """What a part of a tree takes, and what of it is recorded."""

    rows: list[Row]
    queries: int
    bytes_per_text: float
    """Of the embeddings."""
    made_on: list[str]
    """What made the nodes that were measured; empty where none were."""
    measured_nodes: int
    """From how many nodes of the tree is estimated."""
    hours_from: TimeBasis
    machines: int
    """How many recorded the tree, as far as its journal tells."""
    unit_seconds: dict[int, dict[Lane, float]]
    """Seconds that are left of each unit, by who answers."""
    unit_loads: dict[int, dict[Hashable, float]]
    """Seconds of loading each model, at each depth, that a unit needs."""

    @property
    def recorded(self) -> Amount:
        """What was recorded already, all rows together."""
        return total(row.recorded for row in self.rows)

    @property
    def left(self) -> Amount:
        """What is left, all rows together."""
        return total(row.left for row in self.rows)

    def storage(self, amount: Amount) -> float:
        """Bytes of nodes and of their contexts' vectors."""
        return amount.bytes + amount.texts * self.bytes_per_text

    @property
    def servers(self) -> int:
        """How many servers are asked side by side."""
        lanes = {lane for unit in self.unit_seconds.values() for lane in unit}
        return max(Counter(hop for hop, server in lanes if server != HERE).values(), default=0)

    def seconds_on(self, accelerators: int) -> float:
        """Seconds until all that is left is done, by so many recorders side by side.

        Units are shared out as by `collect --shard`, so the longest shard decides. Each shard
        loads each model once a depth, and asks servers side by side.
        """
        longest = 0.0
        for index in range(accelerators):
            mine = [unit for unit in self.unit_seconds if unit % accelerators == index]
            loads: dict[Hashable, float] = {}
            took: dict[Lane, float] = defaultdict(float)
            for unit in mine:
                loads |= self.unit_loads[unit]
                for lane, seconds in self.unit_seconds[unit].items():
                    took[lane] += seconds
            longest = max(longest, whole_time(took) + sum(loads.values()))
        return longest

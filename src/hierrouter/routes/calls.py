"""Which calls make a tree, and in what order, batches and shards they are made.

All of it depends only on the sample and the pool, never on what is recorded already or on who
records, so that batches are the same however the work is interrupted or shared out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Self

from hierrouter.errors import ConfigError
from hierrouter.routes.estimate import call_seconds
from hierrouter.routes.nodes import NodeKey, full_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.data.queries import Query
    from hierrouter.pool.prompts import Role


@dataclass(frozen=True)
class Call:
    """A node as the call that makes it."""

    query: Query
    models: tuple[str, ...]
    role: Role
    spec: ModelSpec

    @property
    def place(self) -> NodeKey:
        """Where its node will stand."""
        return NodeKey(self.query.query_id, self.models, self.role)

    @property
    def work(self) -> float:
        """Its share of the whole, whatever the device: that models differ is what matters."""
        return call_seconds(self.spec, self.role, len(self.models), self.query.task) or 1.0


@dataclass(frozen=True)
class Shard:
    """One of several recorders that share out the units: number `index` of `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "I/N".

        Raises:
            ConfigError: it is no such pair, or I is not below N.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or int(match[1]) >= int(match[2]):
            raise ConfigError(f"--shard {text}: give I/N with I from 0 to N - 1, for example 0/4")
        return cls(int(match[1]), int(match[2]))

    def takes(self, unit: int) -> bool:
        """Whether a unit is this recorder's."""
        return unit % self.count == self.index


@dataclass(frozen=True)
class Part:
    """What of a tree is wanted now; the default is all of it."""

    per_task: int | None = None
    """Only the first so many queries of each task, in the order of their hash."""
    direct: bool = False
    """Only direct answers."""
    shard: Shard = Shard()
    """Only the units of one recorder."""


WHOLE = Part()
"""All of a tree."""


def in_parts(queries: Sequence[Query], part: Part, size: int) -> Iterator[Part]:
    """Parts of `size` queries of each task: first direct answers, then, if wanted, all nodes.

    Args:
        queries: the sample.
        part: what is wanted in the end.
        size: how many queries of each task a part adds.
    """
    most = max(ranks(queries).values(), default=-1) + 1
    most = most if part.per_task is None else min(most, part.per_task)
    ends = [*range(size, most, size), most]
    for direct in (True,) if part.direct else (True, False):
        for end in ends:
            yield replace(part, per_task=end, direct=direct)


@dataclass(frozen=True)
class Branch:
    """The same call for many queries: what is planned and looked up together."""

    models: tuple[str, ...]
    role: Role
    spec: ModelSpec
    queries: Sequence[Query]

    def calls(self, wanted: Iterable[bool] | None = None) -> Iterator[Call]:
        """Its calls; with flags, one a query, those that are wanted."""
        queries = self.queries if wanted is None else compress(self.queries, wanted)
        for query in queries:
            yield Call(query, self.models, self.role, self.spec)


def branches(queries: Sequence[Query], config: PoolConfig, part: Part = WHOLE) -> Iterator[Branch]:
    """Every call of the full tree, then the references' direct answers, whether made or not.

    Args:
        queries: the sample, each task in the order of its hash.
        config: the pool.
        part: what of it is wanted.
    """
    numbers = unit_numbers(queries, config.queries_per_unit)
    rank = ranks(queries)
    wanted = [
        query
        for query in queries
        if part.shard.takes(numbers[query.query_id])
        and (part.per_task is None or rank[query.query_id] < part.per_task)
    ]
    specs = {spec.name: spec for spec in config.models}
    for depth in range(1, (1 if part.direct else config.hops) + 1):
        for models, role in full_tree(list(specs), config.hops, depth):
            if role == "solve" or not part.direct:
                yield Branch(models, role, specs[models[-1]], wanted)
    for spec in config.references:
        yield Branch((spec.name,), "solve", spec, wanted)


def planned_calls(
    queries: Sequence[Query], config: PoolConfig, part: Part = WHOLE
) -> Iterator[Call]:
    """The calls of all `branches`, one by one."""
    for branch in branches(queries, config, part):
        yield from branch.calls()


def ranks(queries: Sequence[Query]) -> dict[str, int]:
    """For each query id the number of queries of its task that come before it."""
    rank: dict[str, int] = {}
    seen: dict[str, int] = {}
    for query in queries:
        rank[query.query_id] = seen.get(query.task, 0)
        seen[query.task] = rank[query.query_id] + 1
    return rank


def unit_numbers(queries: Sequence[Query], size: int) -> dict[str, int]:
    """For each query id its unit: `size` whole queries, the first of every task first."""
    rank = ranks(queries)
    order = sorted(rank, key=lambda query_id: (rank[query_id], query_id))
    return {query_id: index // size for index, query_id in enumerate(order)}


def stages(calls: Sequence[Call], weights: Mapping[str, str]) -> Iterator[list[Call]]:
    """Calls that one loaded model makes at one depth. Deeper calls need the shallower replies.

    Args:
        calls: what is to be made.
        weights: the weights digest of each model, by name.
    """
    groups: dict[tuple[int, str, str], list[Call]] = {}
    for call in calls:
        loaded = weights[call.spec.name], call.spec.dtype
        groups.setdefault((len(call.models), *loaded), []).append(call)
    for key in sorted(groups, key=lambda key: key[0]):
        yield groups[key]


def units(calls: Sequence[Call], numbers: Mapping[str, int]) -> Iterator[tuple[int, list[Call]]]:
    """Calls unit by unit, as (number, calls)."""
    by_number: dict[int, list[Call]] = {}
    for call in calls:
        by_number.setdefault(numbers[call.query.query_id], []).append(call)
    for number in sorted(by_number):
        yield number, by_number[number]

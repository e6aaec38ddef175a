"""What recording takes before it is done: nodes, tokens, dollars, seconds and bytes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from hierrouter.data.queries import Query
from hierrouter.data.sources import most_queries
from hierrouter.pool.open import identity
from hierrouter.pool.prompts import limit_for
from hierrouter.routes.amounts import Amount, Basis, Kind, Plan, Row
from hierrouter.routes.calls import WHOLE, Call, Part, planned_calls, ranks, unit_numbers
from hierrouter.routes.costs import call_cost
from hierrouter.routes.estimate import loading_seconds
from hierrouter.routes.lanes import servers_of
from hierrouter.routes.made import made_with, refuse_other_pool
from hierrouter.routes.measured import Measured, asked, signature
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.storage import node_bytes, texts_after

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from hierrouter.config import DataConfig, ModelSpec, PoolConfig
    from hierrouter.routes.estimate import Pace
    from hierrouter.routes.lanes import Lane
    from hierrouter.routes.tree import RouteTree

BASES: tuple[Basis, ...] = get_args(Basis)
QUESTION = 400
"""Characters of a question that is not known yet."""


def plan_recording(
    pool: PoolConfig,
    queries: Sequence[Query],
    part: Part = WHOLE,
    tree: RouteTree | None = None,
    pace: Pace | None = None,
) -> Plan:
    """Estimates what `collect_routes` will make and what that takes; asks no model.

    Args:
        pool: the pool part of a config.
        queries: the sample, or `stand_ins` where it is not known yet.
        part: what of the tree is wanted, of all shards.
        tree: what is recorded already, from which estimates are then made.
        pace: what will run the models; none: this machine, or what recorded the tree.

    Raises:
        ConfigError: the tree is that of another pool.
    """
    if tree is not None:
        _require_same_pool(tree, pool)
    planner = _Planner(pool, part, tree)
    if pace is not None:
        planner.measured.elsewhere(pace)
    rank, numbers = ranks(queries), unit_numbers(queries, pool.queries_per_unit)
    wanted = [q for q in queries if part.per_task is None or rank[q.query_id] < part.per_task]
    recorded: dict[Kind, Amount] = defaultdict(Amount)
    left: dict[Kind, Amount] = defaultdict(Amount)
    bases: dict[Kind, Basis] = {}
    servers = servers_of(pool)
    unit_seconds: dict[int, dict[Lane, float]] = defaultdict(lambda: defaultdict(float))
    unit_loads: dict[int, dict[Hashable, float]] = defaultdict(dict)
    for query in wanted:
        share, unit = planner.of(query), numbers[query.query_id]
        for kind, amount in share.recorded.items():
            recorded[kind] += amount
        for kind, amount in share.left.items():
            left[kind] += amount
            unit_seconds[unit][kind.hop, servers[kind.model]] += amount.seconds
        for kind, basis in share.bases.items():
            bases[kind] = _wider(bases.get(kind, "recorded"), basis)
        unit_loads[unit] |= share.loads
    order = [spec.name for spec in (*pool.models, *pool.references)]
    kinds = sorted(
        recorded.keys() | left.keys(),
        key=lambda kind: (kind.hop, kind.role == "analyze", order.index(kind.model)),
    )
    return Plan(
        rows=[Row(kind, recorded[kind], left[kind], bases.get(kind, "recorded")) for kind in kinds],
        queries=len(wanted),
        bytes_per_text=planner.measured.bytes_per_text,
        made_on=planner.measured.made_on,
        measured_nodes=planner.measured.nodes,
        hours_from=planner.measured.hours_from,
        machines=len(planner.measured.machines),
        unit_seconds=dict(unit_seconds),
        unit_loads=dict(unit_loads),
    )


def stand_ins(data: DataConfig) -> list[Query]:
    """Queries in place of a sample that was not taken yet: as many, of ordinary length."""
    return [
        Query(
            query_id=f"{task}/{number}",
            task=task,
            split="train",
            fold=0,
            prompt=" " * QUESTION,
            reference=(),
            reference_text="",
            tests=(),
            metadata={"kind": "text"},
        )
        for task, count in most_queries(data).items()
        for number in range(count)
    ]


@dataclass(frozen=True)
class _Share:
    """One query's part of a plan."""

    recorded: dict[Kind, Amount]
    left: dict[Kind, Amount]
    bases: dict[Kind, Basis]
    loads: dict[Hashable, float]


class _Planner:
    """Plans query by query: queries share nothing."""

    def __init__(self, pool: PoolConfig, part: Part, tree: RouteTree | None) -> None:
        self.measured = Measured(pool, tree)
        self._pool, self._part = pool, part
        self._nodes = self.measured.recorded
        self._begun = {place.query_id for place in self._nodes}
        self._members = {spec.name for spec in pool.models}
        self._alike: dict[Hashable, _Share] = {}
        self._equal = {} if tree is None else self._equal_prompts(tree)

    def of(self, query: Query) -> _Share:
        """What this query takes."""
        if query.query_id in self._begun:
            return self._plan(query)
        # Of what nothing is recorded only task and length count.
        alike = query.task, query.metadata["kind"], len(query.prompt)
        if alike not in self._alike:
            self._alike[alike] = self._plan(query)
        return self._alike[alike]

    def _plan(self, query: Query) -> _Share:
        share = _Share(defaultdict(Amount), defaultdict(Amount), {}, {})
        calls = list(planned_calls([query], self._pool, Part(direct=self._part.direct)))
        nodes = {call.place: self._nodes.get(call.place) for call in calls}
        keys: set[str] = set()
        known: set[Hashable] = set()
        files: set[Hashable] = set()
        texts = 1  # that of the query itself
        for call in sorted(calls, key=lambda call: nodes[call.place] is None):
            kind, prompt, node = _kind(call), self._prompt_of(call), nodes[call.place]
            stage = len(call.models), signature(call.spec)
            if node is not None:
                fresh = float(node.key not in keys)
                keys.add(node.key)
                took = self._reply(call, node.tokens_in, node.tokens_out)
            else:
                fresh = 0.0 if prompt in known else self._equal.get(kind, 1.0)
                tokens_out, basis = self.measured.written(call)
                took = self._reply(call, self.measured.read(call, self._replies(call)), tokens_out)
                if fresh:
                    share.bases[kind] = _wider(share.bases.get(kind, "recorded"), basis)
                    share.loads[stage] = loading_seconds(call.spec)
            known.add(prompt)
            # A file holds a unit's queries, and each has its part in the file's own bytes.
            file = 0.0 if (stage, node is None) in files else 1 / self._pool.queries_per_unit
            files.add((stage, node is None))
            size = node_bytes(1, 0, file) * self.measured.bytes_factor
            amounts = share.left if node is None else share.recorded
            amounts[kind] += took * fresh + Amount(nodes=1, bytes=size, texts=texts)
            texts = 0
        return share

    def _reply(self, call: Call, tokens_in: float, tokens_out: float) -> Amount:
        """One generation without the node that it is kept in."""
        return Amount(
            generations=1,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            dollars=call_cost(call.spec.rate, tokens_in, tokens_out),
            seconds=self.measured.seconds(call, tokens_in, tokens_out),
            bytes=node_bytes(0, tokens_out, 0) * self.measured.bytes_factor,
            texts=texts_after(call, self._members, self._pool),
        )

    def _replies(self, call: Call) -> float:
        """Tokens of the earlier replies in a call's prompt, as recorded or expected."""
        tokens = 0.0
        for depth in range(1, len(call.models)):
            path = call.models[:depth]
            node = self._nodes.get(NodeKey(call.query.query_id, path, "analyze"))
            if node is None:
                before = Call(call.query, path, "analyze", self.measured.specs[path[-1]])
                tokens += self.measured.written(before)[0]
            else:
                tokens += node.tokens_out
        return tokens

    def _prompt_of(self, call: Call) -> Hashable:
        """What a generation depends on, as far as it is known before earlier replies are."""
        before = tuple(self.measured.specs[name] for name in call.models[:-1])
        return (
            tuple((signature(spec), spec.limits.analyze) for spec in before),
            signature(call.spec),
            call.role,
            asked(call.spec, call.role),
            limit_for(call.spec, call.role, call.query.task),
        )

    def _equal_prompts(self, tree: RouteTree) -> dict[Kind, float]:
        """Generations for each prompt that might have been another, as recorded.

        Models may say the same, and whoever is called after them then is asked the same. Only
        queries count of which all nodes of the kind are recorded.
        """
        counts: dict[Kind, list[int]] = defaultdict(lambda: [0, 0])
        for query in tree.queries:
            if query.query_id not in self._begun:
                continue
            keys: set[str] = set()
            known: set[Hashable] = set()
            kinds: dict[Kind, list[Call]] = defaultdict(list)
            for call in planned_calls([query], self._pool):
                kinds[_kind(call)].append(call)
            for kind, calls in kinds.items():
                before = len(keys), len(known)
                nodes = [self._nodes.get(call.place) for call in calls]
                keys |= {node.key for node in nodes if node is not None}
                known |= {self._prompt_of(call) for call in calls}
                if None not in nodes:
                    counts[kind][0] += len(keys) - before[0]
                    counts[kind][1] += len(known) - before[1]
        return {kind: keys / known for kind, (keys, known) in counts.items() if known}


def _kind(call: Call) -> Kind:
    return Kind(len(call.models) - 1, call.role, call.spec.name)


def _wider(one: Basis, other: Basis) -> Basis:
    return max(one, other, key=BASES.index)


def _require_same_pool(tree: RouteTree, pool: PoolConfig) -> None:
    """Refuses the tree of another pool, as collecting does, but looks at no model's weights."""
    known: dict[str, Any] = tree.info["made"]["models"]
    recorded = (*tree.info["pool"]["models"], *tree.info["pool"]["references"])
    models = {spec["name"]: spec["model"] for spec in recorded}

    def known_identity(spec: ModelSpec) -> dict[str, Any]:
        if spec.backend in ("scripted", "openai"):
            return identity(spec)
        before = known.get(spec.name, {"weights": "", "generation": {}})
        # A folder may have moved.
        same = models.get(spec.name, spec.model).split("/")[-1] == spec.model.split("/")[-1]
        return {
            "weights_digest": before["weights"] if same else spec.model,
            "generation": before["generation"],
        }

    identities = {spec.name: known_identity(spec) for spec in (*pool.models, *pool.references)}
    refuse_other_pool(tree.folder, tree.info["made"], made_with(pool, identities))

"""What calls took as a tree has recorded them, to tell what further calls will take.

Every figure is a ratio of two sums over recorded nodes, kept for narrower and wider kinds of call:
a call is estimated by the narrowest kind of which something was recorded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from hierrouter.pool.prompts import instruction_for, limit_for, whole_message
from hierrouter.routes.calls import Call, unit_numbers
from hierrouter.routes.embed import embeddings_folder
from hierrouter.routes.estimate import USED, pace_of, token_seconds
from hierrouter.routes.journal import read_journal
from hierrouter.routes.lanes import servers_of, whole_time
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.scores import answer_kind
from hierrouter.routes.storage import node_bytes, text_bytes, texts_after

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

    from hierrouter.config import ModelSpec, PoolConfig, Prompts
    from hierrouter.data.queries import Query
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.amounts import Basis, TimeBasis
    from hierrouter.routes.estimate import Pace
    from hierrouter.routes.lanes import Lane
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree

CHARACTERS = 4.0
"""Characters of a prompt for each of its tokens, in English text."""
TEMPLATE = 25
"""Tokens of a chat template around a message."""


def signature(spec: ModelSpec) -> Hashable:
    """What tells weights apart without looking at them: members that share it share replies."""
    if spec.backend == "scripted":
        return spec.name
    return spec.model, spec.revision, spec.backend, spec.dtype


def asked(spec: ModelSpec, role: Role) -> str:
    """The member's own part of what it is asked for."""
    return spec.instruction if role == "solve" else ""


class Recorded(NamedTuple):
    """A node without its reply."""

    key: str
    tokens_in: int
    tokens_out: int


class Ratios:
    """Ratios of two sums, each of several kinds of call."""

    def __init__(self) -> None:
        """Starts with nothing recorded."""
        self._sums: dict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, kinds: Sequence[Hashable], amount: float, base: float) -> None:
        """Counts an amount and what it is measured against for each of these kinds."""
        for kind in kinds:
            self._sums[kind][0] += amount
            self._sums[kind][1] += base

    def find(self, kinds: Sequence[Hashable]) -> tuple[float, int] | None:
        """The ratio of the first kind that was met, and the number of that kind; else none."""
        for number, kind in enumerate(kinds):
            amount, base = self._sums.get(kind, (0.0, 0.0))
            if base > 0:
                return amount / base, number
        return None


class Measured:
    """What the calls of a pool take, as far as a tree tells."""

    def __init__(self, pool: PoolConfig, tree: RouteTree | None = None) -> None:
        """Reads the tree.

        Args:
            pool: the pool, whose prompts, instructions and limits are those of the tree.
            tree: what was recorded; none: nothing.
        """
        self._prompts = pool.prompts
        self.specs = {spec.name: spec for spec in (*pool.models, *pool.references)}
        self._paces: dict[str, Pace] = {name: pace_of(spec) for name, spec in self.specs.items()}
        self._written, self._read, self._time = Ratios(), Ratios(), Ratios()
        self.bytes_factor = 1.0
        """Bytes of the tree's files over those that `storage` expects."""
        self.bytes_per_text = text_bytes(pool)
        """Bytes of a context's vector."""
        self.recorded: dict[NodeKey, Recorded] = {}
        """Every node of the tree."""
        self.hours_from: TimeBasis = "sizes"
        """What tells how long calls take."""
        self._timed: dict[Lane, float] = defaultdict(float)
        self._untimed: set[Hashable] = set()
        self._servers = servers_of(pool)
        self.machines: set[str] = set()
        """Which recorded the tree, as far as its journal tells."""
        self.made_on: list[str] = []
        """What made the recorded nodes of this pool's models and the tree's queries."""
        self.nodes = 0
        """How many those are; the estimates are from them."""
        self._queries: dict[str, Query] = {}
        if tree is not None:
            self._learn(tree, pool)

    def written(self, call: Call) -> tuple[float, Basis]:
        """Tokens of a call's reply, and what they are taken from."""
        limit = limit_for(call.spec, call.role, call.query.task)
        found = self._written.find(self._written_kinds(call))
        if found is None:
            return USED * limit, "limits"
        return found[0] * limit, "relatives" if found[1] else "recorded"

    def read(self, call: Call, replies: float) -> float:
        """Tokens of a call's prompt, of which `replies` are earlier replies."""
        ratio, _ = self._read.find(self._read_kinds(call)) or (1 / CHARACTERS, None)
        most = self._prompts.max_context_tokens + TEMPLATE
        return min(ratio * characters(self._prompts, call) + replies, most)

    def seconds(self, call: Call, tokens_in: float, tokens_out: float) -> float:
        """A call's share of the time of the calls that are made together."""
        kinds = self._time_kinds(call.spec, len(call.models))
        factor, _ = self._time.find(kinds) or (1.0, None)
        pace = self._paces[call.spec.name]
        return factor * token_seconds(call.spec, tokens_in, tokens_out, pace)

    def elsewhere(self, pace: Pace) -> None:
        """Takes another kind of machine from now on: how long calls took here tells nothing then.

        Args:
            pace: what runs the models there; endpoints stay what they are.
        """
        for name, spec in self.specs.items():
            if spec.backend not in ("openai", "scripted"):
                self._paces[name] = pace
        self._time = Ratios()
        self.hours_from = "sizes"

    def _written_kinds(self, call: Call) -> list[Hashable]:
        spec, role, task = call.spec, call.role, call.query.task
        shared = signature(spec), asked(spec, role), role
        return [
            (spec.name, role, len(call.models), task),
            (spec.name, role, task),
            (spec.name, role),
            (shared, task),
            shared,
        ]

    def _read_kinds(self, call: Call) -> list[Hashable]:
        name, weights, task = call.spec.name, signature(call.spec), call.query.task
        return [
            (name, call.role, len(call.models), task),
            (name, task),
            (weights, task, "weights"),
            (name,),
            (weights, "weights"),
        ]

    def _time_kinds(self, spec: ModelSpec, depth: int) -> list[Hashable]:
        return [(signature(spec), depth), signature(spec), ()]

    def _learn(self, tree: RouteTree, pool: PoolConfig) -> None:
        self._queries = {query.query_id: query for query in tree.queries}
        numbers = unit_numbers(tree.queries, tree.info["pool"]["queries_per_unit"])
        made_on: set[str] = set()
        keys: set[str] = set()
        size = modelled = untimed = 0.0
        together: dict[Hashable, list[Node]] = defaultdict(list)
        for path in tree.nodes.files():
            nodes = list(tree.nodes.stream({path}))
            # Nodes that share a generation lie beside it, or were added later.
            fresh = {node.key: node for node in nodes if node.key not in keys}
            keys |= fresh.keys()
            size += path.stat().st_size
            modelled += node_bytes(len(nodes), sum(n.tokens_out for n in fresh.values()), 1)
            self.recorded |= {
                node.place: Recorded(node.key, node.tokens_in, node.tokens_out) for node in nodes
            }
            mine = [node for node in nodes if self._call_at(node.place)]
            self.nodes += len(mine)
            made_on |= {f"{node.backend} {node.device} {node.dtype}" for node in mine}
            timed = [node for node in fresh.values() if self._call_at(node.place)]
            for node in timed:
                together[self._batch_of(node, path, numbers)].append(node)
        for group in together.values():
            untimed += self._learn_time(group)
        if modelled:
            self.bytes_factor = size / modelled
        self.made_on = sorted(made_on)
        self._learn_lengths()
        self._learn_vectors(tree, pool)
        journal = read_journal(tree.folder)
        self.machines = {entry["machine"] for entry in journal if "machine" in entry}
        if untimed:
            self._learn_from_journal(journal, untimed)

    def _call_at(self, place: NodeKey) -> Call | None:
        """The call of a recorded node; none where query or model are not of this sample or pool."""
        query, spec = self._queries.get(place.query_id), self.specs.get(place.models[-1])
        return None if query is None or spec is None else Call(query, *place[1:], spec)

    def _learn_lengths(self) -> None:
        for place, node in self.recorded.items():
            call = self._call_at(place)
            if call is None:
                continue
            before = (
                NodeKey(place.query_id, place.models[:depth], "analyze")
                for depth in range(1, len(place.models))
            )
            known = (self.recorded[each] for each in before if each in self.recorded)
            read = max(node.tokens_in - sum(each.tokens_out for each in known), 0)
            limit = limit_for(call.spec, call.role, call.query.task)
            self._written.add(self._written_kinds(call), node.tokens_out, limit)
            self._read.add(self._read_kinds(call), read, characters(self._prompts, call))

    def _batch_of(self, node: Node, path: Path, numbers: dict[str, int]) -> Hashable:
        """What tells the nodes that were asked for in one call of a backend.

        That is all of a file as it was recorded; files may have been joined since. What was filled
        in is not asked for by units, and a step of it may lie in several files.
        """
        kind = len(node.models), signature(self.specs[node.models[-1]])
        filled = re.match(r"fill-\d+", path.name)
        return (filled[0], *kind) if filled else (path, numbers[node.query_id], *kind)

    def _learn_time(self, nodes: list[Node]) -> float:
        """Learns how long a backend's call took; the seconds expected of it if nothing tells."""
        spec = self.specs[nodes[0].models[-1]]
        expected = sum(
            token_seconds(self.specs[name], node.tokens_in, node.tokens_out, self._paces[name])
            for node in nodes
            for name in node.models[-1:]
        )
        took, depth = elapsed(nodes, spec), len(nodes[0].models)
        kinds = self._time_kinds(spec, depth)
        if took is None:
            self._untimed.update(kinds)
            return expected
        self._time.add(kinds, took, expected)
        self._timed[depth - 1, self._servers[spec.name]] += took
        self.hours_from = "latencies" if expected else self.hours_from
        return 0.0

    def _learn_from_journal(self, journal: list[dict[str, Any]], expected: float) -> None:
        """Learns from whole recordings how long those nodes took whose latencies do not tell.

        Recordings include loading models, and may be known for some of the nodes only.
        """
        noted = sum(entry["nodes"] for entry in journal)
        share = min(noted / len(self.recorded), 1.0)
        took = sum(entry["seconds"] for entry in journal) - share * whole_time(self._timed)
        if noted and took > 0:
            self._time.add(list(self._untimed), took, share * expected)
            self.hours_from = "recordings"

    def _learn_vectors(self, tree: RouteTree, pool: PoolConfig) -> None:
        """Bytes of a context's vector; some contexts have the same text, which is kept once."""
        if tree.info["encoder"]["model"] != pool.encoder.model:
            return
        members = {spec.name for spec in pool.models}
        begun: set[str] = set()
        keys: set[str] = set()
        texts = 0
        for place, node in self.recorded.items():
            call = self._call_at(place)
            if call is None:
                continue
            texts += place.query_id not in begun
            begun.add(place.query_id)
            if node.key not in keys:
                keys.add(node.key)
                texts += texts_after(call, members, pool)
        size = sum(path.stat().st_size for path in embeddings_folder(tree).glob("[!.]*.parquet"))
        if size and texts:
            self.bytes_per_text = size / texts


def characters(prompts: Prompts, call: Call) -> int:
    """Length of a call's prompt without the earlier replies' own texts."""
    hop = len(call.models) - 1
    message = whole_message(
        call.query.prompt,
        [("analyze", "")] * hop,
        instruction_for(prompts, call.spec, hop, call.role, any_before=hop > 0),
        getattr(prompts.answer_formats, answer_kind(call.query)) if call.role == "solve" else "",
    )
    return len(message) + round(TEMPLATE * CHARACTERS)


def elapsed(nodes: Sequence[Node], spec: ModelSpec) -> float | None:
    """Seconds that one call of a backend took, from the latencies of its replies.

    OpenVINO counts from handing over all prompts to each reply's end; a call of a server counts by
    itself while others are under way, and they go on without a pause from one file's calls to the
    next's. With transformers each reply counts from where it joined a
    batch, which does not tell how many ran beside it.

    Args:
        nodes: the replies that were generated in it.
        spec: the model.

    Returns:
        None where latencies do not tell.
    """
    latencies: list[float] = [node.latency_s for node in nodes]
    kind = nodes[0].backend
    if kind == "transformers":
        return None
    if kind == "openai" and spec.endpoint is not None:
        return sum(latencies) / spec.endpoint.concurrency
    return max(latencies)

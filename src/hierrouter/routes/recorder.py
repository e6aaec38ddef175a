"""The loop that records: what is missing is asked for unit by unit and committed."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from hierrouter.errors import RefusedError, UnreachableError
from hierrouter.interrupts import finished_first
from hierrouter.pool.openai_backend import OpenAIBackend
from hierrouter.progress import Progress, say
from hierrouter.routes.asking import side_by_side
from hierrouter.routes.calls import WHOLE, Part, branches, stages, unit_numbers, units
from hierrouter.routes.lanes import HERE, servers_of
from hierrouter.routes.maker import Maker
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.orphans import take_out_orphans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hierrouter.config import PoolConfig
    from hierrouter.pool.backend import Backend
    from hierrouter.routes.asking import Lane
    from hierrouter.routes.calls import Call
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree

    Unit = tuple[int, list[Call]]

WAVES = 64
"""So many times its `concurrency` calls an endpoint is given together: what the slowest of them
holds up at the end then is little of the whole."""
ON_ACCELERATOR = 1024
"""Calls that a model on an accelerator is given together: enough to keep its batch full."""


class Recorder:
    """Generates and commits nodes that a tree does not hold yet, within a budget."""

    def __init__(
        self, tree: RouteTree, config: PoolConfig, max_dollars: float | None = None
    ) -> None:
        """Records into `tree`.

        Args:
            tree: the tree.
            config: its pool.
            max_dollars: what all calls may cost by the pool's rates; none: anything.
        """
        self._tree, self._config = tree, config
        self._in_budget = max_dollars is not None
        self._maker = Maker(tree, config, max_dollars, take_out_orphans(tree))
        self._refusal: RefusedError | None = None
        self._unreachable: UnreachableError | None = None
        self.recorded = 0
        """How many nodes were committed."""

    @property
    def spent_usd(self) -> float:
        """What the calls made so far cost."""
        return self._maker.spent_usd

    @property
    def out_of_money(self) -> bool:
        """Whether a call was left out because it might have cost too much."""
        return self._maker.out_of_money

    def complain(self) -> None:
        """Says what was refused on the way.

        Raises:
            RefusedError: some calls were; neither they nor what stands on them was made, and all
                others are recorded. Where money ended first, that is said and no error.
        """
        if self._refusal is None:
            return
        others = "" if self.out_of_money else "all others are recorded, and "
        line = (
            f"{len(self._maker.refused)} calls were refused; neither they nor what stands on them "
            f"was made, {others}training leaves out the queries concerned ({self._refusal})"
        )
        if not self.out_of_money:
            raise RefusedError(line) from self._refusal
        say(line)

    def record(self, part: Part = WHOLE) -> None:
        """Makes every call of `part` whose node is missing.

        Raises:
            UnreachableError: a server does not answer; what other models can do without it is
                done.
            HierRouterError: a prompt would be too long; found before anything is generated. Or a
                model fails; what was answered is kept.
        """
        tree, config = self._tree, self._config
        planned, queries = 0, 0
        missing: list[Call] = []
        for branch in branches(tree.queries, config, part):
            ids = [query.query_id for query in branch.queries]
            planned, queries = planned + len(ids), len(ids)
            missing += branch.calls(tree.nodes.absent(ids, branch.models, branch.role))
        missing = [call for call in missing if self._is_possible(call)]
        if not missing:
            if not self._maker.refused:
                say(f"recorded: all {planned} nodes of {queries} queries are there")
            return
        self._maker.require_fit(missing)
        say(f"recording {len(missing)} of {planned} nodes of {queries} queries")
        weights = {name: model["weights"] for name, model in tree.info["made"]["models"].items()}
        numbers = unit_numbers(tree.queries, config.queries_per_unit)
        # Work is counted in expected seconds, so that the time left does not jump between models.
        work = sum(call.work for call in missing)
        with Progress("recording", len(missing), "nodes", work=work) as progress:
            for groups in _depth_by_depth(stages(missing, weights)):
                for lanes in self._lanes(groups):
                    side_by_side([self._recording(lane, numbers, progress) for lane in lanes])
        left = sum(call.place not in tree.nodes and not self._is_refused(call) for call in missing)
        if self._unreachable is not None:
            error, self._unreachable = self._unreachable, None
            raise UnreachableError(f"{error} ({left} nodes are left)") from error
        if self.out_of_money:
            say(
                f"stopped, since the next call might exceed --max-dollars; {left} nodes are left: "
                "the same command goes on from there"
            )

    def _lanes(self, groups: list[list[Call]]) -> Iterator[list[list[list[Call]]]]:
        """Groups of one depth as lanes that may run side by side: first these, then those.

        A lane is groups that follow on each other. Models in this process do, for its memory; so
        do models at one address, of which no more than `concurrency` calls are asked at once, and
        models with the same weights, which share generations. In a budget all do, since each call
        is made only if all before it leave enough.
        """
        if self._in_budget:
            yield [groups]
            return
        here = [group for group in groups if group[0].spec.endpoint is None]
        if here:
            yield [here]
        servers = servers_of(self._config)
        lanes: dict[str, list[list[Call]]] = {}
        for group in groups:
            if (server := servers[group[0].spec.name]) != HERE:
                lanes.setdefault(server, []).append(group)
        if lanes:
            yield [*lanes.values()]

    def _recording(
        self, groups: list[list[Call]], numbers: Mapping[str, int], progress: Progress
    ) -> Lane:
        """What has to be generated for groups that follow on each other; commits it."""
        for group in groups:
            possible = [call for call in group if self._is_possible(call)]
            if not possible or self.out_of_money:
                continue
            backend = self._maker.open(group[0].spec)
            try:
                for together in _together(backend, units(possible, numbers)):
                    yield from self._recording_units(backend, together, progress)
                    if self.out_of_money:
                        break
            except UnreachableError as error:
                if backend.device != "endpoint" or self._maker.commits.failed:
                    raise
                self._unreachable = self._unreachable or error
                say(f"{group[0].spec.name} is left for now; what others can do goes on ({error})")
            finally:
                backend.close()

    def _recording_units(self, backend: Backend, together: list[Unit], progress: Progress) -> Lane:
        """What has to be generated for units; each is committed when its last call was answered."""
        unit_of = {call.place: unit for unit in together for call in unit[1]}
        nodes: dict[int, dict[NodeKey, Node]] = {number: {} for number, _ in together}

        def commit(unit: Unit) -> None:
            # In the order of the calls, so that equal nodes are equal files.
            number, calls = unit
            made = [nodes[number][call.place] for call in calls if call.place in nodes[number]]
            del nodes[number]
            if made and self._maker.commits.add(
                f"{number:05d}-hop{len(calls[0].models) - 1}", made
            ):
                self.recorded += len(made)

        def keep(call: Call, node: Node) -> None:
            unit = unit_of[call.place]
            if unit[0] not in nodes:
                return  # told again after an interruption, and committed by then
            nodes[unit[0]][call.place] = node
            progress.advance(1, call.spec.name, work=call.work)
            if len(together) > 1 and len(nodes[unit[0]]) == len(unit[1]):
                with finished_first():
                    commit(unit)

        try:
            yield from self._maker.making(
                backend, [c for _, calls in together for c in calls], keep
            )
        except RefusedError as error:
            self._refusal = self._refusal or error
        finally:
            # Whatever stopped the rest, what was paid for is kept, unit by unit.
            failures = []
            with finished_first():
                for unit in together:
                    try:
                        if unit[0] in nodes:
                            commit(unit)
                    except Exception as error:
                        failures.append(error)
            if failures:
                raise failures[0]

    def _is_possible(self, call: Call) -> bool:
        """Whether neither the call nor one that it stands on was refused, and those are there."""
        if self._is_refused(call):
            return False
        # Only a server that was away leaves them out otherwise.
        return self._unreachable is None or all(at in self._tree.nodes for at in _before(call))

    def _is_refused(self, call: Call) -> bool:
        refused = self._maker.refused
        return bool(refused) and not refused.isdisjoint((call.place, *_before(call)))


def _before(call: Call) -> list[NodeKey]:
    """Where the analyses that a call stands on are."""
    return [
        NodeKey(call.query.query_id, call.models[:depth], "analyze")
        for depth in range(1, len(call.models))
    ]


def _depth_by_depth(groups: Iterable[list[Call]]) -> Iterator[list[list[Call]]]:
    """Groups of `stages`, those of one depth together."""
    for _, alike in groupby(groups, key=lambda group: len(group[0].models)):
        yield list(alike)


def _together(backend: Backend, every: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Units whose calls a backend is given together.

    Where a processor computes them that is one: what runs side by side changes last digits there,
    and batches are to be the same whoever records.
    """
    most = 1
    if isinstance(backend, OpenAIBackend):
        most = WAVES * backend.concurrency
    elif backend.device not in ("cpu", "scripted"):
        most = ON_ACCELERATOR
    together: list[Unit] = []
    for unit in every:
        together.append(unit)
        if sum(len(calls) for _, calls in together) >= most:
            yield together
            together = []
    if together:
        yield together

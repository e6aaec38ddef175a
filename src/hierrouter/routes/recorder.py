"""The loop that records: what is missing is asked for unit by unit and committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.errors import RefusedError
from hierrouter.interrupts import finished_first
from hierrouter.progress import Progress, say
from hierrouter.routes.calls import WHOLE, Part, branches, stages, unit_numbers, units
from hierrouter.routes.maker import Maker
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.orphans import take_out_orphans

if TYPE_CHECKING:
    from hierrouter.config import PoolConfig
    from hierrouter.pool.backend import Backend
    from hierrouter.routes.calls import Call
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.tree import RouteTree


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
        self._maker = Maker(tree, config, max_dollars, take_out_orphans(tree))
        self._refused: set[NodeKey] = set()
        self._refusal: RefusedError | None = None
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
            RefusedError: some calls were; neither they nor what stands on them was made.
        """
        if self._refusal is not None:
            raise RefusedError(
                f"{len(self._refused)} calls were refused; neither they nor what stands on them "
                "was made, all others are recorded, and training leaves out the queries "
                f"concerned ({self._refusal})"
            ) from self._refusal

    def record(self, part: Part = WHOLE) -> None:
        """Makes every call of `part` whose node is missing.

        Raises:
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
            if not self._refused:
                say(f"recorded: all {planned} nodes of {queries} queries are there")
            return
        self._maker.require_fit(missing)
        say(f"recording {len(missing)} of {planned} nodes of {queries} queries")
        weights = {name: model["weights"] for name, model in tree.info["made"]["models"].items()}
        numbers = unit_numbers(tree.queries, config.queries_per_unit)
        # Work is counted in expected seconds, so that the time left does not jump between models.
        work = sum(call.work for call in missing)
        with Progress("recording", len(missing), "nodes", work=work) as progress:
            for group in stages(missing, weights):
                backend = self._maker.open(group[0].spec)
                try:
                    for number, unit in units(group, numbers):
                        self._record_unit(backend, number, unit, progress)
                        if self.out_of_money:
                            break
                finally:
                    backend.close()
                if self.out_of_money:
                    break
        if self.out_of_money:
            left = sum(call.place not in tree.nodes for call in missing)
            say(
                f"stopped, since the next call might exceed --max-dollars; {left} nodes are left: "
                "the same command goes on from there"
            )

    def _record_unit(
        self, backend: Backend, number: int, calls: list[Call], progress: Progress
    ) -> None:
        nodes: dict[NodeKey, Node] = {}

        def keep(call: Call, node: Node) -> None:
            nodes[call.place] = node
            progress.advance(1, call.spec.name, work=call.work)

        possible = [call for call in calls if self._is_possible(call)]
        try:
            self._maker.make(backend, possible, keep)
        except RefusedError as error:
            self._refusal = self._refusal or error
            if not self.out_of_money:
                self._refused |= {call.place for call in possible if call.place not in nodes}
        finally:
            # Whatever stopped the rest, what was paid for is kept: in the order of the calls, so
            # that equal nodes are equal files.
            if nodes:
                made = [nodes[call.place] for call in possible if call.place in nodes]
                with finished_first():
                    self._tree.commit(f"{number:05d}-hop{len(calls[0].models) - 1}", made)
                    self.recorded += len(made)

    def _is_possible(self, call: Call) -> bool:
        """Whether neither the call nor one that it stands on was refused."""
        if not self._refused:
            return True
        before = (
            NodeKey(call.query.query_id, call.models[:depth], "analyze")
            for depth in range(1, len(call.models))
        )
        return self._refused.isdisjoint((call.place, *before))

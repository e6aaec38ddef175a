"""Filling a tree on demand: the calls that episodes make, one batched call a model and step.

Where M^L calls a query are too many, a tree is not recorded in full. It is filled with what
episodes visit, into the same store: what is there already is never generated again, whoever
recorded it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hierrouter.config import PoolConfig
from hierrouter.errors import HierRouterError, RefusedError
from hierrouter.interrupts import finished_first
from hierrouter.pool.loaded import LoadedBackends
from hierrouter.progress import say
from hierrouter.quality.score import score_replies
from hierrouter.routes.calls import Call, branches
from hierrouter.routes.costs import call_cost
from hierrouter.routes.embed import replies_of
from hierrouter.routes.journal import Recording
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.made import refuse_other_models
from hierrouter.routes.maker import Maker
from hierrouter.routes.orphans import take_out_orphans
from hierrouter.routes.scores import expected_of, read_scores, reply_digest, score_tree
from hierrouter.routes.tree import RouteTree, read_recorded
from hierrouter.routes.vectors import Vectors
from hierrouter.routes.views import state_of, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from hierrouter.config import View
    from hierrouter.quality.score import Scored
    from hierrouter.routes.nodes import Node, NodeKey

SPEAK_EVERY = 20.0
"""Seconds between lines that say how far filling is."""
KEEP_EVERY = 60.0
"""Seconds after which what was answered is committed: what a kill may cost."""


@dataclass(frozen=True)
class Gain:
    """What a call gave."""

    cost_usd: float
    """Dollars of this call alone."""
    quality: float = 0.0
    """Of an answer, its quality."""
    state: NDArray[np.float32] | None = None
    """Of an analysis, the encoder's vector of the context after it, D wide."""
    refused: bool = False
    """Whether the model refused the call, as too long for instance; then it gave nothing."""


class Filler:
    """Makes what is missing of the calls that are asked for, and tells what they gave."""

    def __init__(
        self, tree: RouteTree, metric: str, view: View, max_dollars: float | None = None
    ) -> None:
        """Fills `tree`; to be closed.

        Args:
            tree: a tree whose direct answers are recorded and scored.
            metric: the quality metric that answers are held to.
            view: what the encoder sees of a context.
            max_dollars: what the calls may cost by the pool's rates; none: anything.
        """
        self.pool = PoolConfig.model_validate(tree.info["pool"])
        self.queries = {query.query_id: query for query in tree.queries}
        """The tree's queries by id."""
        self._tree, self._metric, self._view, self._most = tree, metric, view, max_dollars
        self._maker = Maker(tree, self.pool, max_dollars, take_out_orphans(tree))
        self._backends = LoadedBackends(self._maker.open)
        self._vectors = Vectors(tree, self.pool.encoder)
        self._quality = {
            place: (score.reply_digest, float(value))
            for place, score in read_scores(tree.folder)[1].items()
            if (value := score.metrics[metric]) is not None
        }
        self._scored: dict[NodeKey, Scored] = {}
        self._refused: set[NodeKey] = set()
        self._fitting = False
        self._spoken = time.monotonic()
        self._journal = Recording(tree.folder)

    @property
    def made(self) -> int:
        """Nodes added to the tree so far."""
        return self._journal.nodes

    @property
    def spent_usd(self) -> float:
        """What the calls made so far cost."""
        return self._maker.spent_usd

    def gains(self, calls: Sequence[Call]) -> list[Gain]:
        """What each of these calls gave; those that are missing are made first.

        The calls before each (its analyses) must have been asked for earlier, and not refused.

        Raises:
            HierRouterError: the next call might exceed `max_dollars`, or a model fails. What was
                made until then is in the tree.
        """
        nodes, refused = self._tree.nodes, self._refused
        missing = [call for call in calls if call.place not in nodes]
        self._make([call for call in missing if call.place not in refused])
        there = [call for call in calls if call.place not in refused]
        self._score([call for call in there if call.role == "solve"])
        states = iter(self._states([call for call in there if call.role == "analyze"]))
        gains = []
        for call in calls:
            if call.place in refused:
                gains.append(Gain(0.0, refused=True))
                continue
            node = nodes[call.place]
            cost = call_cost(call.spec.rate, node.tokens_in, node.tokens_out)
            if call.role == "solve":
                gains.append(Gain(cost, quality=self._quality[call.place][1]))
            else:
                gains.append(Gain(cost, state=next(states)))
        return gains

    def extent(self) -> tuple[int, int]:
        """How many nodes the tree holds, and how many the full tree of its queries would."""
        models, hops = len(self.pool.models), self.pool.hops
        calls = sum(models**depth * (2 if depth < hops else 1) for depth in range(1, hops + 1))
        whole = len(self.queries) * (calls + len(self.pool.references))
        return len(self._tree.nodes), whole

    def is_whole(self) -> bool:
        """Whether every route of every query is recorded."""
        nodes, whole = self.extent()
        return nodes >= whole and not any(
            self._tree.nodes.absent(
                [query.query_id for query in branch.queries], branch.models, branch.role
            ).any()
            for branch in branches(self._tree.queries, self.pool)
        )

    def close(self) -> None:
        """Frees the models, and writes the scores, vectors and journal of what was made."""
        self._backends.close()
        self._journal.write()
        self._vectors.flush()
        if self.made or self._scored:
            score_tree(self._tree, done=self._scored)
        if len(self._refused) > 1:
            say(f"{len(self._refused)} calls were refused in all; each counts as a wrong answer")

    def _make(self, missing: Sequence[Call]) -> None:
        if not missing:
            return
        if not self._fitting:
            # Found before the first reply is paid for, not hours later.
            refuse_other_models(self._tree, self.pool)
            self._maker.require_fit(
                Call(query, (spec.name,), "solve", spec)
                for query in self.queries.values()
                for spec in self.pool.models
            )
            self._fitting = True
        groups: dict[tuple[str, str], list[Call]] = {}
        for call in missing:
            groups.setdefault(self._maker.loaded_as(call.spec), []).append(call)
        refusal: RefusedError | None = None
        with self._journal.running(), self._kept() as keep:
            for loaded_as, group in groups.items():
                backend = self._backends.use(loaded_as, group[0].spec)
                try:
                    self._maker.make(backend, group, keep)
                except RefusedError as error:
                    refusal = refusal or error
                if self._maker.out_of_money:
                    break
        if self._maker.out_of_money:
            raise HierRouterError(
                f"stopped, since the next call might exceed --max-dollars {self._most:g} "
                f"(spent: ${self.spent_usd:.4f}); what was recorded is kept: the same command "
                "goes on from there"
            )
        if refusal is not None:
            self._take_refusal(missing, refusal)

    def _take_refusal(self, asked: Sequence[Call], refusal: RefusedError) -> None:
        """Remembers what was refused: it would be refused again, and nothing else depends on it."""
        refused = [call.place for call in asked if call.place in self._maker.refused]
        if refused and not self._refused:
            say(
                f"{len(refused)} calls were refused, the first for query {refused[0].query_id}; "
                f"each counts as a wrong answer ({refusal})"
            )
        self._refused.update(refused)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[Callable[[Call, Node], None]]:
        """Takes the nodes of one step, and commits them every `KEEP_EVERY` seconds and at its end.

        A step may hold a reply for every training query; a kill must not cost all of them.
        """
        # Numbered, so that names never meet and lie in the order of filling. Files of one step
        # begin alike: they hold what one call of each model gave.
        step, committed = f"fill-{len(self._tree.nodes):08d}", time.monotonic()
        nodes: list[Node] = []

        def commit() -> None:
            nonlocal committed
            if nodes:
                with finished_first():
                    taken = nodes.copy()
                    nodes.clear()
                    if self._maker.commits.add(f"{step}-{self.made:08d}", taken):
                        self._journal.add(len(taken))
            committed = time.monotonic()

        def keep(_: Call, node: Node) -> None:
            nodes.append(node)
            self._speak(len(nodes))
            if time.monotonic() - committed >= KEEP_EVERY:
                commit()

        try:
            yield keep
        finally:
            commit()

    def _speak(self, more: int) -> None:
        if (now := time.monotonic()) - self._spoken >= SPEAK_EVERY:
            self._spoken = now
            say(f"filling: {self.made + more} nodes recorded, ${self.spent_usd:.4f}")

    def _score(self, answers: Sequence[Call]) -> None:
        replies = {call.place: self._tree.nodes[call.place].reply for call in answers}
        digests = {place: reply_digest(reply) for place, reply in replies.items()}
        fresh = {
            call.place: call
            for call in answers
            if self._quality.get(call.place, ("", 0.0))[0] != digests[call.place]
        }
        scored = score_replies(
            [(replies[place], expected_of(call.query)) for place, call in fresh.items()]
        )
        for place, each in zip(fresh, scored, strict=True):
            self._scored[place] = each
            self._quality[place] = digests[place], float(getattr(each, self._metric))

    def _states(self, analyses: Sequence[Call]) -> list[NDArray[np.float32]]:
        most = self.pool.encoder.max_tokens
        texts = [
            texts_of(
                self._view,
                call.query.prompt,
                replies_of(self._tree.nodes, call.query, call.models, call.role) or [],
                most,
            )
            for call in analyses
        ]
        vectors = iter(self._vectors.of([text for each in texts for text in each]))
        return [state_of(self._view, [next(vectors) for _ in each]) for each in texts]


@contextlib.contextmanager
def filling(
    tree: Path,
    metric: str,
    view: View,
    max_dollars: float | None = None,
    pool: PoolConfig | None = None,
) -> Iterator[Filler]:
    """Opens the tree in a folder for filling, as its only writer.

    Args:
        tree: the folder.
        metric: as for `Filler`, as are `view` and `max_dollars`.
        view: what the encoder sees of a context.
        max_dollars: what the calls may cost.
        pool: says where servers are asked, which the tree takes over; none: as it knows them.

    Raises:
        HierRouterError: there is no tree, it was not scored, or another process records into it.
    """
    read_recorded(tree)  # Refuses any other folder before a lock is put into it.
    with sole_writer(tree):
        opened = RouteTree(tree)
        if pool is not None:
            opened.take_endpoints(pool)
        filler = Filler(opened, metric, view, max_dollars)
        try:
            yield filler
        finally:
            filler.close()

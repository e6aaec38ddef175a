"""The loop that records: what is missing is asked for unit by unit and committed."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any

from hierrouter.files import digest_of
from hierrouter.pool.fit import require_fit
from hierrouter.pool.open import open_backend
from hierrouter.pool.prompts import build_message, instruction_for, limit_for
from hierrouter.progress import Progress, say
from hierrouter.routes.calls import WHOLE, Part, branches, stages, unit_numbers, units
from hierrouter.routes.costs import call_cost
from hierrouter.routes.nodes import Node, NodeKey
from hierrouter.routes.scores import answer_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.pool.backend import Backend, Completion
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.calls import Call
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
        self._tree, self._config, self._most = tree, config, max_dollars
        self._backends: dict[str, Backend] = {}
        self.spent_usd = 0.0
        """What the calls made so far cost."""
        self.out_of_money = False
        """Whether a call was left out because it might have cost too much."""
        self.recorded = 0
        """How many nodes were committed."""

    def record(self, part: Part = WHOLE) -> None:
        """Makes every call of `part` whose node is missing.

        Raises:
            HierRouterError: a prompt would be too long; found before anything is generated.
        """
        tree, config = self._tree, self._config
        planned, queries = 0, 0
        missing: list[Call] = []
        for branch in branches(tree.queries, config, part):
            ids = [query.query_id for query in branch.queries]
            planned, queries = planned + len(ids), len(ids)
            missing += branch.calls(tree.nodes.absent(ids, branch.models, branch.role))
        if not missing:
            say(f"recorded: all {planned} nodes of {queries} queries are there")
            return
        self._require_fit(missing)
        say(f"recording {len(missing)} of {planned} nodes of {queries} queries")
        weights = {name: model["weights"] for name, model in tree.info["made"]["models"].items()}
        numbers = unit_numbers(tree.queries, config.queries_per_unit)
        # Work is counted in expected seconds, so that the time left does not jump between models.
        work = sum(call.work for call in missing)
        with Progress("recording", len(missing), "nodes", work=work) as progress:
            for group in stages(missing, weights):
                backend = self._open(group[0].spec)
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

    def _require_fit(self, missing: Sequence[Call]) -> None:
        """Refuses questions that are too long for a model before any reply is paid for."""
        needed = {call.spec.name for call in missing}
        queries = list({call.query.query_id: call.query for call in missing}.values())
        questions = [(query.prompt, answer_kind(query)) for query in queries]
        config = self._config
        for specs, hops in ((config.models, config.hops), (config.references, 1)):
            for group in _same_model(spec for spec in specs if spec.name in needed):
                backend = self._open(group[0])
                require_fit(backend, group, config.prompts, hops, questions)

    def _open(self, spec: ModelSpec) -> Backend:
        """What answers as `spec`, with the weights that the tree knows it by."""
        weights: str = self._tree.info["made"]["models"][spec.name]["weights"]
        return open_backend(spec, self._config.prompts, self._config.batch_tokens, weights)

    def _record_unit(
        self, backend: Backend, number: int, calls: list[Call], progress: Progress
    ) -> None:
        tree = self._tree
        keyed: list[tuple[Call, str]] = []
        fresh: dict[str, tuple[str, int, Call]] = {}
        known: dict[str, Node] = {}
        for call in calls:
            prompt, limit, key = self._prompt(backend, call)
            keyed.append((call, key))
            if key in known or key in fresh:
                continue
            if (node := tree.nodes.with_key(key)) is not None:
                known[key] = node
            else:
                fresh[key] = (prompt, limit, call)
        made: dict[str, Node] = {}
        try:
            waiting = list(fresh)
            while waiting:
                affordable = self._affordable(backend, [fresh[key] for key in waiting])
                if affordable == 0:
                    self.out_of_money = True
                    break
                order, waiting = waiting[:affordable], waiting[affordable:]
                self._generate(backend, order, fresh, made, progress)
        finally:
            # Whatever stopped the rest, what was paid for is kept.
            nodes = []
            for call, key in keyed:
                node = made.get(key) or known.get(key)
                if node is None:
                    continue
                at = call.place
                nodes.append(replace(node, query_id=at.query_id, models=at.models, role=at.role))
                if key not in made or fresh[key][2] is not call:
                    progress.advance(1, call.spec.name, work=call.work)
            if nodes:
                tree.commit(f"{number:05d}-hop{len(calls[0].models) - 1}", nodes)
                self.recorded += len(nodes)

    def _generate(
        self,
        backend: Backend,
        order: list[str],
        fresh: dict[str, tuple[str, int, Call]],
        made: dict[str, Node],
        progress: Progress,
    ) -> None:
        """Asks for the replies of these keys; each goes into `made` as soon as it is there."""

        def keep(position: int, completion: Completion) -> None:
            key = order[position]
            call = fresh[key][2]
            made[key] = _node(call, key, completion, backend)
            self.spent_usd += call_cost(call.spec.rate, completion.tokens_in, completion.tokens_out)
            progress.advance(1, call.spec.name, work=call.work)

        asked = [fresh[key] for key in order]
        backend.generate([each[0] for each in asked], [each[1] for each in asked], keep)

    def _affordable(self, backend: Backend, asked: Sequence[tuple[str, int, Call]]) -> int:
        """How many of these calls, from the first, are paid for if all run to their limit."""
        if self._most is None:
            return len(asked)
        dearest = accumulate(
            call_cost(call.spec.rate, backend.count_tokens(prompt), limit)
            for prompt, limit, call in asked
        )
        left = self._most - self.spent_usd
        return sum(1 for _ in takewhile(lambda cost: cost <= left, dearest))

    def key_of(self, call: Call) -> str:
        """The generation key that the node of a call must have.

        Raises:
            KeyError: an analysis before it is not in the tree.
        """
        if call.spec.name not in self._backends:
            self._backends[call.spec.name] = self._open(call.spec)
        return self._prompt(self._backends[call.spec.name], call)[2]

    def _prompt(self, backend: Backend, call: Call) -> tuple[str, int, str]:
        """The rendered prompt of a call, its limit of new tokens, and its generation key."""
        tree, prompts = self._tree, self._config.prompts
        replies: list[tuple[Role, str]] = [
            (
                "analyze",
                tree.nodes[NodeKey(call.query.query_id, call.models[:depth], "analyze")].reply,
            )
            for depth in range(1, len(call.models))
        ]
        hop = len(call.models) - 1
        message = build_message(
            call.query.prompt,
            replies,
            instruction_for(prompts, call.spec, hop, call.role, any_before=hop > 0),
            getattr(prompts.answer_formats, answer_kind(call.query))
            if call.role == "solve"
            else "",
            backend.count_tokens,
            prompts.max_context_tokens,
        )
        prompt = backend.render(message)
        limit = limit_for(call.spec, call.role, call.query.task)
        made: dict[str, Any] = tree.info["made"]["models"][call.spec.name]
        settings = {**made["generation"], "max_new_tokens": limit}
        return prompt, limit, digest_of([made["weights"], settings, prompt])


def _same_model(specs: Iterable[ModelSpec]) -> list[list[ModelSpec]]:
    """Members of one model, which share its tokenizer."""
    groups: dict[tuple[str, str], list[ModelSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.model, spec.revision), []).append(spec)
    return list(groups.values())


def _node(call: Call, key: str, completion: Completion, backend: Backend) -> Node:
    return Node(
        query_id=call.query.query_id,
        models=call.models,
        role=call.role,
        **asdict(completion),
        dtype=backend.dtype,
        backend=backend.name,
        device=backend.device,
        key=key,
    )

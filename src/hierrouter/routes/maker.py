"""How a call becomes a node: the one way of asking, whoever wants the call made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any

from hierrouter.errors import RefusedError
from hierrouter.files import digest_of
from hierrouter.pool.fit import require_fit
from hierrouter.pool.open import open_backend
from hierrouter.pool.openai_backend import OpenAIBackend
from hierrouter.pool.prompts import build_message, instruction_for, limit_for
from hierrouter.routes.asking import Generation, Lane, in_turn
from hierrouter.routes.calls import branches
from hierrouter.routes.commits import Commits
from hierrouter.routes.costs import call_cost
from hierrouter.routes.nodes import Node, NodeKey
from hierrouter.routes.scores import answer_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.pool.backend import Backend, Completion
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.calls import Call
    from hierrouter.routes.tree import RouteTree


PROBED = 4
"""Calls of an endpoint that are made first, where there is a budget, to see what it counts."""
AROUND = 2
"""Most tokens that a tokenizer puts around a prompt by itself, where no chat template does."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One generation, and the calls that it answers."""

    prompt: str
    limit: int
    key: str
    calls: list[Call]


class Maker:
    """Makes the nodes of a tree within a budget; no generation is made twice."""

    def __init__(
        self,
        tree: RouteTree,
        config: PoolConfig,
        max_dollars: float | None = None,
        spare: Iterable[Node] = (),
    ) -> None:
        """Makes nodes of `tree`.

        Args:
            tree: the tree.
            config: its pool.
            max_dollars: what all calls may cost by the pool's rates; none: anything.
            spare: nodes that are not in the tree and serve where their generation is asked for.
        """
        self._tree, self._config, self._most = tree, config, max_dollars
        self._backends: dict[str, Backend] = {}
        # By weights, which members of one model share.
        self._longer: dict[str, float] = {}
        self._answered: set[str] = set()
        self._silent: dict[str, int] = {}
        self._spare = {node.key: node for node in spare}
        self.commits = Commits(tree)
        """Adds the nodes to the tree."""
        self.refused: set[NodeKey] = set()
        """Where the nodes of refused calls would stand."""
        self.spent_usd = 0.0
        """What the calls made so far cost."""
        self.out_of_money = False
        """Whether a call was left out because it might have cost too much."""

    def loaded_as(self, spec: ModelSpec) -> tuple[str, str]:
        """What tells one loaded model from another: members that agree in it can share one."""
        return self._made(spec)["weights"], spec.dtype

    def open(self, spec: ModelSpec) -> Backend:
        """What answers as `spec`, with the weights that the tree knows it by."""
        weights: str = self._made(spec)["weights"]
        if spec.backend == "openai":
            return OpenAIBackend(spec, self._has_answered(weights))
        return open_backend(spec, self._config.prompts, self._config.batch_tokens, weights)

    def require_fit(self, calls: Iterable[Call]) -> None:
        """Refuses questions that are too long for a model before any reply is paid for.

        Raises:
            HierRouterError: a prompt would be too long.
        """
        queries, needed = {}, set()
        for call in calls:
            queries[call.query.query_id] = call.query
            needed.add(call.spec.name)
        questions = [(query.prompt, answer_kind(query)) for query in queries.values()]
        config = self._config
        for specs, hops in ((config.models, config.hops), (config.references, 1)):
            for group in _same_model(spec for spec in specs if spec.name in needed):
                require_fit(self.open(group[0]), group, config.prompts, hops, questions)

    def make(
        self,
        backend: Backend,
        calls: Sequence[Call],
        on_node: Callable[[Call, Node], None],
    ) -> None:
        """Makes calls of one loaded model whose earlier calls are recorded.

        Args:
            backend: what answers all of them.
            calls: the calls. Some are left out where the budget ends (`out_of_money`).
            on_node: given each call's node as soon as it is there: what was paid for is to be kept
                whatever stops the rest.

        Raises:
            RefusedError: some calls were refused (`refused`); all others were made.
            HierRouterError: the model fails.
        """
        in_turn(self.making(backend, calls, on_node))

    def making(
        self,
        backend: Backend,
        calls: Sequence[Call],
        on_node: Callable[[Call, Node], None],
    ) -> Lane:
        """What has to be generated for `make`, whose arguments and errors it has."""
        fresh: dict[str, _Asked] = {}
        spare = self._spare | {node.key: node for node in self.commits.unsaved()}
        for call in calls:
            prompt, limit, key = self._prompt(backend, call)
            if key in fresh:
                fresh[key].calls.append(call)
            elif (node := self._tree.nodes.with_key(key) or spare.get(key)) is not None:
                on_node(call, _at(node, call))
            else:
                fresh[key] = _Asked(prompt, limit, key, [call])
        waiting = list(fresh.values())
        refusal: RefusedError | None = None
        while waiting:
            affordable = self._affordable(backend, waiting)
            if affordable == 0:
                self.out_of_money = True
                break
            asked, waiting = waiting[:affordable], waiting[affordable:]
            answered: set[int] = set()
            try:
                yield self._generation(backend, asked, answered, on_node)
            except RefusedError as error:
                refusal = error
                self.refused |= {
                    call.place
                    for position, each in enumerate(asked)
                    if position not in answered
                    for call in each.calls
                }
        if refusal is not None:
            raise refusal

    def _has_answered(self, weights: str) -> bool:
        """Whether the tree holds a reply of these weights; looked up once for each commit."""
        held = len(self._tree.nodes)
        if weights not in self._answered and self._silent.get(weights, 0) != held:
            if self._is_held(weights):
                self._answered.add(weights)
            else:
                self._silent[weights] = held
        return weights in self._answered

    def _is_held(self, weights: str) -> bool:
        ids = [query.query_id for query in self._tree.queries]
        return any(
            self._made(branch.spec)["weights"] == weights
            and not self._tree.nodes.absent(ids, branch.models, branch.role).all()
            for branch in branches(self._tree.queries, self._config)
        )

    def _generation(
        self,
        backend: Backend,
        asked: Sequence[_Asked],
        answered: set[int],
        on_node: Callable[[Call, Node], None],
    ) -> Generation:
        def keep(position: int, completion: Completion) -> None:
            of = asked[position]
            spec = of.calls[0].spec
            if position not in answered:  # an interrupted telling is told again
                self.spent_usd += call_cost(spec.rate, completion.tokens_in, completion.tokens_out)
            answered.add(position)
            if self._most is not None:
                longer = completion.tokens_in / max(backend.count_tokens(of.prompt), 1)
                weights = self._made(spec)["weights"]
                self._longer[weights] = max(self._longer.get(weights, 1.0), longer)
            for call in of.calls:
                on_node(call, _node(call, of.key, completion, backend))

        return Generation(
            backend, [each.prompt for each in asked], [each.limit for each in asked], keep
        )

    def _affordable(self, backend: Backend, asked: Sequence[_Asked]) -> int:
        """How many of these calls, from the first, are paid for if all run to their limit."""
        if self._most is None:
            return len(asked)
        weights = self._made(asked[0].calls[0].spec)["weights"]
        # What an endpoint counts is not known before its first replies.
        unknown = backend.device == "endpoint" and weights not in self._longer
        longer = self._longer.get(weights, 1.0)
        dearest = accumulate(
            call_cost(
                each.calls[0].spec.rate,
                AROUND + math.ceil(backend.count_tokens(each.prompt) * longer),
                each.limit,
            )
            for each in asked
        )
        left = self._most - self.spent_usd
        paid = sum(1 for _ in takewhile(lambda cost: cost <= left, dearest))
        return min(paid, PROBED) if unknown else paid

    def key_of(self, call: Call) -> str:
        """The generation key that the node of a call must have.

        Raises:
            KeyError: an analysis before it is not in the tree.
        """
        if call.spec.name not in self._backends:
            self._backends[call.spec.name] = self.open(call.spec)
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
        made = self._made(call.spec)
        settings = {**made["generation"], "max_new_tokens": limit}
        return prompt, limit, digest_of([made["weights"], settings, prompt])

    def _made(self, spec: ModelSpec) -> dict[str, Any]:
        """What the tree knows a model by."""
        made: dict[str, Any] = self._tree.info["made"]["models"][spec.name]
        return made


def _same_model(specs: Iterable[ModelSpec]) -> list[list[ModelSpec]]:
    """Members of one model, which share its tokenizer."""
    groups: dict[tuple[str, str, str], list[ModelSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.model, spec.revision, spec.backend), []).append(spec)
    return list(groups.values())


def _at(node: Node, call: Call) -> Node:
    """What an earlier generation gave, as the node of another call."""
    return replace(node, query_id=call.query.query_id, models=call.models, role=call.role)


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

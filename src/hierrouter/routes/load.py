"""From a recorded tree to dense outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.config import PoolConfig
from hierrouter.data.queries import digest_queries
from hierrouter.errors import HierRouterError
from hierrouter.files import sha256_text
from hierrouter.progress import say
from hierrouter.quality.score import METRICS
from hierrouter.quality.stated import stated_answer
from hierrouter.routes.embed import embeddings_folder, read_embeddings, replies_of
from hierrouter.routes.imported.store import imported_info, is_imported, load_imported
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.outcomes import SIGNALS, Outcomes, context_paths
from hierrouter.routes.scores import NodeScore, read_scores, reply_digest
from hierrouter.routes.tree import RouteTree, read_info
from hierrouter.routes.views import known_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import View
    from hierrouter.data.queries import Query
    from hierrouter.routes.nodes import Node
    from hierrouter.routes.outcomes import Moves


def load_outcomes(
    tree: Path,
    metric: str,
    view: View = "paper",
    moves: Moves = "early_exit",
    whole: bool = True,
) -> Outcomes:
    """Everything recorded about the queries whose nodes the moves need.

    Args:
        tree: the folder of a route tree.
        metric: the quality metric that answers are held to.
        view: what the encoder sees of a context.
        moves: which routes are wanted. `direct` and `escalate` need direct answers only; the
            others need the full tree, as their baselines do.
        whole: of imported outcomes, whether only queries with the outcomes of all models are
            wanted; else training queries with some are taken, too (`imported.store`).

    Returns:
        The outcomes, in the order of `queries.parquet`. Says how many queries were left out.

    Raises:
        HierRouterError: no query is complete, or the tree was not scored or embedded.
    """
    if metric not in METRICS:
        raise HierRouterError(f"unknown metric {metric}; there are {', '.join(METRICS)}")
    info = read_info(tree)
    if is_imported(info):
        return load_imported(tree, info, metric, view, whole)
    opened = RouteTree(tree)
    pool = PoolConfig.model_validate(opened.info["pool"])
    stamp, scores = read_scores(tree)
    if stamp.get("query_digest") != digest_queries(opened.queries):
        raise HierRouterError(
            f"{tree} was scored for other queries than it holds now; finish `hierrouter collect`"
        )
    hops = 1 if moves == "direct" else pool.hops
    analysed = moves not in ("direct", "escalate")
    reader = _Reader(opened, pool, metric, scores, view, hops if analysed else 1)
    complete = [query for query in opened.queries if reader.take(query)]
    if not complete:
        raise HierRouterError(
            f"{tree}: no query has all its nodes, scores and embeddings for moves {moves} and view "
            f"{view} (encoded: {', '.join(pool.encoder.views)}); "
            "run `hierrouter collect` again to finish it"
            + (", or take training.moves=direct" if analysed and hops > 1 else "")
        )
    if left_out := len(opened.queries) - len(complete):
        wanted = "nodes" if analysed and hops > 1 else "direct answers"
        say(
            f"{tree}: {left_out} of {len(opened.queries)} queries left out, "
            f"not all of their {wanted} are recorded"
        )
    references = tuple(spec.name for spec in pool.references)
    return Outcomes(
        query_ids=tuple(query.query_id for query in complete),
        tasks=np.array([query.task for query in complete]),
        train=np.array([query.split == "train" for query in complete]),
        folds=np.array([query.fold for query in complete], dtype=np.int64),
        models=reader.models,
        hops=hops,
        metric=metric,
        embeddings=np.stack(reader.embeddings),
        analyze_cost=np.stack(reader.analyze_cost),
        solve_cost=np.stack(reader.solve_cost),
        solve_quality=np.stack(reader.solve_quality),
        analysed=analysed or hops == 1,
        signals=np.stack(reader.signals),
        said=np.stack(reader.said),
        choices=np.array([int(query.metadata.get("choices", 0)) for query in complete]),
        references=references,
        reference_quality=np.array(reader.reference_quality) if references else None,
        reference_cost=np.array(reader.reference_cost) if references else None,
    )


def tree_info(tree: Path) -> dict[str, Any]:
    """`tree.json`, with what learning and evaluation must remember of the tree.

    That is the scores' `tree_digest` (nodes they are of) and `scorer_version`, and `weights`, the
    digest of each model's weights by its name.
    """
    info = read_info(tree)
    if is_imported(info):
        return imported_info(info)
    stamp, _ = read_scores(tree)
    weights = {name: model["weights"] for name, model in info["made"]["models"].items()}
    known = {key: stamp[key] for key in ("tree_digest", "scorer_version")}
    return {**info, **known, "weights": weights}


class _Reader:
    """Collects the rows of complete queries."""

    def __init__(
        self,
        tree: RouteTree,
        pool: PoolConfig,
        metric: str,
        scores: dict[NodeKey, NodeScore],
        view: View,
        hops: int,
    ) -> None:
        self.models = tuple(spec.name for spec in pool.models)
        self._references = [spec.name for spec in pool.references]
        self._tree, self._metric, self._scores = tree, metric, scores
        self._vectors = read_embeddings(embeddings_folder(tree))
        self._view, self._max_tokens = view, pool.encoder.max_tokens
        self._paths = [
            tuple(self.models[step] for step in path)
            for path in context_paths(len(self.models), hops)
        ]
        self._hops = hops
        self.embeddings: list[NDArray[np.float32]] = []
        self.analyze_cost: list[NDArray[np.float64]] = []
        self.solve_cost: list[NDArray[np.float64]] = []
        self.solve_quality: list[NDArray[np.float64]] = []
        self.signals: list[NDArray[np.float64]] = []
        self.said: list[NDArray[np.int64]] = []
        self.reference_quality: list[list[float]] = []
        self.reference_cost: list[list[float]] = []

    def take(self, query: Query) -> bool:
        """Adds the query's rows if all of its nodes are there."""
        shape = (len(self._paths), len(self.models))
        analyze, cost, quality = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        nodes = self._tree.nodes.several(list(self._places(query)))
        vectors, answers = [], []
        for row, path in enumerate(self._paths):
            state = self._state(nodes, query, path)
            if state is None:
                return False
            vectors.append(state)
            for column, model in enumerate(self.models):
                answer = self._answer(nodes, query, (*path, model))
                if answer is None:
                    return False
                node, cost[row, column], quality[row, column] = answer
                answers.append(node)
                if len(path) < self._hops - 1:
                    analysis = self._scores.get(NodeKey(query.query_id, (*path, model), "analyze"))
                    if analysis is None:
                        return False
                    analyze[row, column] = analysis.cost
        measured = [self._answer(nodes, query, (name,)) for name in self._references]
        if None in measured:
            return False
        self.embeddings.append(np.stack(vectors))
        self.analyze_cost.append(analyze)
        self.solve_cost.append(cost)
        self.solve_quality.append(quality)
        self._look_at(answers)
        self.reference_cost.append([each[1] for each in measured if each is not None])
        self.reference_quality.append([each[2] for each in measured if each is not None])
        return True

    def _places(self, query: Query) -> Iterator[NodeKey]:
        """Where everything stands of which a row is made."""
        for path in self._paths:
            if path:
                yield NodeKey(query.query_id, path, "analyze")
            for model in self.models:
                yield NodeKey(query.query_id, (*path, model), "solve")
        for name in self._references:
            yield NodeKey(query.query_id, (name,), "solve")

    def _state(
        self, nodes: Mapping[NodeKey, Node], query: Query, path: tuple[str, ...]
    ) -> NDArray[np.float32] | None:
        replies = replies_of(nodes, query, path, "analyze")
        if replies is None:
            return None
        return known_state(
            self._view,
            query.prompt,
            replies,
            self._max_tokens,
            lambda text: self._vectors.get(sha256_text(text)),
        )

    def _look_at(self, answers: Sequence[Node]) -> None:
        """Adds what each answer shows of itself, in the order of `SIGNALS`, and what it says."""
        shape = (len(self._paths), len(self.models))
        number: dict[str, int] = {}
        said = [stated_answer(node.reply) for node in answers]
        signals = [
            (node.logprob_mean, node.logprob_min, node.tokens_out, node.finish_reason == "stop")
            for node in answers
        ]
        self.signals.append(np.array(signals, np.float64).reshape(*shape, len(SIGNALS)))
        numbers = [-1 if each is None else number.setdefault(each, len(number)) for each in said]
        self.said.append(np.array(numbers, np.int64).reshape(shape))

    def _answer(
        self, nodes: Mapping[NodeKey, Node], query: Query, models: tuple[str, ...]
    ) -> tuple[Node, float, float] | None:
        """An answer's node, its cost in dollars and its quality.

        None unless that very reply is recorded and scored: a file of nodes may be lost, and what
        is made in its place be other replies.
        """
        place = NodeKey(query.query_id, models, "solve")
        score = self._scores.get(place)
        if score is None or (quality := score.metrics[self._metric]) is None:
            return None
        node = nodes.get(place)
        if node is None or reply_digest(node.reply) != score.reply_digest:
            return None
        return node, score.cost, float(quality)

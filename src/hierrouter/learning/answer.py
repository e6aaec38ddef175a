"""Answering one query live: the router decides, the pool's models are called, hop by hop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.config import PoolConfig
from hierrouter.errors import HierRouterError
from hierrouter.learning.actions import ROLES, action_name
from hierrouter.pool.loaded import LoadedBackends
from hierrouter.pool.open import identity, open_backend
from hierrouter.pool.prompts import build_message, instruction_for, limit_for
from hierrouter.routes.costs import call_cost
from hierrouter.routes.encoder import open_matching_encoder
from hierrouter.routes.views import encode_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hierrouter.config import AnswerKind, ModelSpec
    from hierrouter.learning.router import Router
    from hierrouter.pool.backend import Backend, Completion
    from hierrouter.pool.prompts import Role


@dataclass(frozen=True)
class Hop:
    """One decision and one model call of a live route."""

    index: int
    """The hop index l."""
    model: str
    """The model that was called."""
    role: Role
    """What it was asked for."""
    completion: Completion
    """Its reply."""
    cost_usd: float
    """Dollars of this call."""
    chances: dict[str, float]
    """The policy's probability of each allowed choice, such as "A solve", greatest first."""


class Answerer:
    """Answers queries with a router and its pool; models are loaded when first called.

    Models with the same weights share one backend; where memory is short, the one not used for
    longest is freed.
    """

    def __init__(self, router: Router) -> None:
        """Opens the router's encoder.

        Raises:
            HierRouterError: the encoder is not the one the router was trained with.
        """
        self._router = router
        self._pool = PoolConfig.model_validate(router.info.config["pool"])
        self._encoder = open_matching_encoder(self._pool.encoder, router.info.encoder["identity"])
        self._backends = LoadedBackends(self._open)

    @property
    def router(self) -> Router:
        """The router that decides."""
        return self._router

    def answer(
        self, query: str, alpha: float, kind: AnswerKind | None = None, task: str | None = None
    ) -> Iterator[Hop]:
        """Plays one route; the last hop's reply is the answer.

        Args:
            query: the question, as a user puts it.
            alpha: quality given up for one cost unit saved.
            kind: of a benchmark query, how its answer is to be written; the models are told, the
                encoder is not.
            task: of a benchmark query, its task, which may have token limits of its own.

        Yields:
            Each hop as soon as its reply is there.

        Raises:
            HierRouterError: a model has other weights than the one the router was trained with.
        """
        replies: list[tuple[Role, str]] = []
        spent, info = 0.0, self._router.info
        for index in range(info.hops):
            state = encode_context(
                self._encoder, info.view, query, replies, self._pool.encoder.max_tokens
            )
            scores = self._router.scores(state[None], index, np.array([spent]), alpha)[0]
            hop = self._call(query, replies, index, scores, kind, task)
            yield hop
            if hop.role == "solve":
                return
            spent += hop.cost_usd
            replies.append((hop.role, hop.completion.reply))

    def close(self) -> None:
        """Frees the models."""
        self._backends.close()

    def _call(
        self,
        query: str,
        replies: list[tuple[Role, str]],
        index: int,
        scores: np.ndarray,
        kind: AnswerKind | None,
        task: str | None,
    ) -> Hop:
        action = int(scores.argmax())
        spec = self._pool.models[action // 2]
        role = ROLES[action % 2]
        backend = self._backend(action // 2)
        prompts = self._pool.prompts
        message = build_message(
            query,
            replies,
            instruction_for(prompts, spec, index, role, any_before=bool(replies)),
            getattr(prompts.answer_formats, kind) if kind is not None and role == "solve" else "",
            backend.count_tokens,
            prompts.max_context_tokens,
        )
        limit = limit_for(spec, role, task)
        completion = backend.generate([backend.render(message)], [limit])[0]
        return Hop(
            index=index,
            model=spec.name,
            role=role,
            completion=completion,
            cost_usd=call_cost(spec.rate, completion.tokens_in, completion.tokens_out),
            chances=self._chances(scores),
        )

    def _backend(self, model: int) -> Backend:
        spec = self._pool.models[model]
        trained_with = self._router.info.weights[spec.name]
        weights: str = identity(spec, trained_with)["weights_digest"]
        if weights != trained_with:
            raise HierRouterError(
                f"{spec.model} has other weights here than the {spec.name} that this router was "
                "trained with; pin its revision, or record and train anew"
            )
        return self._backends.use((weights, spec.dtype), spec)

    def _open(self, spec: ModelSpec) -> Backend:
        weights = self._router.info.weights[spec.name]
        return open_backend(spec, self._pool.prompts, self._pool.batch_tokens, weights)

    def _chances(self, scores: np.ndarray) -> dict[str, float]:
        order = [int(action) for action in np.argsort(-scores) if np.isfinite(scores[action])]
        names = self._router.info.models
        return {action_name(action, names): float(np.exp(scores[action])) for action in order}

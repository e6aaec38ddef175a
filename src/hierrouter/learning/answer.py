"""Answering one query live: the router decides, the pool's models are called, hop by hop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.config import PoolConfig
from hierrouter.errors import HierRouterError
from hierrouter.learning.actions import SOLVE
from hierrouter.pool.open import identity, open_backend
from hierrouter.pool.prompts import build_message, encoder_text, instruction_for, limit_for
from hierrouter.routes.costs import call_cost
from hierrouter.routes.encoder import encoder_identity, open_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    Models with the same weights share one backend.
    """

    def __init__(self, router: Router) -> None:
        """Opens the router's encoder.

        Raises:
            HierRouterError: the encoder or a model of the pool is not the one it was trained with.
        """
        self._router = router
        self._pool = PoolConfig.model_validate(router.info.config["pool"])
        if encoder_identity(self._pool.encoder) != router.info.encoder["identity"]:
            raise HierRouterError(
                f"{self._pool.encoder.model} is not the encoder that this router was trained with "
                "(another revision or digest); pin pool.encoder.revision, or train the router anew"
            )
        self._encoder = open_encoder(self._pool.encoder)
        self._backends: dict[str, Backend] = {}

    def answer(self, query: str, alpha: float) -> Iterator[Hop]:
        """Plays one route; the last hop's reply is the answer.

        Args:
            query: the question, as a user puts it.
            alpha: quality given up for one cost unit saved.

        Yields:
            Each hop as soon as its reply is there.
        """
        replies: list[tuple[Role, str]] = []
        spent = 0.0
        for index in range(self._router.info.hops):
            embedding = self._encoder.encode([encoder_text(query, replies)])
            scores = self._router.scores(embedding, index, np.array([spent]), alpha)[0]
            hop = self._call(query, replies, index, scores)
            yield hop
            if hop.role == "solve":
                return
            spent += hop.cost_usd
            replies.append((hop.role, hop.completion.reply))

    def close(self) -> None:
        """Frees the models."""
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()

    def _call(
        self, query: str, replies: list[tuple[Role, str]], index: int, scores: np.ndarray
    ) -> Hop:
        action = int(scores.argmax())
        spec = self._pool.models[action // 2]
        role: Role = "solve" if action % 2 == SOLVE else "analyze"
        backend = self._backend(action // 2)
        prompts = self._pool.prompts
        message = build_message(
            query,
            replies,
            instruction_for(prompts, spec, index, role, any_before=bool(replies)),
            "",
            backend.count_tokens,
            prompts.max_context_tokens,
        )
        completion = backend.generate([backend.render(message)], [limit_for(spec, role, None)])[0]
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
        weights: str = identity(spec)["weights_digest"]
        if weights not in self._backends:
            self._backends[weights] = open_backend(
                spec, self._pool.prompts, self._pool.batch_tokens
            )
        return self._backends[weights]

    def _chances(self, scores: np.ndarray) -> dict[str, float]:
        order = [int(action) for action in np.argsort(-scores) if np.isfinite(scores[action])]
        return {
            f"{self._pool.models[action // 2].name} "
            f"{'solve' if action % 2 == SOLVE else 'analyze'}": float(np.exp(scores[action]))
            for action in order
        }

"""Players over routers of arbitrary weights, and a model that does as it is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from tests.routers import arbitrary_router

from hierrouter.config import PoolConfig
from hierrouter.pool.backend import Completion
from hierrouter.pool.live.backend import Prompt, Turn, WindowError
from hierrouter.pool.live.fleet import Fleet
from hierrouter.pool.live.member import Member
from hierrouter.routes.encoder import HashingEncoder
from hierrouter.serving.calls import Question
from hierrouter.serving.events import Route
from hierrouter.serving.knobs import Knobs, terms_of
from hierrouter.serving.player import Player
from hierrouter.serving.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from hierrouter.learning.router import Router

WIDTH = 16


def scripted_pool(
    models: int = 3, hops: int = 2, rates: Sequence[float] = (1.0, 3.0, 9.0), **prompts: Any
) -> PoolConfig:
    """Scripted models A, B, C with these dollars per 1,000 tokens."""
    return PoolConfig.model_validate(
        {
            "hops": hops,
            "encoder": {"model": "hashing", "dimensions": WIDTH},
            "prompts": prompts,
            "models": [
                {
                    "name": name,
                    "model": name,
                    "backend": "scripted",
                    "base_rate": rate,
                    "limits": {"solve": 10 + 7 * number, "analyze": 5 + 3 * number},
                    "scripted": {"solve_otherwise": 0.5, "words": 8 + 4 * number},
                }
                for number, (name, rate) in enumerate(zip("ABCDE"[:models], rates, strict=False))
            ],
        }
    )


@dataclass
class Told:
    """A model that says `words`, or raises or waits where it is told to."""

    words: list[str] = field(default_factory=lambda: ["one", " two", " three"])
    does: list[Any] = field(default_factory=list)
    """For each call to come: an exception before the first piece, ("after", N, exception), "wait"
    for ever before the first piece, ("after", N, "wait"), or "ok". When it is used up: "ok"."""
    name: str = "told"
    device: str = "cpu"
    dtype: str = "none"
    tokenizes: bool = False
    concurrency: int = 8
    window: int = 10_000
    calls: int = 0
    closed: int = 0
    prompts: list[Prompt] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def slow(self) -> None: ...

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def prepare(self, turns: Sequence[Turn]) -> Prompt:
        return Prompt(tuple(turns), sum(self.count_tokens(turn.text) for turn in turns))

    def require_window(self, prompt: Prompt, limit: int) -> None:
        if prompt.tokens_in + limit > self.window:
            raise WindowError("too long for its window")

    async def stream(
        self, prompt: Prompt, limit: int, *, pieces: bool = True, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | Completion, None]:
        self.calls += 1
        self.prompts.append(prompt)
        does = self.does.pop(0) if self.does else "ok"
        words = self.words[:limit]
        self.begun.set()
        try:
            if isinstance(does, Exception):
                raise does
            if does == "wait":
                await asyncio.Event().wait()
            for number, word in enumerate(words):
                if isinstance(does, tuple) and number == does[1]:
                    if does[2] == "wait":
                        await asyncio.Event().wait()
                    raise does[2]
                if pieces:
                    yield word
            reply = "".join(words).strip()
            yield Completion(reply, prompt.tokens_in, len(words), "stop", 0.0, -0.1, -0.2)
        finally:
            self.closed += 1


def player_over(pool: PoolConfig, router: Router, backends: Sequence[Any] | None = None) -> Player:
    """A player; with backends, these answer for the models in place of the scripted ones."""
    fleet = Fleet(pool, router.info.weights)
    if backends is not None:
        places = [asyncio.Semaphore(backend.concurrency) for backend in backends]
        fleet.members = [
            Member(spec, backend, place)
            for spec, backend, place in zip(pool.models, backends, places, strict=True)
        ]
    return Player(router, pool, fleet, Vectors(HashingEncoder(WIDTH)))


async def play(
    player: Player,
    text: str = "What is one plus one?",
    *,
    stop: Sequence[str] = (),
    pieces: bool = True,
    max_tokens: int | None = None,
    before: Sequence[Turn] = (),
    route: Route | None = None,
    **knobs: Any,
) -> tuple[Route, list[Any]]:
    """One question through a player: its route and events."""
    terms = terms_of(Knobs(**knobs), 0.1, player.router.info)
    route = Route(terms.alpha) if route is None else route
    question = Question(text, tuple(before), max_tokens)
    playing = player.play(question, terms, route, stop=stop, pieces=pieces)
    async with aclosing(playing) as events:
        return route, [event async for event in events]


@pytest.fixture
def make_pool() -> Callable[..., PoolConfig]:
    return scripted_pool


@pytest.fixture
def make_router() -> Callable[..., Router]:
    return arbitrary_router


@pytest.fixture
def make_player() -> Callable[..., Player]:
    return player_over


@pytest.fixture
def play_one() -> Callable[..., Any]:
    return play


@pytest.fixture
def told() -> type[Told]:
    return Told

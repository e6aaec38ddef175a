"""A live route on the screen, hop by hop."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from hierrouter.progress import say
from hierrouter.serving.events import Accepted, Hop, Route

if TYPE_CHECKING:
    from hierrouter.serving.calls import Question
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.player import Player


async def play_on_screen(player: Player, question: Question, terms: Terms) -> Route:
    """Answers one question, telling each hop when it is done.

    Raises:
        HierRouterError: there is no answer.
    """
    route = Route(terms.alpha)
    told = 0
    async with aclosing(player.play(question, terms, route, pieces=False)) as events:
        async for event in events:
            for failure in route.failures[told:]:
                say(f"failed: {failure.told}; deciding again without it")
            told = len(route.failures)
            if isinstance(event, Hop):
                say_hop(event)
            elif isinstance(event, Accepted) and len(route.hops) > 1:
                say(f"accepted: the answer of hop {event.hop}, {event.model}")
    return route


def say_hop(hop: Hop) -> None:
    """Says which model was called, what that took, and what else was open."""
    decision = hop.decision
    first, *others = (f"{name} {chance:.2f}" for name, chance in decision.chances.items())
    tokens = f"{hop.completion.tokens_in} + {hop.completion.tokens_out} tokens"
    say(
        f"hop {decision.index}: {decision.model} {decision.role}, {tokens}, ${hop.cost_usd:.6f}, "
        f"{hop.latency_s:.1f} s  (chose {first}; {', '.join(others[:2]) or 'no other choice'})"
    )

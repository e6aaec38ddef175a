"""How one hop of a live route is told on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.progress import say

if TYPE_CHECKING:
    from hierrouter.learning.answer import Hop


def say_hop(hop: Hop, seconds: float) -> None:
    """Says which model was called, what that took, and what else was open."""
    first, *others = (f"{name} {chance:.2f}" for name, chance in hop.chances.items())
    tokens = f"{hop.completion.tokens_in} + {hop.completion.tokens_out} tokens"
    say(
        f"hop {hop.index}: {hop.model} {hop.role}, {tokens}, ${hop.cost_usd:.6f}, "
        f"{seconds:.1f} s  (chose {first}; {', '.join(others[:2]) or 'no other choice'})"
    )

"""What happens while a request is answered, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError
from hierrouter.routes.outcomes import cascade_name

if TYPE_CHECKING:
    from hierrouter.pool.backend import Completion
    from hierrouter.pool.prompts import Role


@dataclass(frozen=True)
class Decision:
    """The policy has chosen a call."""

    index: int
    """The hop index l."""
    model: str
    """The model that is called."""
    role: Role
    """What it is asked for."""
    chances: dict[str, float]
    """The policy's probability of each choice that was open, such as "A solve", greatest first."""
    fallback: bool
    """Whether models that fail were left out, and another choice would have been made with them."""


@dataclass(frozen=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Hop:
    """A call is done."""

    decision: Decision
    """Why it was made."""
    completion: Completion
    """Its reply."""
    cost_usd: float
    """Dollars of this call."""
    started_s: float
    """Seconds from the request's begin to the decision's."""
    latency_s: float
    """Seconds from the decision's begin to the reply's end."""
    decided_s: float
    """Seconds of it that the decision took."""
    first_s: float | None
    """Seconds from the decision's begin to the reply's first piece; none where it came whole."""


@dataclass(frozen=True)
class Accepted:
    """An answer in hand was accepted: no other model is asked."""

    model: str
    """Whose answer it is."""
    hop: int
    """The hop index of its call."""


@dataclass(frozen=True)
class Failure:
    """A call gave no reply."""

    model: str
    """The model that was called."""
    kind: str
    """What kind of error it was."""
    status: int | None
    """The HTTP status, where a server refused."""
    told: str
    """What it says; that may quote a question or an answer."""


@dataclass
class Route:
    """What a request took so far; whole once its last hop is done."""

    alpha: float
    """The alpha that was routed with."""
    hops: list[Hop] = field(default_factory=list)
    """The calls that were made."""
    asking: str = ""
    """The model that was decided for last, where its reply is not there: the one under way, or the
    last that failed."""
    lost: dict[str, float] = field(default_factory=dict)
    """By model, dollars of calls that gave no reply: at most what they can have cost where they
    failed, and what they had said where they were given up."""
    degraded: bool = False
    """Whether a failure changed the route."""
    failures: list[Failure] = field(default_factory=list)
    """The calls that went wrong, for the log; never for the client."""
    answer: str = ""
    """The answer, stop sequences applied."""
    finish_reason: str = ""
    """"stop" or "length"."""
    returned: int | None = None
    """The hop index of the call whose answer this is, once one is there."""

    @property
    def path(self) -> str:
        """The route as it is written: `A:B`, and where answers were asked for anew `A!B`."""
        names = [hop.decision.model for hop in self.hops]
        analyses = [at for at, hop in enumerate(self.hops) if hop.decision.role == "analyze"]
        answers = [at for at, hop in enumerate(self.hops) if hop.decision.role == "solve"]
        if not answers:
            return ":".join(names)
        returned = answers[-1] if self.returned is None else self.returned
        return cascade_name(analyses, answers, returned, names)

    @property
    def lost_usd(self) -> float:
        """Dollars of calls that gave no reply."""
        return sum(self.lost.values())

    @property
    def cost_usd(self) -> float:
        """Dollars of everything that was called."""
        return self.lost_usd + sum(hop.cost_usd for hop in self.hops)

    @property
    def tokens_in(self) -> int:
        """Prompt tokens over all hops."""
        return sum(hop.completion.tokens_in for hop in self.hops)

    @property
    def tokens_out(self) -> int:
        """New tokens over all hops."""
        return sum(hop.completion.tokens_out for hop in self.hops)


class TooDearError(HierRouterError):
    """No allowed call stays within `max_cost`."""


class TooLongError(HierRouterError):
    """No allowed model can read the question."""


class NotTakenError(HierRouterError):
    """Every allowed model refuses the conversation, and not all because of its length."""


class LateError(HierRouterError):
    """The deadline has passed."""


class NobodyAnswersError(HierRouterError):
    """Every allowed model fails."""

    def __init__(self, text: str, retry_after_s: float) -> None:
        """Takes the line, and after how many seconds it is worth asking again."""
        super().__init__(text)
        self.retry_after_s = retry_after_s


class BrokenOffError(HierRouterError):
    """The answer failed after its first piece was passed on."""

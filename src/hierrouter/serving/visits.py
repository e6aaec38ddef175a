"""A request as the gate sees it, for whoever answers it further in.

It is told once how a request ended: the service tells it of those that it let in, the gate of the
others. The two meet here, as KServe's routes pass nothing on but headers.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hierrouter.serving.problems import Problem

OTHER = "other"
"""The interface of paths that belong to none; also of those that nobody knows, so that a client
cannot make up names for the numbers that are kept."""
INTERFACES = {"openai": "openai", "v1": "v1", "v2": "v2"}


@dataclass
class Visit:
    """One request."""

    request_id: str
    api: str = OTHER
    """The interface, out of a few."""
    status: int = 0
    """Of the answer; 0: none has begun."""
    admitted: bool = False
    """Whether the service let it in, and keeps the books about it."""
    problem: Problem | None = None
    """What its client was told in place of an answer."""
    failure: BaseException | None = None
    """An unexpected failure that the log has already."""
    cut: bool = False
    """Whether the server ends, and with it whatever is under way."""


_VISIT: ContextVar[Visit | None] = ContextVar("visit", default=None)


def begin(visit: Visit) -> None:
    """From here on, in this task and those that it starts, this is the request."""
    _VISIT.set(visit)


def current() -> Visit:
    """The request that is being answered; a new one outside of any."""
    return _VISIT.get() or Visit("")


def interface(path: str) -> str:
    """The interface to which a path belongs."""
    return INTERFACES.get(path.split("/", 2)[1] if path.startswith("/") else "", OTHER)

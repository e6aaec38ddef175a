"""Which calls of a recording wait for each other: those that run here, and those of one server."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from hierrouter.config import PoolConfig

HERE = ""
Lane = tuple[int, str]
"""The hop of some calls, and who answers them: one of the models of a server, or `HERE`."""


def servers_of(pool: PoolConfig) -> dict[str, str]:
    """Who answers for each model, by its name: `HERE`, or the name of a model that its server has.

    Models at one address are asked one after another, and so are models with the same weights,
    which share generations; one of them stands for all.
    """
    specs = (*pool.models, *pool.references)
    found = {spec.name: HERE for spec in specs}
    servers: list[tuple[set[Hashable], list[str]]] = []
    for spec in specs:
        if spec.endpoint is None:
            continue
        marks: set[Hashable] = {spec.endpoint.url, (spec.model, spec.revision)}
        names = [spec.name]
        for server in [server for server in servers if server[0] & marks]:
            servers.remove(server)
            marks, names = marks | server[0], server[1] + names
        servers.append((marks, names))
    for _, names in servers:
        found |= dict.fromkeys(names, names[0])
    return found


def whole_time(took: Mapping[Lane, float]) -> float:
    """Seconds until calls are made that take so many in each lane.

    At each hop what runs here comes first, then all servers side by side.
    """
    here = sum(seconds for (_, server), seconds in took.items() if server == HERE)
    slowest: dict[int, float] = defaultdict(float)
    for (hop, server), seconds in took.items():
        if server != HERE:
            slowest[hop] = max(slowest[hop], seconds)
    return here + sum(slowest.values())

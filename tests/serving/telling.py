"""Runs `hierrouter` as its command does; on SIGUSR1 its server prints the routes that it has."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from hierrouter.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator


def walk(routes: list[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "methods"):
            for method in route.methods:
                yield method, route.path
        elif hasattr(route, "original_router"):
            yield from walk(route.original_router.routes)
        else:
            raise SystemExit(f"a route of another kind: {route!r}")


def tell(*_: Any) -> None:
    app = sys.modules["kserve.model_server"].app
    print(json.dumps(sorted(set(walk(app.routes)))), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    main()

"""Which version of a registered router is the one to serve."""

from __future__ import annotations

from hierrouter.tracking.register import CHAMPION
from hierrouter.tracking.store import connected


def champion_of(name: str) -> str | None:
    """The version that is champion now.

    Args:
        name: the registered model.

    Returns:
        Its URI, `models:/NAME/VERSION`; none if no version is.

    Raises:
        UnreachableError: MLflow does not answer.
        HierRouterError: it refuses, or has no such model.
    """
    with connected() as client:
        version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else f"models:/{name}/{int(version)}"

"""Importing KServe, which takes the program's arguments for its own while it is imported."""

from __future__ import annotations

import contextlib
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def no_arguments() -> Iterator[None]:
    """Hides the program's arguments from what is imported in this block."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments


def require_kserve() -> None:
    """Makes sure that KServe can be imported.

    Raises:
        HierRouterError: it is not installed.
    """
    if find_spec("kserve") is None:
        raise HierRouterError("KServe is not installed; `pip install -e '.[serving]'` in the clone")

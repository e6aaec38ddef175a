"""How many threads torch and numpy's linear algebra run on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator


def present() -> int:
    """How many threads torch runs on now."""
    import torch

    return torch.get_num_threads()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Pins torch and numpy's linear algebra to so many threads.

    The router's network runs on one: networks this small run many times slower on several threads,
    above all on a machine that is busy; and sums come out the same whatever the number of cores.
    Language models that are called in between want all of them.
    """
    # Only what is loaded by now is pinned, and scikit-learn brings an OpenMP of its own. (Both take
    # seconds, which importing what judges and registers need not wait for.)
    import sklearn  # noqa: F401
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)

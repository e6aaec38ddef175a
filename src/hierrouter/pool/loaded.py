"""Models that stay loaded between calls for as long as memory lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from hierrouter.config import ModelSpec
    from hierrouter.pool.backend import Backend

BYTES = {"int8": 1, "bfloat16": 2, "float16": 2, "float32": 4}
"""Of one weight, by number format."""
BESIDE_WEIGHTS = 1.5e9
"""Bytes that keys, values and activations of a batch take."""


class LoadedBackends:
    """Opens backends when they are wanted first, and frees those not used for longest.

    Members of a pool that can share a loaded model share it.
    """

    def __init__(
        self,
        open_one: Callable[[ModelSpec], Backend],
        available: Callable[[str], float] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            open_one: opens the backend of a model; it loads weights at its first reply.
            available: bytes that are free on "cpu" or "cuda"; none: asks the machine.
        """
        self._open_one, self._available = open_one, available or available_bytes
        self._opened: dict[tuple[str, str], Backend] = {}
        self._loaded: dict[tuple[str, str], Backend] = {}

    def use(self, loaded_as: tuple[str, str], spec: ModelSpec) -> Backend:
        """The backend of a model, about to be asked.

        Args:
            loaded_as: what tells one loaded model from another.
            spec: the model.
        """
        if loaded_as not in self._opened:
            self._opened[loaded_as] = self._open_one(spec)
        backend = self._opened[loaded_as]
        if self._loaded.pop(loaded_as, None) is None:
            self._make_room(backend, spec)
        self._loaded[loaded_as] = backend  # the last is the one used last
        return backend

    def close(self) -> None:
        """Frees all of them."""
        for backend in self._opened.values():
            backend.close()
        self._opened.clear()
        self._loaded.clear()

    def _make_room(self, backend: Backend, spec: ModelSpec) -> None:
        needed = needed_bytes(backend.dtype, spec)
        mine = [key for key, other in self._loaded.items() if other.device == backend.device]
        while mine and needed > self._available(backend.device):
            self._loaded.pop(mine.pop(0)).close()


def needed_bytes(dtype: str, spec: ModelSpec) -> float:
    """Roughly what a model takes when it is loaded here; nothing if it runs elsewhere."""
    if dtype not in BYTES:
        return 0.0
    billions = spec.billion_parameters or 1000 * spec.rate
    return 1.2e9 * billions * BYTES[dtype] + BESIDE_WEIGHTS


def available_bytes(device: str) -> float:
    """Bytes that are free on "cpu" or "cuda"."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()  # what torch only keeps for later counts as free
        return float(torch.cuda.mem_get_info()[0])
    return float(psutil.virtual_memory().available)

"""The pool's models side by side, each opened once, members with the same weights sharing it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hierrouter.catalogue import READ_MORE
from hierrouter.errors import HierRouterError
from hierrouter.pool.live.member import Member
from hierrouter.pool.live.open import open_live
from hierrouter.pool.loaded import available_bytes, needed_bytes
from hierrouter.pool.open import identity
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.pool.live.backend import LiveBackend


class Fleet:
    """Members in the order of the pool."""

    def __init__(
        self,
        pool: PoolConfig,
        weights: Mapping[str, str],
        available: Callable[[str], float] = available_bytes,
        logprobs: bool = False,
    ) -> None:
        """Opens what answers for every model; loads nothing yet.

        Args:
            pool: the pool.
            weights: the weights digests that a router was trained with, by model.
            available: bytes that are free on a device.
            logprobs: whether the log-probabilities of replies are looked at.

        Raises:
            HierRouterError: a model cannot be had, or has other weights.
        """
        self._available = available
        shared: dict[tuple[str, str], tuple[LiveBackend, asyncio.Semaphore]] = {}
        places: dict[str, asyncio.Semaphore] = {}
        self.members: list[Member] = []
        """The models."""
        for spec in pool.models:
            key = _loaded_as(spec, weights[spec.name])
            if key not in shared:
                backend = open_live(spec, pool.prompts, weights[spec.name], logprobs)
                # One server has so many places, however many models it answers for.
                at = spec.endpoint.url if spec.endpoint is not None else "/".join(key)
                places.setdefault(at, asyncio.Semaphore(backend.concurrency))
                shared[key] = backend, places[at]
            self.members.append(Member(spec, *shared[key]))
        self._backends = [backend for backend, _ in shared.values()]
        self._loaded: list[LiveBackend] = []

    async def start(self) -> None:
        """Loads all of them.

        Raises:
            HierRouterError: one cannot be used, or they do not fit into memory together.
        """
        self._check_room()
        try:
            for member in self.members:
                if member.backend not in self._loaded:
                    await self._load(member)
        except BaseException:
            await self.close()
            raise

    def _check_room(self) -> None:
        """Makes sure, before any is loaded, that all models fit where they are to be."""
        needed: dict[str, dict[LiveBackend, tuple[str, float]]] = {}
        for member in self.members:
            if size := needed_bytes(member.backend.dtype, member.spec):
                on = needed.setdefault(member.backend.device, {})
                on.setdefault(member.backend, (member.spec.name, size))
        for device, models in needed.items():
            total, free = sum(size for _, size in models.values()), self._available(device)
            if total > free:
                each = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in models.values())
                raise HierRouterError(
                    f"the pool needs about {total / 1e9:.1f} GB on {device} ({each}) and "
                    f"{free / 1e9:.1f} GB are free: all its models are held at once; let servers "
                    "of their own answer for some (--endpoint NAME=URL), or take a larger machine"
                )

    async def _load(self, member: Member) -> None:
        backend = member.backend
        if needed_bytes(backend.dtype, member.spec):
            say(f"loading {member.spec.name} ({backend.name}, {backend.dtype}, {backend.device})")
        await backend.start()
        self._loaded.append(backend)

    async def ready(self, member: Member) -> None:
        """Makes sure that a model is loaded, the one not used for longest making room for it.

        For one caller at a time: after `start` there is nothing left to do.

        Raises:
            HierRouterError: it cannot be used.
        """
        if member.backend in self._loaded:
            if len(self._loaded) < len(self._backends):
                self._loaded.remove(member.backend)
                self._loaded.append(member.backend)
            return
        others = [each for each in self._loaded if each.device == member.backend.device]
        while others:
            needed, free = self._room(member)
            if needed <= free:
                break
            oldest = others.pop(0)
            self._loaded.remove(oldest)
            await oldest.close()
        await member.backend.start()
        self._loaded.append(member.backend)

    async def close(self) -> None:
        """Frees all of them."""
        for backend in self._loaded:
            await backend.close()
        self._loaded.clear()

    def _room(self, member: Member) -> tuple[float, float]:
        """Bytes that a model needs, and that are free where it would be."""
        backend = member.backend
        needed = needed_bytes(backend.dtype, member.spec)
        return needed, self._available(backend.device) if needed else 0.0


def _loaded_as(spec: ModelSpec, trained_with: str) -> tuple[str, str]:
    """What tells one loaded model from another."""
    if spec.endpoint is not None:
        # What a server runs cannot be looked at.
        return spec.endpoint.url, spec.name
    here = identity(spec, trained_with)
    weights: str = here["weights_digest"]
    if weights != trained_with:
        raise HierRouterError(
            f"{spec.model} has other weights here (from the {here['provenance']['source']}) than "
            f"the {spec.name} that this router was trained with; where the first are to be had is "
            f"said in {READ_MORE}, else record and train anew"
        )
    return weights, spec.dtype

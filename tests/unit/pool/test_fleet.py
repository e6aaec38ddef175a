"""The pool's models side by side: shared weights, memory that is short, room that is made."""

from __future__ import annotations

import asyncio

import pytest

from hierrouter.config import PoolConfig
from hierrouter.errors import HierRouterError
from hierrouter.pool.live.backend import Turn
from hierrouter.pool.live.fleet import Fleet
from hierrouter.pool.loaded import needed_bytes
from hierrouter.pool.open import identity


@pytest.fixture
def pool(tiny, save_tiny, tmp_path) -> PoolConfig:
    other = save_tiny(tmp_path, None)

    def model(name, folder, **more):
        local = {"backend": "transformers", "dtype": "float32", "billion_parameters": 1.0}
        return {"name": name, "model": str(folder), **local, **more}

    models = [
        model("a", tiny),
        model("a-steps", tiny, instruction="Think."),
        model("b", other, dtype="bfloat16"),
    ]
    return PoolConfig.model_validate({"models": models})


def weights_of(pool):
    return {spec.name: identity(spec)["weights_digest"] for spec in pool.models}


def test_members_with_the_same_weights_share_a_model_and_its_places(pool) -> None:
    fleet = Fleet(pool, weights_of(pool))
    a, steps, b = fleet.members
    assert a.backend is steps.backend
    assert a.backend is not b.backend
    assert a._places is steps._places


def test_what_does_not_fit_together_is_refused_before_any_is_loaded(pool) -> None:
    first, last = (needed_bytes(spec.dtype, spec) for spec in (pool.models[0], pool.models[2]))
    fleet = Fleet(pool, weights_of(pool), lambda device: first + last - 1)
    with pytest.raises(HierRouterError, match=r"on cpu \(a 6\.3, b 3\.9\) .*--endpoint"):
        asyncio.run(fleet.start())
    assert fleet._loaded == []


def test_other_weights_are_refused(pool) -> None:
    with pytest.raises(HierRouterError, match="the a that this router was trained with"):
        Fleet(pool, {**weights_of(pool), "a": "0" * 64})


def test_one_at_a_time_the_model_not_used_for_longest_makes_room(pool) -> None:
    async def run() -> None:
        fleet = Fleet(pool, weights_of(pool), lambda device: 0.0)
        a, steps, b = fleet.members
        for member in (a, b, steps, a):
            await fleet.ready(member)
            assert fleet._loaded == [member.backend]
            prompt = member.backend.prepare([Turn("user", "Hi")])
            *_, last = [piece async for piece in member.backend.stream(prompt, 3)]
            assert last.tokens_out == 3
        await fleet.close()
        assert fleet._loaded == []

    asyncio.run(run())

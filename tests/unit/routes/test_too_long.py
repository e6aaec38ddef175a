"""Questions that are too long for a model end recording before it begins."""

from __future__ import annotations

import pytest

from hierrouter.config import Prompts, TokenLimits
from hierrouter.errors import HierRouterError
from hierrouter.routes.collect import collect_routes


def test_an_overlong_question_is_found_before_the_first_reply(world, queries) -> None:
    """The last query in the order of recording is the long one."""
    longest = world.altered(queries, prompt="word " * 300)
    pool = world.pool(prompts=Prompts(max_context_tokens=200))
    with pytest.raises(HierRouterError, match=r"1 of 8 questions are too long for A: .*200"):
        world.record(pool, longest)
    assert not list(world.tree.glob("nodes/*.parquet"))


def test_a_reference_is_only_held_to_a_direct_answer(world, queries) -> None:
    """It never sees the instruction of an answer after an analysis, here a hundred words."""
    prompts = Prompts(max_context_tokens=200, solve="verify " * 100)
    reference = world.model("R", instruction="wait " * 100)
    world.record(world.pool(world.model("A"), references=[reference], prompts=prompts), queries)
    pool = world.pool(world.model("A", instruction="wait " * 100), prompts=prompts)
    with pytest.raises(HierRouterError, match="8 of 8 questions are too long for A:"):
        collect_routes(pool, queries, world.folder / "other")


def test_a_window_too_small_for_the_pools_prompts(world, queries, tiny_model) -> None:
    spec = world.model(
        "T", model=str(tiny_model), backend="transformers", scripted=None, limits=TokenLimits()
    )
    pool = world.pool(spec, prompts=Prompts(max_context_tokens=8000))
    with pytest.raises(HierRouterError, match=r"model T: .* window of 8192 tokens; lower pool\."):
        world.record(pool, queries)
    assert not list(world.tree.glob("nodes/*.parquet"))


def test_each_backend_of_one_model_is_asked_itself(world, queries, tiny_model) -> None:
    """What a scripted or remote member takes says nothing of the window of the local one."""
    same = {"model": str(tiny_model), "limits": TokenLimits()}
    local = world.model("T", backend="transformers", scripted=None, **same)
    pool = world.pool(world.model("S", **same), local, prompts=Prompts(max_context_tokens=8000))
    with pytest.raises(HierRouterError, match=r"model T: .* window of 8192 tokens; lower pool\."):
        world.record(pool, queries)

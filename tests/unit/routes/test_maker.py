"""Making nodes: what is looked up before calls are made, and what they are taken to cost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hierrouter.config import TokenLimits
from hierrouter.data.queries import read_queries
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.costs import call_cost
from hierrouter.routes.maker import Maker
from hierrouter.routes.store import NodeStore
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lookups(monkeypatch) -> list[tuple[str, ...]]:
    """The routes that were looked up for all queries."""
    seen: list[tuple[str, ...]] = []
    absent = NodeStore.absent

    def noted(self, query_ids, models, role):
        seen.append(tuple(models))
        return absent(self, query_ids, models, role)

    monkeypatch.setattr(NodeStore, "absent", noted)
    return seen


def test_whether_a_served_model_has_answered_is_looked_up_once_for_each_commit(
    world, queries, endpoint, lookups
) -> None:
    def member(name):
        at = {"url": endpoint.url, "retries": 0}
        return world.model(name, backend="openai", scripted=None, endpoint=at)

    a, b = member("A"), member("B")
    config = world.pool(a, b)
    tree = RouteTree.create_or_open(world.tree, config, read_queries(queries), {})
    maker = Maker(tree, config)
    maker.open(a)
    assert lookups == []  # an empty tree holds nothing of anybody

    world.tree = world.folder / "recorded"
    world.record(world.pool(a), queries)
    tree = RouteTree.create_or_open(world.tree, config, read_queries(queries), {})
    maker = Maker(tree, config)
    lookups.clear()

    def looked_up(spec) -> int:
        before = len(lookups)
        maker.open(spec)
        return len(lookups) - before

    assert (looked_up(a), looked_up(a)) == (1, 0)
    assert looked_up(b) > 0
    assert looked_up(b) == 0
    node = next(iter(tree.nodes.values()))
    maker.commits.add("more", [replace(node, models=("B",), role="solve", key="of B")])
    assert (looked_up(b), looked_up(b), looked_up(a)) == (2, 0, 0)  # as analyst, then as solver


def test_what_a_tokenizer_puts_around_a_prompt_is_within_the_budget(
    world, queries, tiny_model: Path
) -> None:
    """Without a chat template: every reply runs to its limit, and every prompt has one token more.

    A budget that would do without those tokens does not do.
    """
    folder = plain(tiny_model, world.folder / "plain")
    limits = TokenLimits(solve=2, analyze=2)
    more = {"backend": "transformers", "dtype": "float32", "scripted": None, "limits": limits}
    config = world.pool(world.model("A", model=str(folder), **more), hops=1, queries_per_unit=8)

    def recorded(name: str, most: float | None) -> tuple[int, float]:
        collect_routes(config, queries, world.folder / name, max_dollars=most)
        nodes = RouteTree(world.folder / name).nodes.values()
        assert {node.tokens_out for node in nodes} == {2}
        return len(nodes), sum(call_cost(0.001, node.tokens_in, 2) for node in nodes)

    count, cost = recorded("all", None)
    assert count == 8
    budget = cost - call_cost(0.001, count, 0) / 2
    count, cost = recorded("most", budget)
    assert count == 7
    assert cost <= budget


def plain(model: Path, folder: Path) -> Path:
    """A model without a chat template, whose tokenizer begins each prompt with a token."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 0)]
    )
    tokenizer.save_pretrained(folder)
    return folder

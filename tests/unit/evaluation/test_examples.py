"""Which queries the report shows, with which texts, and which it never shows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hierrouter.configfile import load_config
from hierrouter.data.sample import sample_queries
from hierrouter.evaluation.policies.arena import Played
from hierrouter.evaluation.report.examples import LONGEST, cut, examples_of
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.tree import RouteTree

SCRIPTED = Path(__file__).parents[3] / "configs" / "scripted.yaml"
ROUTES = ("small", "medium", "small:medium", "small!medium")
SMALL, MEDIUM, ANALYSED, CHECKED = range(4)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    tasks = ["data.tasks=[arithmetic, history, math]", "data.withheld=[history]"]
    config = load_config(SCRIPTED, [*tasks, "data.queries_per_task=10"])
    queries = sample_queries(config.data, folder / "queries")
    return collect_routes(config.pool, queries, folder / "tree")


class Test(SimpleNamespace):
    """The part of the outcomes that examples are taken from."""

    __test__ = False

    def __len__(self):
        return len(self.query_ids)


def played(name, quality, cost, taken):
    return (Played(name, np.array(quality, float), np.array(cost, float), ROUTES, np.array(taken)),)


def some(tree, task, count):
    return [query.query_id for query in RouteTree(tree).queries if query.task == task][:count]


def test_a_win_a_loss_and_a_cheap_save_are_found_and_counted(tree):
    ids = some(tree, "arithmetic", 6)
    test = Test(query_ids=ids)
    plays = {
        "router": played(
            "router", [1, 0.8, 0, 1, 1, 0], [1, 1, 1, 0.4, 0.2, 0.1], [2, 0, 3, 0, 0, 0]
        ),
        "best_single": played("best_single", [0, 0, 1, 1, 1, 0], [1] * 6, [1] * 6),
    }
    found = examples_of(tree, test, plays, 2.0)
    assert [(each.kind, each.query_id, each.count, each.of) for each in found] == [
        ("win", ids[0], 2, 6),
        ("loss", ids[2], 1, 6),
        ("cheap save", ids[4], 2, 6),  # two wrong answers save nothing
    ]
    nodes = RouteTree(tree).nodes
    queries = {query.query_id: query for query in RouteTree(tree).queries}
    assert found[0].question == queries[ids[0]].prompt
    router, rival = found[0].sides
    assert (router.route, router.quality, router.relative_cost) == ("small:medium", 1, 0.5)
    assert [(call.model, call.does) for call in router.calls] == [
        ("small", "analyses"),
        ("medium", "answers"),
    ]
    assert router.calls[0].reply == nodes[NodeKey(ids[0], ("small",), "analyze")].reply
    assert router.calls[1].reply == nodes[NodeKey(ids[0], ("small", "medium"), "solve")].reply
    assert [call.model for call in rival.calls] == ["medium"]
    # Escalating begins anew: the second answer is a direct one.
    checked = found[1].sides[0]
    assert [(call.model, call.does) for call in checked.calls] == [
        ("small", "is checked"),
        ("medium", "answers"),
    ]
    assert checked.calls[1].reply == nodes[NodeKey(ids[2], ("medium",), "solve")].reply


@pytest.mark.parametrize("task", ["history", "math"])
def test_texts_that_may_not_be_passed_on_are_never_shown(tree, task):
    # The tree withholds one; the other never is, whatever the tree says.
    ids = [*some(tree, task, 3), *some(tree, "arithmetic", 1)]
    plays = {
        # The largest wins are of the task that is hidden.
        "router": played("router", [1, 1, 1, 0.5], [1] * 4, [0] * 4),
        "best_single": played("best_single", [0] * 4, [1] * 4, [1] * 4),
    }
    (found,) = examples_of(tree, Test(query_ids=ids), plays, 1.0)
    assert found.query_id == ids[3]
    assert found.count == 4  # they are counted all the same


def test_a_query_without_its_replies_is_passed_over(tree):
    ids = some(tree, "arithmetic", 2)
    test = Test(query_ids=["arithmetic/none", *ids])
    plays = {
        "router": played("router", [1, 1, 1], [1] * 3, [0, 0, 0]),
        "best_single": (
            Played("best_single", np.zeros(3), np.ones(3), ("gone", "medium"), np.array([0, 0, 1])),
        ),
    }
    (found,) = examples_of(tree, test, plays, 1.0)
    assert found.query_id == ids[1]


def test_long_texts_lose_their_middle():
    assert cut("a" * LONGEST) == "a" * LONGEST
    text = cut("a" * 5_000 + "z" * 5_000)
    assert len(text) <= LONGEST
    assert text.startswith("aaa")
    assert text.endswith("zzz")
    assert "8,800 characters left out" in text

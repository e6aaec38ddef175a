"""`hierrouter ask`: what is told of a route with several answers, and what may be set of it."""

from __future__ import annotations

import re

import pytest
from tests.routers import arbitrary_router
from tests.unit.cli.conftest import CONFIG

from hierrouter.configfile import load_config

QUESTION = "Topic: history. Marker: jade. What is 12 plus 30?"


@pytest.fixture
def ask_until(hierrouter, tmp_path):
    """Asks arbitrary routers, one after the other, until one goes this way."""

    def ask(path: str, *arguments: str, moves: str = "cascade"):
        pool = load_config(CONFIG, []).pool
        for seed in range(100):
            arbitrary_router(pool, moves, seed).save(tmp_path / "router", [], "card")
            asked = hierrouter("ask", QUESTION, "--router", tmp_path / "router", *arguments)
            if re.search(rf"^path {path}, ", asked.err, re.M):
                return asked
        raise AssertionError(f"no router takes {path}")

    return ask


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("large!medium=large", [("medium", "48"), ("large", "42")]),
        ("large!small", [("large", "42"), ("small", "51")]),
    ],
)
def test_replies_of_a_cascade_end_with_the_one_that_is_returned(ask_until, path, told) -> None:
    out = ask_until(path, "--replies").out
    assert re.findall(r"^--- (\w+), solve$", out, re.M) == [model for model, _ in told]
    assert re.findall(r"Answer: (\d+)", out) == [answer for _, answer in told]
    assert out.endswith(ask_until(path).out)

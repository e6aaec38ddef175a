"""`hierrouter ask`: what is told of a route with several answers, and what may be set of it."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.routers import arbitrary_router
from tests.unit.cli.conftest import CONFIG

from hierrouter.configfile import load_config
from hierrouter.serving.vectors import Vectors

QUESTION = "Topic: history. Marker: jade. What is 12 plus 30?"


@pytest.fixture
def ask(hierrouter, tmp_path):
    """Asks an arbitrary router."""

    def asked(seed: int, *arguments: str, moves: str = "cascade"):
        router = arbitrary_router(load_config(CONFIG, []).pool, moves, seed)
        router.save(tmp_path / "router", [], "card")
        return hierrouter("ask", QUESTION, "--router", tmp_path / "router", *arguments)

    return asked


@pytest.fixture
def ask_until(ask):
    """Asks arbitrary routers, one after the other, until one goes this way."""

    def asked(path: str, *arguments: str):
        for seed in range(100):
            found = ask(seed, *arguments)
            if re.search(rf"^path {path}, ", found.err, re.M):
                return found
        raise AssertionError(f"no router takes {path}")

    return asked


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


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("--max-hops", "1"), r"\w+"),
        (("--models", "small"), r"small(:small)?"),
        (("--models", "small, medium", "--max-hops", "1"), "small|medium"),
        (("--max-cost", "0.00012"), "small"),
    ],
    ids=str,
)
def test_limits_are_heeded_as_by_the_server(ask, arguments, path: str) -> None:
    for seed in (3, 5):  # large is called in both, and something before or after it
        assert re.search(r"^path .*large.*[:!]|^path .*[:!].*large", ask(seed).err, re.M)
        asked = ask(seed, *arguments)
        assert asked.code == 0
        assert re.search(rf"^path ({path}), ", asked.err, re.M)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--max-cost", "0"), 2, "--max-cost has to be greater than 0, not 0.0"),
        (("--max-cost", "inf"), 2, "--max-cost has to be a number, not inf"),
        (("--max-cost", "1e-9"), 1, "--max-cost is 1e-09 dollars; the cheapest route may cost "),
        (("--max-hops", "0"), 2, "--max-hops has to be at least 1, not 0"),
        (("--max-hops", "3"), 2, "--max-hops is 3; this router makes at most 2"),
        (("--models", "tiny"), 2, "--models names tiny; the pool has small, medium, large"),
        (("--models", ","), 2, "--models is empty; give at least one"),
        (("--deadline-ms", "0"), 2, "--deadline-ms has to be at least 1, not 0"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_kept_are_named_as_options(ask, arguments, code, said) -> None:
    asked = ask(3, *arguments)
    assert asked.code == code
    assert asked.line.startswith(f"error: {said}")


def test_an_answer_that_is_late_is_none(ask, monkeypatch) -> None:
    async def never(*_) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Vectors, "of", never)
    asked = ask(3, "--deadline-ms", "1")
    assert (asked.code, asked.out) == (1, "")
    assert "no whole answer within the 0.001 s of --deadline-ms; allow more" in asked.line

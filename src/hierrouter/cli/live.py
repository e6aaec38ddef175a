"""Fresh benchmark queries answered live by a router and its pool, hop by hop on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from hierrouter.cli.hops import play_on_screen
from hierrouter.config import DataConfig
from hierrouter.data.sample import choose
from hierrouter.data.sources import load_questions
from hierrouter.errors import HierRouterError
from hierrouter.interrupts import run_live
from hierrouter.learning.router import Router
from hierrouter.progress import say
from hierrouter.quality.score import score_replies
from hierrouter.routes.scores import answer_kind, expected_of
from hierrouter.routes.tree import RouteTree
from hierrouter.serving.calls import Question
from hierrouter.serving.knobs import Knobs, terms_of
from hierrouter.serving.open import open_player

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierrouter.data.queries import Query
    from hierrouter.serving.player import Player

SHOWN = 300
"""Characters of a question and of an answer's end that are printed."""


def answer_fresh(tree: Path, router: Path, alpha: float, count: int) -> None:
    """Answers queries that no model of the tree was asked, and says which answers are right.

    Args:
        tree: the recorded tree that the router was trained on.
        router: the router's folder.
        alpha: quality given up for one cost unit saved.
        count: how many queries, spread over the tasks.
    """
    queries = fresh_queries(tree, count)
    if not queries:
        say("no fresh queries: the tree's models were asked every question that its tasks have")
        return
    # Made a moment ago, from the user's own config: it may name any key.
    player = open_player(Router.load(router), keys=None)
    run_live(_answer(queries, player, alpha))


async def _answer(queries: Sequence[Query], player: Player, alpha: float) -> None:
    info = player.router.info
    terms = terms_of(Knobs(), alpha, info)
    right, spent = 0.0, 0.0
    try:
        for number, query in enumerate(queries, start=1):
            say(f"\n[{number} of {len(queries)}] {query.task}: {_short(query.prompt)}")
            question = Question(query.prompt, kind=answer_kind(query), task=query.task)
            route = await play_on_screen(player, question, terms)
            spent += route.cost_usd
            (scored,) = score_replies([(route.answer, expected_of(query))])
            right += scored.accuracy
            share = scored.accuracy
            verdict = "wrong" if share == 0 else "right" if share == 1 else f"{share:.0%} right"
            by_tests = answer_kind(query) == "unit_tests"
            given = "to pass its tests" if by_tests else query.reference[0]
            say(f"answer: {_short(scored.answer or route.answer)}")
            say(f"{verdict} (wanted: {_short(given)})")
    finally:
        await player.close()
    mean = spent / len(queries) / info.cost_unit_usd
    say(
        f"\n{right:g} of {len(queries)} right, mean cost {mean:.2f} cost units; too few to judge "
        "by: the table above is on recorded replies"
    )


def fresh_queries(tree: Path, count: int) -> list[Query]:
    """The next queries of each task, in the order in which a growing sample takes them."""
    opened = RouteTree(tree)
    try:
        config = DataConfig.model_validate(opened.info["data"]["config"])
    except (KeyError, TypeError, ValidationError):
        raise HierRouterError(
            f"{tree} does not say how its queries were sampled, so there are no fresh ones to ask; "
            "leave out --live"
        ) from None
    per_task = -(-count // len(config.tasks))
    larger = config.model_copy(update={"queries_per_task": config.queries_per_task + per_task})
    known = {query.query_id for query in opened.queries}
    queries, _ = choose(larger, load_questions(larger, opened.info["data"].get("tasks", {})))
    return [query for query in queries if query.query_id not in known][:count]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[:SHOWN] + " …"

"""One question answered on the screen, with the path it took."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

from rich.console import Console

from hierrouter import hub
from hierrouter.cli.hops import say_hop
from hierrouter.errors import ConfigError
from hierrouter.learning.answer import Answerer
from hierrouter.learning.router import Router
from hierrouter.progress import say


def ask_once(question: str, where: str, alpha: float, show_replies: bool) -> None:
    """Answers `question`; the answer goes to standard output, the path to standard error.

    Args:
        question: what is asked.
        where: the folder of a router, or `models:/NAME@ALIAS` in MLflow.
        alpha: quality given up for one cost unit saved.
        show_replies: whether earlier hops' replies are printed too.

    Raises:
        ConfigError: the question is empty, or alpha is no finite number.
    """
    if not math.isfinite(alpha):
        raise ConfigError(f"--alpha is {alpha}; give a number from 0")
    if not question.strip():
        raise ConfigError("the question is empty; put it in quotes after `ask`")
    router = Router.load(_folder(where))
    low, high = router.info.alpha_range
    if not low <= alpha <= high:
        say(
            f"note: this router was trained for alpha {low:g} to {high:g}; {alpha:g} is out of that"
        )
    answerer = Answerer(router)
    # A reply is printed as it is: neither markup nor :names: of emoji in it mean anything.
    out = Console(highlight=False, markup=False, emoji=False)
    path, spent, started = [], 0.0, time.monotonic()
    try:
        for hop in answerer.answer(question, alpha):
            took, started = time.monotonic() - started, time.monotonic()
            spent += hop.cost_usd
            path.append(hop.model)
            say_hop(hop, took)
            if show_replies and hop.role == "analyze":
                out.print(hop.completion.reply, style="dim", soft_wrap=True)
            answer = hop.completion
    finally:
        answerer.close()
    out.print(answer.reply.strip(), soft_wrap=True)
    cut = ", cut off at its token limit" if answer.finish_reason == "length" else ""
    price = f"${spent:.6f} ({spent / router.info.cost_unit_usd:.2f} cost units)"
    say(f"path {':'.join(path)}, cost {price}, alpha {alpha:g}{cut}")


def _folder(where: str) -> Path:
    """The router's folder, fetched from MLflow where it is named by a URI."""
    if not where.startswith("models:/"):
        return Path(where)
    # MLflow takes a second to import, which a folder does not need.
    from hierrouter.tracking.resolve import fetch_router

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", where.removeprefix("models:/"))
    return fetch_router(where, hub.home() / "routers" / name)

"""One question answered on the screen, with the path it took."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hierrouter import hub
from hierrouter.cli.hops import play_on_screen
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.interrupts import run_live
from hierrouter.learning.router import Router
from hierrouter.progress import say
from hierrouter.serving.calls import Question
from hierrouter.serving.events import LateError, NotTakenError, TooDearError
from hierrouter.serving.knobs import (
    KnobError,
    Knobs,
    alpha_note,
    parse_knobs,
    require_alpha,
    terms_of,
)
from hierrouter.serving.open import open_player

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hierrouter.learning.router import RouterInfo
    from hierrouter.serving.events import Hop, Route
    from hierrouter.serving.knobs import Terms
    from hierrouter.serving.player import Player


def ask_once(
    question: str, where: str, settings: Mapping[str, Any], keys: Collection[str] = ()
) -> None:
    """Answers `question`; the answer goes to standard output, the path to standard error.

    Args:
        question: what is asked.
        where: the folder of a router, or `models:/NAME@ALIAS` in MLflow.
        settings: how it is routed, as a request's `hierrouter` has it; alpha is among it.
        keys: variables whose keys may be sent to servers that the router names.

    Raises:
        ConfigError: the question is empty, or a setting cannot be followed.
        HierRouterError: there is no answer.
    """
    require_alpha(settings["alpha"])
    if not question.strip():
        raise ConfigError("the question is empty; put it in quotes after `ask`")
    router = Router.load(router_folder(where))
    terms = _terms(settings, router.info)
    if note := alpha_note(router.info, settings["alpha"]):
        say(note)
    # Before there is an event loop, which would not be told to stop while a model is read.
    player = open_player(router, keys=keys)
    try:
        route = run_live(_play(player, question, terms))
    except (TooDearError, NotTakenError, LateError) as error:
        raise HierRouterError(_in_options(error)) from error
    # A reply is printed as it is: neither markup nor :names: of emoji in it mean anything.
    out = Console(highlight=False, markup=False, emoji=False)
    if terms.replies:
        others = list(route.hops)
        # Not the last one where another answer was asked for and the first is returned.
        returned = others.pop(-1 if route.returned is None else route.returned)
        for hop in others:
            out.print(f"{_heading(hop)}\n{hop.completion.reply}\n", style="dim", soft_wrap=True)
        out.print(_heading(returned), style="dim", soft_wrap=True)
    out.print(route.answer, soft_wrap=True)
    cut = ", cut off at its token limit" if route.finish_reason == "length" else ""
    relative = route.cost_usd / router.info.cost_unit_usd
    price = f"${route.cost_usd:.6f} ({relative:.2f} cost units)"
    say(f"path {route.path}, cost {price}, alpha {route.alpha:g}{cut}")


def _heading(hop: Hop) -> str:
    """What stands before a reply where there are several."""
    return f"--- {hop.decision.model}, {hop.decision.role}"


def _terms(settings: Mapping[str, Any], info: RouterInfo) -> Terms:
    try:
        return terms_of(parse_knobs(settings), settings["alpha"], info)
    except KnobError as error:
        raise ConfigError(_in_options(error)) from error


def _in_options(error: HierRouterError) -> str:
    """What it says, with a request's settings called as the options here are."""
    return re.sub(
        rf"\bhierrouter\.({'|'.join(Knobs.model_fields)})\b",
        lambda found: "--" + found[1].replace("_", "-"),
        str(error),
    )


async def _play(player: Player, question: str, terms: Terms) -> Route:
    try:
        return await play_on_screen(player, Question(question), terms)
    finally:
        await player.close()


def router_folder(where: str) -> Path:
    """The router's folder, fetched from MLflow where it is named by a URI.

    Raises:
        ConfigError: it begins like such a URI, and is none.
    """
    if not where.startswith("models:"):
        return Path(where)
    if not where.startswith("models:/"):
        raise ConfigError(f"--router {where}: name models:/NAME@ALIAS or models:/NAME/VERSION")
    # MLflow takes a second to import, which a folder does not need.
    from hierrouter.tracking.resolve import fetch_router

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", where.removeprefix("models:/"))
    return fetch_router(where, hub.home() / "routers" / name)

"""All stages in order, each reusing what is there: `hierrouter run`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hierrouter.cli.notice import announce
from hierrouter.data.sample import sample_queries
from hierrouter.evaluation.evaluate import METRICS, REPORT, evaluate_router, is_evaluated
from hierrouter.evaluation.table import print_table
from hierrouter.files import claim_folder, read_json, write_json, write_text
from hierrouter.learning.card import model_card
from hierrouter.learning.router import Router
from hierrouter.learning.train import is_trained, train_router
from hierrouter.progress import duration, say
from hierrouter.routes.collect import collect_routes
from hierrouter.tracking.register import register_router
from hierrouter.tracking.store import program, ui_command
from hierrouter.tracking.values import evaluation_table

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import Config


def run_all(config: Config, out: Path) -> None:
    """Samples, collects, trains, evaluates and registers under one folder.

    What is finished and still follows from the config is kept; the rest is made.

    Args:
        config: the experiment.
        out: gets `queries/`, `tree/`, `router/`, `evaluation/`, and `run.json` (the config).

    Raises:
        ConfigError: `out` is not ours.
    """
    claim_folder(out, "run.json")
    described = config.model_dump(mode="json")
    if not (out / "run.json").exists():
        write_json(out / "run.json", described)
    started = time.monotonic()
    tree, router, evaluation = out / "tree", out / "router", out / "evaluation"
    announce(config, out)
    _stage(1, "sample queries")
    queries = sample_queries(config.data, out / "queries")
    _stage(2, "record the route tree")
    collect_routes(config.pool, queries, tree)
    # Only now: a config that the recorded tree refuses must not pass for the one it came from.
    write_json(out / "run.json", described)
    _stage(3, "train the router")
    if is_trained(config.training, tree, router):
        say(f"router: the one in {router} is kept")
    else:
        train_router(config.training, tree, router)
    _stage(4, "evaluate")
    if is_evaluated(config.evaluation, tree, router, evaluation):
        say(f"evaluation: the one in {evaluation} is kept")
    else:
        evaluate_router(config.evaluation, tree, router, evaluation)
    metrics = read_json(evaluation / METRICS)
    card = model_card(Router.load(router).info, evaluation_table(metrics))
    if card != (router / "README.md").read_text(encoding="utf-8"):
        write_text(router / "README.md", card)
    _stage(5, "register in MLflow")
    register_router(config.evaluation, router, evaluation, tree)
    print_table(metrics)
    say(f"finished in {duration(time.monotonic() - started)}")
    say(f"report      {evaluation / REPORT}")
    say(f"MLflow UI   {ui_command()}")
    asking = f'{program("hierrouter")} ask "What is 17 plus 25?" --router {router}'
    say(f"ask it      {asking}")


def _stage(number: int, title: str) -> None:
    say(f"[{number}/5] {title}")

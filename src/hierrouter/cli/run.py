"""All stages in order, each reusing what is there: `hierrouter run`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hierrouter.cli.live import answer_fresh
from hierrouter.cli.notice import announce, announce_live
from hierrouter.data.sample import sample_queries
from hierrouter.errors import RefusedError
from hierrouter.evaluation.evaluate import METRICS, REPORT, evaluate_router, is_evaluated
from hierrouter.evaluation.forewarn import forewarn
from hierrouter.evaluation.table import print_table
from hierrouter.files import claim_folder, read_json, write_json, write_text
from hierrouter.learning.card import model_card
from hierrouter.learning.router import Router
from hierrouter.learning.train import is_trained, train_router
from hierrouter.progress import duration, say
from hierrouter.routes.calls import Part
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.tree import pool_of
from hierrouter.tracking.register import register_router
from hierrouter.tracking.store import program, ui_command
from hierrouter.tracking.values import evaluation_table

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import Config


def run_all(config: Config, out: Path, recorded: Path | None = None, live: int = 0) -> None:
    """Samples, collects, trains, evaluates and registers under one folder.

    What is finished and still follows from the config is kept; the rest is made.

    Args:
        config: the experiment.
        out: gets `queries/`, `tree/`, `router/`, `evaluation/`, and `run.json` (the config).
        recorded: a tree to train on as it is. Nothing is sampled or recorded then (but with
            `training.fill`, what episodes visit), and the config's data are not used: the tree has
            its own.
        live: how many fresh queries the router answers with its pool at the end.

    Raises:
        ConfigError: `out` is not ours, or `recorded` is the tree of other models.
    """
    if recorded is not None:
        config = config.model_copy(update={"pool": pool_of(recorded, config.pool)})
    claim_folder(out, "run.json")
    described = config.model_dump(mode="json")
    if not (out / "run.json").exists():
        write_json(out / "run.json", described)
    started = time.monotonic()
    tree, router, evaluation = recorded or out / "tree", out / "router", out / "evaluation"
    titles = ["train the router", "evaluate", "register in MLflow"]
    if recorded is None:
        titles = ["sample queries", "record the route tree", *titles]
    if live:
        titles.append("answer fresh queries live")
    steps = (f"[{n}/{len(titles)}] {title}" for n, title in enumerate(titles, start=1))
    if recorded is not None and live:
        announce_live(recorded)
    if recorded is None:
        announce(config, out)
        say(next(steps))
        queries = sample_queries(config.data, out / "queries")
        say(next(steps))
        # What training fills in by itself is not recorded in advance.
        try:
            collect_routes(config.pool, queries, tree, Part(direct=config.training.fill))
        except RefusedError as error:
            say(str(error))
    # Only now: a config that the recorded tree refuses must not pass for the one it came from.
    write_json(out / "run.json", described)
    say(next(steps))
    if is_trained(config.training, tree, router):
        say(f"router: the one in {router} is kept")
    else:
        look = forewarn(config.training, config.evaluation)
        train_router(config.training, tree, router, look=look, pool=config.pool)
    say(next(steps))
    if is_evaluated(config.evaluation, tree, router, evaluation):
        say(f"evaluation: the one in {evaluation} is kept")
    else:
        evaluate_router(config.evaluation, tree, router, evaluation, pool=config.pool)
    metrics = read_json(evaluation / METRICS)
    card = model_card(Router.load(router).info, evaluation_table(metrics))
    if card != (router / "README.md").read_text(encoding="utf-8"):
        write_text(router / "README.md", card)
    say(next(steps))
    register_router(config.evaluation, router, evaluation, tree)
    print_table(metrics)
    say(f"finished in {duration(time.monotonic() - started)}")
    if live:
        say(next(steps))
        answer_fresh(tree, router, config.evaluation.alpha, live)
    say(f"report      {evaluation / REPORT}")
    say(f"MLflow UI   {ui_command()}")
    if any(spec.backend == "imported" for spec in config.pool.models):
        return  # there is nothing that could be asked
    # Scripted models understand questions of their own form only.
    scripted = all(spec.backend == "scripted" for spec in config.pool.models)
    question = ("Topic: sums. Marker: jade. " if scripted else "") + "What is 17 plus 25?"
    asking = f'{program("hierrouter")} ask "{question}" --router {router}'
    say(f"ask it      {asking}")

"""Judging the routers of all seeds, and keeping the one best on validation, as a stage."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from hierrouter.config import EvaluationConfig
from hierrouter.configfile import load_part
from hierrouter.evaluation.evaluate import METRICS, REPORT, evaluate_router
from hierrouter.files import read_json
from hierrouter.progress import say
from hierrouter.stages.train import best_of, routers_in
from hierrouter.tracking.values import evaluation_table, headline_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SEEDS = "seeds"
"""Folder of an evaluation that holds those of the single seeds."""


def evaluate_seeds(
    evaluation: str,
    tree: Path,
    routers: Iterable[Path],
    router: Path,
    out: Path,
    report: Path,
    table: Path,
) -> dict[str, float]:
    """Judges every seed's router on the test queries; passes on the one best on validation.

    Args:
        evaluation: the evaluation part of a config, as YAML or JSON.
        tree: the route tree.
        routers: folders that `train_seeds` filled.
        router: gets a copy of the chosen router.
        out: gets the chosen router's evaluation, and below `seeds` that of each seed.
        report: the file for the chosen router's report.
        table: the file for its table, in Markdown.

    Returns:
        The means at the headline alpha, by name, as MLflow gets them.

    Raises:
        ConfigError: `evaluation` is wrong.
        HierRouterError: routers and tree do not fit, or there are no test queries.
    """
    config = load_part(EvaluationConfig, evaluation, "evaluation")
    trained = routers_in(routers)
    for each in trained:
        evaluate_router(config, tree, each.folder, out / SEEDS / f"seed-{each.seed}")
    best = best_of(trained)
    say(f"of {len(trained)} seeds {best.seed} is best on validation")
    shutil.copytree(best.folder, router, dirs_exist_ok=True)
    # With the routers that were trained to compare with: registering reads their learning curves.
    shutil.copytree(out / SEEDS / f"seed-{best.seed}", out, dirs_exist_ok=True)
    shutil.copyfile(out / REPORT, report)
    metrics = read_json(out / METRICS)
    heading = f"# Seed {best.seed}, best of {len(trained)} on validation\n\n"
    table.write_text(heading + evaluation_table(metrics) + "\n", encoding="utf-8")
    return headline_metrics(metrics)

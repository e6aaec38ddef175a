"""What each part of what the router sees is worth: the regression with and without it.

    python benchmarks/feature_ablation.py [--tree studies/small_pool] [--moves direct]

Routers are trained on four of the tree's folds and judged on the fifth, in turn. Left out, one at
a time: the chances of the tasks, closeness to typical queries, and, where the moves have them, the
context after an analysis and what answers in hand show. Put in, though no router has it: features
of the query's text (length, digits, code, choices; texts that may not be passed on get the mean),
the newest reply by itself (view `two_part`), and both views side by side. Printed for each: the
reward averaged over the alpha grid, and by how much it differs from the default's, with the 95%
interval of a cross-fitted study (paired bootstrap over queries).
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from _report import print_header

from hierrouter.config import ALPHA_GRID, TrainingConfig
from hierrouter.evaluation.statistics.crossed import CROSS_FITTED, Crossed, compare, difference
from hierrouter.evaluation.statistics.intervals import Bootstrap
from hierrouter.learning.features import Features
from hierrouter.learning.projection import Projection
from hierrouter.learning.train import fit
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.outcomes import Moves

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Outcomes

FOLDS = 5
SMALL = 1e-3
"""By how much features of the text are shrunk beside the embedding, so that no cosine sees them;
the projection blows them up again."""


def text_features(tree: Path, query_ids: tuple[str, ...]) -> NDArray[np.float32]:
    """N x 4 numbers of the queries' texts, each of mean 0 and deviation 1."""
    table = pq.read_table(tree / "queries.parquet", columns=["query_id", "prompt"])
    texts = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    rows = [
        (
            np.log(1 + len(text)),
            sum(each.isdigit() for each in text) / max(len(text), 1),
            len(re.findall(r"\bdef\b|assert|[{}();=]|```", text)) / max(len(text), 1),
            len(re.findall(r"(?m)^\s*\(?[A-J][).:]", text)),
        )
        if text
        else (np.nan,) * 4
        for text in (texts[name] for name in query_ids)
    ]
    found = np.array(rows, dtype=np.float64)
    spread = np.nanstd(found, axis=0)
    scaled = (found - np.nanmean(found, axis=0)) / np.where(spread > 0, spread, 1)
    return np.asarray(np.nan_to_num(scaled), dtype=np.float32)


def with_text(outcomes: Outcomes, texts: NDArray[np.float32]) -> Outcomes:
    """The same with the texts' features behind every embedding."""
    beside = np.broadcast_to(texts[:, None], (*outcomes.embeddings.shape[:2], texts.shape[1]))
    return replace(outcomes, embeddings=np.concatenate([outcomes.embeddings, SMALL * beside], 2))


def projected_past(texts: int) -> AbstractContextManager[object]:
    """Lets the last dimensions of an embedding reach the policy as they are, not as components."""
    whole = Projection.fit

    def fitted(embeddings: NDArray[np.float32], width: int | None) -> Projection:
        part = whole(embeddings[:, :-texts], width)
        kept, dimensions = part.components.shape
        components = np.zeros((kept + texts, dimensions + texts), np.float32)
        components[:kept, :dimensions] = part.components
        components[kept:, dimensions:] = np.eye(texts) * part.scale / SMALL
        mean = np.concatenate([part.mean, np.zeros(texts, np.float32)])
        return Projection(mean, components, part.scale)

    return patch.object(Projection, "fit", fitted)


def unseen(block: Callable[[Features], slice]) -> AbstractContextManager[object]:
    """Hides a block of u(s)."""
    whole = Features.__call__

    def state(self: Features, *given: Any) -> NDArray[np.float32]:
        seen = whole(self, *given)
        seen[..., block(self)] = 0
        return seen

    return patch.object(Features, "__call__", state)


def held_rewards(
    outcomes: Outcomes, info: dict[str, Any], config: TrainingConfig, *, one_task: bool = False
) -> NDArray[np.float64]:
    """N rewards, averaged over the alpha grid, each query's by a router trained on other folds."""
    held = np.zeros(len(outcomes))
    told = np.full(len(outcomes), "one") if one_task else outcomes.tasks
    for fold in range(FOLDS):
        part = replace(outcomes, train=outcomes.folds % FOLDS != fold, tasks=told)
        router, _ = fit(config, part, info, label=f"fold {fold}")
        left = np.flatnonzero(~part.train)
        rest = part.select(left)
        routes = rest.every_route(config.moves)
        rows = np.arange(len(rest))
        each = [
            routes.reward(alpha, router.info.cost_unit_usd)[rows, router.follow(rest, alpha)]
            for alpha in ALPHA_GRID
        ]
        held[left] = np.mean(each, axis=0)
    return held


def main() -> None:
    """Trains, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=Path("studies/small_pool"))
    parser.add_argument("--moves", default="direct", choices=get_args(Moves))
    options = parser.parse_args()
    print_header(f"features on {options.tree}, moves {options.moves}", "scikit-learn")
    paper = load_outcomes(options.tree, "accuracy", "paper", options.moves, whole=False)
    info, unit = tree_info(options.tree), paper.cost_unit_usd()
    config = TrainingConfig(learner="regression", moves=options.moves, cost_unit_usd=unit)
    texts = text_features(options.tree, paper.query_ids)
    print(f"{len(paper)} queries")

    def ask(outcomes: Outcomes, **changes: Any) -> NDArray[np.float64]:
        one_task = changes.pop("one_task", False)
        return held_rewards(outcomes, info, config.model_copy(update=changes), one_task=one_task)

    bootstrap = Bootstrap(paper.tasks, 2000, 42)
    crossed = Crossed(bootstrap, 1, CROSS_FITTED)
    whole = ask(paper)
    print(f"{'what is seen':<34}{'reward':>8}   {'less the default':>16}  95% interval")
    print(f"{'as by default':<34}{whole.mean():>8.4f}")

    def tell(name: str, got: NDArray[np.float64]) -> None:
        (found,) = compare(crossed.overall(difference(got, whole)), 0.95)
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
        print(f"{name:<34}{got.mean():>8.4f}   {found.mean:>+16.4f}  {interval}", flush=True)

    tell("without chances of the tasks", ask(paper, one_task=True))
    tell("without typical queries", ask(paper, centres=0))
    if paper.hops > 1:
        with unseen(lambda features: features.blocks[-1]):
            tell("without the context", ask(paper))
    if options.moves in ("cascade", "escalate"):
        with unseen(lambda features: features.answer_block):
            tell("without what answers show", ask(paper))
    with projected_past(texts.shape[1]):
        tell("with features of the text", ask(with_text(paper, texts)))
    if paper.hops > 1 and options.moves != "escalate":
        parted = load_outcomes(options.tree, "accuracy", "two_part", options.moves, whole=False)
        tell("the newest reply by itself", ask(parted))
        both = np.concatenate([paper.embeddings, parted.embeddings], axis=2)
        tell("both views", ask(replace(paper, embeddings=both)))


if __name__ == "__main__":
    main()

"""All that a run will hold, read and checked before MLflow is asked anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierrouter.data.queries import digest_queries, read_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.evaluation.evaluate import METRICS, RESULTS, read_metrics
from hierrouter.files import digest_of, read_json, sha256_file
from hierrouter.learning.card import model_card
from hierrouter.learning.router import Router
from hierrouter.routes.tree import QUERIES
from hierrouter.tracking.children import children_in
from hierrouter.tracking.origin import git_commit, process, user
from hierrouter.tracking.values import (
    evaluation_table,
    headline_metrics,
    learning_points,
    query_sets,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import EvaluationConfig
    from hierrouter.learning.router import RouterInfo
    from hierrouter.tracking.children import Child

KEY = "hierrouter.registration"
"""Tag with the digest of all that a run records; it tells a second registration of the same."""
PROCESS = "hierrouter.process"
"""Tag with the process that fills the run."""

LONGEST_TAG = 7_900
"""Characters of a tag's value; PostgreSQL and MySQL behind MLflow hold 8,000, SQLite any number."""


@dataclass(frozen=True)
class Record:
    """What is registered, and what the run gets of it."""

    config: EvaluationConfig
    info: RouterInfo
    router: Path
    evaluation: Path
    metrics: dict[str, Any]
    card: str
    points: list[tuple[str, float, int]]
    queries: dict[str, tuple[Any, str]]
    """By split: its queries and their digest; empty without a tree."""
    queries_path: Path | None
    tree: Path | None
    children: list[Child]
    """One a training seed, if the evaluation has several."""

    @property
    def digest(self) -> str:
        """The same for the same router, evaluation and data sets, wherever their folders lie."""
        return digest_of(
            [
                sha256_file(self.router / "router.json"),
                self.info.weights_sha256,
                sha256_file(self.evaluation / METRICS),
                {split: digest for split, (_, digest) in self.queries.items()},
            ]
        )

    def tags(self) -> dict[str, str]:
        """What the run came from."""
        tags = {
            KEY: self.digest,
            PROCESS: process(),
            "hierrouter.version": self.info.library_version,
            "hierrouter.config_digest": digest_of(self.info.config),
            "hierrouter.query_digest": self.info.query_digest,
            "hierrouter.tree_digest": self.info.tree_digest,
            "hierrouter.weights_sha256": self.info.weights_sha256,
            "mlflow.note.content": _note(self.card),
            "mlflow.source.name": "hierrouter",
            "mlflow.source.type": "LOCAL",
        }
        if name := user():
            tags["mlflow.user"] = name
        if commit := git_commit():
            tags["mlflow.source.git.commit"] = commit
        return tags


def _note(card: str) -> str:
    """A model card, cut at a line where MLflow would refuse it."""
    if len(card) <= LONGEST_TAG:
        return card
    rest = "\n\nThe rest is in router/README.md."
    return card[: card.rindex("\n", 0, LONGEST_TAG - len(rest))] + rest


def read_record(
    config: EvaluationConfig, router: Path, evaluation: Path, tree: Path | None
) -> Record:
    """Reads a router, its evaluation and, where one is named, its tree's queries.

    Raises:
        HierRouterError: something is missing, or they do not belong together.
        DamagedFileError: a file cannot be read.
    """
    info = Router.load(router).info
    for name in RESULTS:
        if not (evaluation / name).is_file():
            raise HierRouterError(
                f"{evaluation} holds no {name}; make it with `hierrouter evaluate`"
            )
    metrics = read_metrics(evaluation)
    try:
        judged = metrics["router"]["weights_sha256"]
        headline_metrics(metrics)
        card = model_card(info, evaluation_table(metrics))
    except (KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{evaluation / METRICS} has no {error}; evaluate the router anew"
        ) from error
    if judged != info.weights_sha256:
        raise HierRouterError(
            f"{evaluation} is the evaluation of another router than {router}; evaluate this one"
        )
    path = None if tree is None else tree / QUERIES
    queries = [] if path is None else read_queries(path)
    if path is not None and digest_queries(queries) != info.query_digest:
        raise HierRouterError(
            f"{tree} holds other queries than {router} was trained on; name the router's own tree"
        )
    return Record(
        config=config,
        info=info,
        router=router,
        evaluation=evaluation,
        metrics=metrics,
        card=card,
        points=learning_points(read_json(router / "learning_curve.json")),
        queries=query_sets(queries),
        queries_path=path,
        tree=tree,
        children=children_in(config, router, evaluation, metrics),
    )

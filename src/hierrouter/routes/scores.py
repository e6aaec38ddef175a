"""Scores of recorded nodes: what follows from them, rebuilt when a metric or a rate changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.config import PoolConfig
from hierrouter.data.queries import digest_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import atomic_path, readable, sha256_text
from hierrouter.progress import Progress, say
from hierrouter.quality.score import METRICS, SCORER_VERSION, Expected, Scored, score_replies
from hierrouter.routes.costs import call_cost
from hierrouter.routes.nodes import NodeKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hierrouter.config import AnswerKind
    from hierrouter.data.queries import Query
    from hierrouter.routes.tree import RouteTree

METADATA = b"hierrouter"
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("models", pa.list_(pa.string())),
        ("role", pa.string()),
        ("reply_digest", pa.string()),
        ("answer", pa.string()),
        ("cost", pa.float64()),
        *((metric, pa.float32()) for metric in METRICS),
    ]
)


class NodeScore(NamedTuple):
    """What a node is worth and cost: `cost` in dollars of this call alone; metrics of answers."""

    answer: str | None
    cost: float
    metrics: dict[str, float | None]


def answer_kind(query: Query) -> AnswerKind:
    """How the query's answer is stated and compared."""
    return cast("AnswerKind", query.metadata["kind"])


def expected_of(query: Query) -> Expected:
    """What a reply to `query` is held against."""
    extra = {"choices": int(query.metadata["choices"])} if "choices" in query.metadata else {}
    return Expected(
        kind=answer_kind(query),
        accepted=query.reference,
        text=query.reference_text,
        tests=query.tests,
        partial=query.metadata.get("metric") == "token_f1",
        **extra,
    )


def score_tree(
    tree: RouteTree,
    anew: bool = False,
    done: Mapping[NodeKey, Scored] | None = None,
    others: Sequence[Path] = (),
) -> None:
    """Writes `scores.parquet`: every node's cost, and every answer by all metrics.

    Answers that the present scorer has already scored are kept; costs are always recomputed.

    Args:
        tree: the tree.
        anew: whether to score every answer again.
        done: answers that were scored elsewhere.
        others: trees whose scores count, too, where they are of the same replies.
    """
    path = tree.folder / "scores.parquet"
    pool = PoolConfig.model_validate(tree.info["pool"])
    rates = {spec.name: spec.rate for spec in (*pool.models, *pool.references)}
    queries = {query.query_id: query for query in tree.queries}
    nodes = [
        node
        for node in tree.nodes.values()
        if node.query_id in queries and set(node.models) <= rates.keys()
    ]
    stamp = {
        "tree_digest": tree.digest(),
        "scorer_version": SCORER_VERSION,
        "query_digest": digest_queries(tree.queries),
    }
    digests = {node.place: sha256_text(node.reply)[:16] for node in nodes}
    known: dict[NodeKey, dict[str, Any]] = {}
    for each in () if anew else (*(other / path.name for other in others), path):
        known |= _still_good(each, stamp, digests)
    scored: dict[NodeKey, Scored] = dict(done or {})
    fresh = [
        node
        for node in nodes
        if node.role == "solve" and node.place not in known and node.place not in scored
    ]
    if fresh:
        with Progress("scoring", len(fresh), "answers") as progress:
            results = score_replies(
                [(node.reply, expected_of(queries[node.query_id])) for node in fresh],
                progress.advance,
            )
        scored |= {node.place: result for node, result in zip(fresh, results, strict=True)}
    rows = []
    for node in sorted(nodes, key=lambda node: node.place):
        row: dict[str, Any] = {
            "query_id": node.query_id,
            "models": list(node.models),
            "role": node.role,
            "reply_digest": digests[node.place],
            "cost": call_cost(rates[node.models[-1]], node.tokens_in, node.tokens_out),
        }
        for column in ("answer", *METRICS):
            if node.place in scored:
                row[column] = getattr(scored[node.place], column)
            else:
                row[column] = known[node.place][column] if node.role == "solve" else None
        rows.append(row)
    schema = SCHEMA.with_metadata({METADATA: json.dumps(stamp).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")


def _still_good(
    path: Path, stamp: Mapping[str, Any], digests: Mapping[NodeKey, str]
) -> dict[NodeKey, dict[str, Any]]:
    """Rows of a file of scores that are of these replies, by the present scorer."""
    if not path.exists():
        return {}
    try:
        with_stamp, rows = _read(path)
    except DamagedFileError:
        say(f"{path} could not be read back; every answer is scored anew")
        return {}
    if any(with_stamp.get(key) != stamp[key] for key in ("scorer_version", "query_digest")):
        return {}
    places = (NodeKey(row["query_id"], tuple(row["models"]), row["role"]) for row in rows)
    # A reply that was lost and made again may be another one.
    return {
        place: row
        for place, row in zip(places, rows, strict=True)
        if place in digests and row["reply_digest"] == digests[place]
    }


def read_scores(tree: Path) -> tuple[dict[str, Any], dict[NodeKey, NodeScore]]:
    """Reads a tree's scores.

    Returns:
        The stamp (`tree_digest`, `scorer_version`, `query_digest`) and each node's score.

    Raises:
        HierRouterError: the tree was not scored.
        DamagedFileError: the file cannot be read.
    """
    path = tree / "scores.parquet"
    if not path.exists():
        raise HierRouterError(f"{tree} has no scores yet; finish `hierrouter collect` first")
    stamp, rows = _read(path)
    if stamp.get("scorer_version") != SCORER_VERSION:
        raise HierRouterError(
            f"{tree} was scored by another version of the metrics; "
            f"run `hierrouter tree rescore {tree}`"
        )
    return stamp, {
        NodeKey(row["query_id"], tuple(row["models"]), row["role"]): NodeScore(
            row["answer"], row["cost"], {metric: row[metric] for metric in METRICS}
        )
        for row in rows
    }


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        table = pq.read_table(readable(path))
        stamp = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        return stamp, table.cast(SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DamagedFileError(
            f"{path} cannot be read back ({reason}); run "
            f"`hierrouter tree rescore {path.parent}`: no reply is generated again"
        ) from error

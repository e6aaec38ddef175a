"""Scores of recorded nodes: what follows from them, rebuilt when a metric or a rate changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.config import PoolConfig
from hierrouter.data.queries import digest_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import atomic_path, digest_of, readable, sha256_text
from hierrouter.progress import Progress, say
from hierrouter.quality.score import METRICS, SCORER_VERSION, Expected, Scored, score_replies
from hierrouter.routes.costs import call_cost
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.unchanged import nodes_mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from hierrouter.config import AnswerKind
    from hierrouter.data.queries import Query
    from hierrouter.routes.tree import RouteTree

METADATA = b"hierrouter"
ROWS = 65_536
"""Rows that are made or read together."""
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
    reply_digest: str
    """Of the reply that was scored, as `reply_digest` makes it."""


def reply_digest(reply: str) -> str:
    """What tells a reply from another one: one that was lost and made again may differ."""
    return sha256_text(reply)[:16]


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

    Answers that the present scorer has already scored are kept; costs are recomputed. Where the
    file is of these very nodes and rates, no reply is read and nothing is written.

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
    stamp = {
        "scorer_version": SCORER_VERSION,
        "query_digest": digest_queries(tree.queries),
        "nodes_mark": nodes_mark(tree),
        "rates": digest_of(rates),
    }
    if not anew and _is_of(path, stamp):
        return
    known = [] if anew else [_scored_in(each / path.name, stamp) for each in (tree.folder, *others)]
    scored: dict[NodeKey, Scored] = dict(done or {})
    rows: list[tuple[NodeKey, str, float]] = []
    fresh: dict[NodeKey, str] = {}
    # Of the replies only those that are to be scored stay in memory.
    for node in tree.nodes.stream():
        place = node.place
        if place.query_id not in queries or not set(place.models) <= rates.keys():
            continue
        digest = reply_digest(node.reply)
        rows.append(
            (place, digest, call_cost(rates[place.models[-1]], node.tokens_in, node.tokens_out))
        )
        if place.role != "solve" or place in scored:
            continue
        for each in known:
            if place in each and each[place][0] == digest:
                scored[place] = each[place][1]
                break
        else:
            fresh[place] = node.reply
    if fresh:
        with Progress("scoring", len(fresh), "answers") as progress:
            results = score_replies(
                [(reply, expected_of(queries[place.query_id])) for place, reply in fresh.items()],
                progress.advance,
            )
        scored |= zip(fresh, results, strict=True)
    schema = SCHEMA.with_metadata(
        {METADATA: json.dumps({"tree_digest": tree.digest(), **stamp}).encode()}
    )
    rows.sort()
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):
        for start in range(0, len(rows), ROWS) or (0,):
            file.write_table(_table(rows[start : start + ROWS], scored, schema))


def _table(
    rows: Sequence[tuple[NodeKey, str, float]],
    scored: Mapping[NodeKey, Scored],
    schema: pa.Schema,
) -> pa.Table:
    # Column by column: a million rows as dictionaries would take minutes.
    answers = [scored[place] if place.role == "solve" else None for place, _, _ in rows]
    columns: list[list[Any]] = [
        [place.query_id for place, _, _ in rows],
        [list(place.models) for place, _, _ in rows],
        [place.role for place, _, _ in rows],
        [digest for _, digest, _ in rows],
        [each and each.answer for each in answers],
        [cost for _, _, cost in rows],
        *([each and getattr(each, metric) for each in answers] for metric in METRICS),
    ]
    return pa.table(columns, schema=schema)


def _is_of(path: Path, stamp: Mapping[str, Any]) -> bool:
    """Whether a file of scores is whole, and of the nodes, queries and rates of `stamp`."""
    if stamp["nodes_mark"] is None or not path.exists():
        return False
    try:
        with_stamp, _ = _read_table(path)
    except DamagedFileError:
        return False
    return all(with_stamp.get(key) == value for key, value in stamp.items())


def _scored_in(path: Path, stamp: Mapping[str, Any]) -> dict[NodeKey, tuple[str, Scored]]:
    """The answers in a file of scores by the present scorer, with their replies' digests."""
    if not path.exists():
        return {}
    try:
        with_stamp, table = _read_table(path)
    except DamagedFileError:
        say(f"{path} could not be read back; every answer is scored anew")
        return {}
    if any(with_stamp.get(key) != stamp[key] for key in ("scorer_version", "query_digest")):
        return {}
    return {
        NodeKey(row["query_id"], tuple(row["models"]), row["role"]): (
            row["reply_digest"],
            Scored(row["answer"], **{metric: row[metric] for metric in METRICS}),
        )
        for row in _rows(table)
        if row["role"] == "solve"
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
        raise HierRouterError(
            f"{tree} has no scores yet; finish `hierrouter collect`, or run it with "
            "--max-dollars 0, which scores and embeds what is there"
        )
    stamp, table = _read_table(path)
    if stamp.get("scorer_version") != SCORER_VERSION:
        raise HierRouterError(
            f"{tree} was scored by another version of the metrics; "
            f"run `hierrouter tree rescore {tree}`"
        )
    return stamp, {
        NodeKey(row["query_id"], tuple(row["models"]), row["role"]): NodeScore(
            row["answer"],
            row["cost"],
            {metric: row[metric] for metric in METRICS},
            row["reply_digest"],
        )
        for row in _rows(table)
    }


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows one by one: as dictionaries all of them would take a kilobyte each."""
    for batch in table.to_batches(max_chunksize=ROWS):
        yield from batch.to_pylist()


def _read_table(path: Path) -> tuple[dict[str, Any], pa.Table]:
    try:
        table = pq.read_table(readable(path))
        stamp = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        return stamp, table.cast(SCHEMA)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DamagedFileError(
            f"{path} cannot be read back ({reason}); run "
            f"`hierrouter tree rescore {path.parent}`: no reply is generated again"
        ) from error

"""Imported outcomes on disk: a column a model, a row a query, beside the queries' own table."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hierrouter.config import PoolConfig
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import digest_of, fetched, is_remote, readable, sha256_bytes, sha256_file
from hierrouter.progress import say
from hierrouter.routes.embed import embedding_files, read_bytes
from hierrouter.routes.outcomes import Outcomes
from hierrouter.routes.tree import KIND, OUTCOMES_KIND, QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import View

OUTCOMES = "outcomes.parquet"
METRIC = "accuracy"
"""What an imported score is called wherever a metric is named."""
SCORER_VERSION = 0
"""Scores are not ours: none of our versions."""
STAMP = b"hierrouter"
FEWEST = 2
"""Outcomes of a query from which training can learn a choice."""
MEASURES = ("score", "cost", "latency_s")


def is_imported(info: Mapping[str, Any]) -> bool:
    """Whether `tree.json` is that of imported outcomes."""
    return info.get(KIND) == OUTCOMES_KIND


def column(model: str, measure: str) -> str:
    """The column of `outcomes.parquet` with one of `MEASURES` of a model."""
    return f"{model}:{measure}"


def stamped(schema: pa.Schema, digest: str) -> pa.Schema:
    """A schema that says which import its file is of."""
    return schema.with_metadata({STAMP: json.dumps({"import": digest}).encode()})


def tree_digest(
    query_digest: str,
    models: Sequence[str],
    tables: Sequence[NDArray[np.float64]],
    vectors: str | None = None,
) -> str:
    """SHA-256 of what was imported: queries, models' names, scores, costs, and vectors if any.

    Args:
        query_digest: of the Q queries.
        models: C names.
        tables: scores and costs, Q x C each, NaN where there is none.
        vectors: fingerprint of those that were at hand; none: an encoder makes them.
    """
    said = [query_digest, list(models), *([] if vectors is None else [vectors])]
    whole = hashlib.sha256(digest_of(said).encode())
    for table in tables:
        whole.update(np.ascontiguousarray(table, dtype="<f8").tobytes())
    return whole.hexdigest()


def names_of(info: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of a tree's pool models and of its references."""
    pool = PoolConfig.model_validate(info["pool"])
    return [spec.name for spec in pool.models], [spec.name for spec in pool.references]


def read_columns(
    tree: Path, info: Mapping[str, Any], file: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Some columns of one of the two tables.

    Raises:
        DamagedFileError: it is missing, damaged, or of another import.
    """
    path = tree / file
    again = "run the same `hierrouter import-outcomes` again"
    try:
        with pq.ParquetFile(readable(path)) as opened:
            stamp = json.loads((opened.schema_arrow.metadata or {}).get(STAMP, b"{}"))
            if stamp.get("import") != info["outcomes"]["import"]:
                raise DamagedFileError(f"{path} is of another import than tree.json; {again}")
            return opened.read(None if columns is None else list(columns))
    except FileNotFoundError:
        raise DamagedFileError(f"{path} is missing; {again}") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise DamagedFileError(f"{path} cannot be read back ({reason}); {again}") from error


def read_table(
    tree: Path, info: Mapping[str, Any], names: Sequence[str], measure: str
) -> NDArray[np.float64]:
    """Q x C values of one measure, NaN where there is none."""
    wanted = [column(name, measure) for name in names]
    table = read_columns(tree, info, OUTCOMES, wanted)
    values = np.empty((len(table), len(names)))
    for number, name in enumerate(wanted):
        values[:, number] = table[name].to_numpy()
    return values


def load_imported(
    tree: Path, info: Mapping[str, Any], metric: str, view: View, whole: bool
) -> Outcomes:
    """Imported outcomes as dense arrays of one hop.

    Args:
        tree: the folder.
        info: its `tree.json`.
        metric: must be `accuracy`, which an imported score stands for.
        view: as `two_part`, vectors are twice as wide, with nothing in the second half.
        whole: whether only queries with the outcomes of all models are wanted. Else training
            queries with at least two are taken, too, with NaN for the others.

    Raises:
        HierRouterError: another metric is asked for, no query is left, or a vector is missing.
        DamagedFileError: a file cannot be read.
    """
    if metric != METRIC:
        raise HierRouterError(
            f"{tree} holds imported outcomes, with one score each, which is called {METRIC}; set "
            f"training.metric={METRIC}"
        )
    models, references = names_of(info)
    names = [*models, *references]
    queries = read_columns(tree, info, QUERIES, ("query_id", "task", "split", "fold"))
    score, cost = (read_table(tree, info, names, measure) for measure in ("score", "cost"))
    train = np.asarray(queries["split"].to_numpy() == "train")
    known = ~np.isnan(score)
    taken = np.asarray(known.all(axis=1))
    if not whole:
        taken |= train & (known[:, : len(models)].sum(axis=1) >= min(FEWEST, len(models)))
    if not taken.any():
        raise HierRouterError(
            f"{tree}: no query has the outcomes of all models ({', '.join(names)}), so nothing can "
            "be compared; import more of them, or fewer models (name those to keep in pool.models)"
        )
    _say_left_out(tree, train, taken, known, whole)
    at = np.flatnonzero(taken)
    digests = read_columns(tree, info, OUTCOMES, ("text_digest",))["text_digest"].to_numpy()[at]
    vectors = _vectors(tree, info, digests)
    if view == "two_part":
        vectors = np.concatenate([vectors, np.zeros_like(vectors)], axis=1)
    choices = _choices(tree, info)
    quality, dollars = score[at][:, None], cost[at][:, None]
    pool = slice(0, len(models))
    return Outcomes(
        query_ids=tuple(queries["query_id"].take(pa.array(at)).to_pylist()),
        tasks=np.array(queries["task"].take(pa.array(at)).to_pylist()),
        train=train[at],
        folds=queries["fold"].to_numpy()[at].astype(np.int64),
        models=tuple(models),
        hops=1,
        metric=METRIC,
        embeddings=vectors[:, None],
        analyze_cost=np.zeros((len(at), 1, len(models))),
        solve_cost=dollars[..., pool],
        solve_quality=quality[..., pool],
        choices=None if choices is None else choices[at],
        references=tuple(references),
        reference_quality=quality[:, 0, len(models) :] if references else None,
        reference_cost=dollars[:, 0, len(models) :] if references else None,
    )


def _choices(tree: Path, info: Mapping[str, Any]) -> NDArray[np.int64] | None:
    """Q numbers of choices, 0 where a query has none; none where they were not told."""
    if not info["outcomes"].get("choices"):
        return None
    column = read_columns(tree, info, QUERIES, ("metadata",))["metadata"]
    encoded = column.combine_chunks().dictionary_encode()
    counts = [int(json.loads(text).get("choices", 0)) for text in encoded.dictionary.to_pylist()]
    return np.asarray(np.array(counts, dtype=np.int64)[encoded.indices.to_numpy()])


def _say_left_out(
    tree: Path,
    train: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    known: NDArray[np.bool_],
    whole: bool,
) -> None:
    """Says how many queries are not used for want of outcomes."""
    for split, mine in (("test", ~train), ("training", train)):
        left = int((mine & ~taken).sum())
        if not left:
            continue
        loose = split == "training" and not whole
        least = f"at least {FEWEST} outcomes" if loose else "the outcomes of all models"
        say(f"{tree}: {left:,} of {int(mine.sum()):,} {split} queries left out, without {least}")
    if some := int((taken & ~known.all(axis=1)).sum()):
        say(
            f"{tree}: {some:,} training queries have the outcomes of some models only; the others "
            "are masked for them"
        )


def embeddings_of(tree: Path, info: Mapping[str, Any]) -> Path:
    """Where the vectors of a tree's prompts lie."""
    return tree / "embeddings" / digest_of(info["encoder"])[:12]


def _vectors(
    tree: Path, info: Mapping[str, Any], digests: NDArray[np.object_]
) -> NDArray[np.float32]:
    """The vectors of N prompts by what they are kept under, N x D.

    Raises:
        HierRouterError: one is missing.
    """
    place, distinct = pd.factorize(digests)
    index = pd.Index(distinct)
    there = np.zeros(len(distinct), dtype=np.bool_)
    vectors: NDArray[np.float32] | None = None
    for path in embedding_files(embeddings_of(tree, info)):
        keys, scale, steps = read_bytes(path)
        at = index.get_indexer(pd.Index(keys))
        mine = at >= 0
        if vectors is None:
            vectors = np.zeros((len(distinct), steps.shape[1]), dtype=np.float32)
        vectors[at[mine]] = steps[mine] * scale[mine, None]
        there[at[mine]] = True
    if vectors is None or not there.all():
        raise HierRouterError(
            f"{tree}: {int((~there).sum()):,} of {len(distinct):,} prompts have no vector yet; run "
            "the same `hierrouter import-outcomes` again, it goes on where it stopped"
        )
    return vectors if len(distinct) == len(place) else vectors[place]


def imported_info(info: dict[str, Any]) -> dict[str, Any]:
    """`tree.json` with what learning and evaluation must remember, as `load.tree_info`."""
    weights = {name: model["weights"] for name, model in info["made"]["models"].items()}
    digest = info["outcomes"]["tree_digest"]
    return {**info, "tree_digest": digest, "scorer_version": SCORER_VERSION, "weights": weights}


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, or of an object."""
    return sha256_bytes(fetched(path)) if is_remote(path) else sha256_file(path)

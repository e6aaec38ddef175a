"""The stage that makes a tree of direct answers from anybody's recorded outcomes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from hierrouter.config import Config, PoolConfig
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import claim_folder, digest_of, read_json, sha256_file
from hierrouter.progress import duration, say
from hierrouter.routes.encoder import encoder_identity
from hierrouter.routes.imported.cells import cells_of
from hierrouter.routes.imported.columns import VECTOR
from hierrouter.routes.imported.files import OutcomesFile
from hierrouter.routes.imported.gather import gather
from hierrouter.routes.imported.given import GivenVectors, open_vectors
from hierrouter.routes.imported.names import valid_names
from hierrouter.routes.imported.sides import sides_of
from hierrouter.routes.imported.store import OUTCOMES, is_imported
from hierrouter.routes.imported.vectors import (
    CHECKED,
    check_same_encoder,
    encode_prompts,
    encoder_of_imported,
    keep_given,
    missing_vectors,
)
from hierrouter.routes.imported.write import described, write_tree
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.tree import QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hierrouter.routes.imported.gather import Gathered
    from hierrouter.routes.imported.sides import Sides

DATA_KEYS = ("seed", "train_share", "folds", "near_duplicate_jaccard")
"""What an import reads of a config's data part."""
TOO_LARGE = 0.5
"""Share of all queries in one group of near-duplicates from which a split means little."""
SPOOL = ".tmp-spool.parquet"


def import_outcomes(
    file: Path,
    out: Path,
    config: Config | None = None,
    partial: bool = False,
    embeddings: Path | None = None,
    same_encoder: bool = False,
) -> Path:
    """Makes a tree of direct answers, without replies, from a file of outcomes.

    Nothing is written before all of the file was found right. An import that is whole and of the
    same file, settings and vectors is kept; one that was cut short goes on.

    Args:
        file: CSV, JSON lines or Parquet, a row a query and model (`columns.KNOWN`).
        out: new, empty, or an earlier import's folder.
        config: of `data` the seed, shares and similarity; of `pool` the encoder, and the models to
            take, if any are named, with their rates. None: the defaults.
        partial: whether outcomes may be missing.
        embeddings: vectors of the prompts, so that no encoder runs.
        same_encoder: whether vectors at hand are those of the config's encoder.

    Returns:
        `out`, now a tree.

    Raises:
        ConfigError: the file, the vectors or the folder cannot be used.
        HierRouterError: the encoder cannot be had, or the disk is full.
    """
    config = config or Config(pool=PoolConfig())
    claim_folder(out, "tree.json")
    source = OutcomesFile.open(file)
    if same_encoder and embeddings is None and VECTOR not in source.columns:
        raise ConfigError(
            f"--same-encoder: there are no vectors at hand; give --embeddings, or a column {VECTOR}"
        )
    with sole_writer(out):
        origin = _origin(source, config, partial, embeddings, same_encoder)
        info = _earlier(out)
        given = embeddings is not None or VECTOR in source.columns
        if (
            info is not None
            and info["outcomes"]["import"] == digest_of(origin)
            and _is_whole(out, info)
        ):
            if not missing_vectors(out, info):
                say(f"outcomes: those in {out} are kept")
                return out
            say(f"outcomes: those in {out} are kept, their vectors are not all there yet")
            fresh = given
        else:
            fresh = True
        if fresh:
            info = _build(source, out, config, partial, embeddings, same_encoder, origin)
        if not given and info is not None:
            encode_prompts(out, info, config.pool.encoder)
    return out


def _origin(
    source: OutcomesFile,
    config: Config,
    partial: bool,
    embeddings: Path | None,
    same_encoder: bool,
) -> dict[str, Any]:
    """What a tree follows from."""
    data, pool = config.data.model_dump(mode="json"), config.pool.model_dump(mode="json")
    return {
        "file": source.path.name,
        "sha256": sha256_file(source.path),
        "embeddings": None if embeddings is None else _digest(embeddings),
        "partial": partial,
        "same_encoder": same_encoder,
        "data": {key: data[key] for key in DATA_KEYS},
        "pool": {key: pool[key] for key in ("models", "references", "prompts", "encoder")},
    }


def _digest(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    return sha256_file(path)


def _earlier(out: Path) -> dict[str, Any] | None:
    """`tree.json` of an earlier import.

    Raises:
        ConfigError: the folder holds a recorded tree.
    """
    if not (out / "tree.json").exists():
        return None
    try:
        info = read_json(out / "tree.json")
    except HierRouterError:
        info = None
    if not isinstance(info, dict) or not is_imported(info):
        raise ConfigError(
            f"{out} holds a recorded tree, which an import would replace; name another folder"
        )
    return info if isinstance(info.get("outcomes"), dict) else None


def _is_whole(out: Path, info: dict[str, Any]) -> bool:
    files = info["outcomes"].get("files", {})
    return all(
        (out / name).is_file() and files.get(name) == sha256_file(out / name)
        for name in (QUERIES, OUTCOMES)
    )


@contextlib.contextmanager
def _spool(out: Path) -> Iterator[Path]:
    path = out / SPOOL
    try:
        yield path
    except OSError as error:
        raise HierRouterError(
            f"cannot write {out}: {error.strerror or error}; make room or name another folder, "
            "then run the same command again"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _build(
    source: OutcomesFile,
    out: Path,
    config: Config,
    partial: bool,
    embeddings: Path | None,
    same_encoder: bool,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """Reads, checks and writes; gives `tree.json`."""
    started = time.monotonic()
    with _spool(out) as spool:
        gathered = gather(source, spool)
        if not len(gathered.query):
            raise ConfigError(f"{source.path}: holds no rows; it needs one a query and model")
        say(
            f"read: {len(gathered.query):,} rows of {len(gathered.query_ids):,} queries and "
            f"{len(gathered.models)} models in {duration(time.monotonic() - started)}"
        )
        tasks = valid_names("task", sorted(gathered.tasks))
        cells = cells_of(gathered, config.pool, partial)
        given = _given(gathered, spool, embeddings)
        encoder = config.pool.encoder
        if given is not None and same_encoder:
            check_same_encoder(encoder, given, _first_prompts(spool))
        elif given is not None:
            encoder = encoder_of_imported(given.width)
        identity = encoder_identity(encoder)
        sides = sides_of(gathered, spool, config.data)
        _say_sides(gathered, sides)
        pool = PoolConfig(
            models=list(cells.models[: cells.pool_size]),
            references=list(cells.models[cells.pool_size :]),
            hops=1,
            prompts=config.pool.prompts,
            encoder=encoder,
        )
        info = described(gathered, cells, sides, tasks, origin)
        info |= {"pool": pool.model_dump(mode="json"), "encoder": identity}
        info, digests = write_tree(out, info, gathered, cells, sides, tasks, spool)
        if given is not None:
            keep_given(out, info, given, digests)
    left = np.isnan(cells.score).sum()
    missing = f", {int(left):,} of {cells.score.size:,} outcomes are missing" if left else ""
    say(
        f"outcomes: {int(sides.train.sum()):,} train, {int((~sides.train).sum()):,} test queries, "
        f"{len(cells.models)} models{missing}, in {out} "
        f"({duration(time.monotonic() - started)})"
    )
    return info


def _given(gathered: Gathered, spool: Path, embeddings: Path | None) -> GivenVectors | None:
    """The vectors at hand: a file of their own comes before a column."""
    if embeddings is not None:
        return open_vectors(embeddings, gathered.query_ids)
    if gathered.width is not None:
        return GivenVectors(spool, gathered.query_ids, gathered.width)
    return None


def _first_prompts(spool: Path) -> list[str]:
    with pq.ParquetFile(spool) as file:
        first = next(file.iter_batches(CHECKED, columns=["prompt"]))
    return [str(text) for text in first.column(0).to_pylist()]


def _say_sides(gathered: Gathered, sides: Sides) -> None:
    """Says what of the split a user should know."""
    count = len(gathered.query_ids)
    if sides.straddling:
        say(
            f"note: {sides.straddling:,} queries have a near-duplicate on the other side of the "
            "split that the file gives; what is measured on them flatters the router"
        )
    if count > 3 and sides.largest_group > TOO_LARGE * count:
        say(
            f"note: {sides.largest_group:,} of {count:,} prompts are near-duplicates of one "
            "another (one template?) and stay on one side of the split; leave the template out of "
            "the prompts, or set data.near_duplicate_jaccard=1"
        )
    for name, none in (("training", not sides.train.any()), ("test", bool(sides.train.all()))):
        if none:
            say(f"note: there is no {name} query; a split column or more queries would give some")

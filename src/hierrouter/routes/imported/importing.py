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
from hierrouter.routes.imported.cells import cells_of, choices_of
from hierrouter.routes.imported.columns import VECTOR
from hierrouter.routes.imported.files import OutcomesFile
from hierrouter.routes.imported.fingerprint import fingerprint, key_of
from hierrouter.routes.imported.gather import gather
from hierrouter.routes.imported.given import GivenVectors, open_vectors
from hierrouter.routes.imported.names import valid_names
from hierrouter.routes.imported.notes import say_sides, say_tasks, say_whole
from hierrouter.routes.imported.sides import sides_of
from hierrouter.routes.imported.store import OUTCOMES, is_imported
from hierrouter.routes.imported.vectors import (
    CHECKED,
    check_encoder_options,
    check_same_encoder,
    encode_prompts,
    encoder_of_imported,
    forget_vectors,
    has_vectors,
    keep_given,
)
from hierrouter.routes.imported.write import described, write_tree
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.tree import QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hierrouter.routes.imported.gather import Gathered

DATA_KEYS = ("seed", "train_share", "folds", "near_duplicate_jaccard")
"""What an import reads of a config's data part."""
SPOOL = ".tmp-spool.parquet"


def import_outcomes(
    file: Path,
    out: Path,
    config: Config | None = None,
    partial: bool = False,
    embeddings: Path | None = None,
    same_encoder: bool = False,
    encoder_name: str | None = None,
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
        encoder_name: else, what tells the encoder that made them from others. None: only these
            vectors are known to be of it.

    Returns:
        `out`, now a tree.

    Raises:
        ConfigError: the file, the vectors or the folder cannot be used.
        HierRouterError: the encoder cannot be had, or the disk is full.
    """
    config = config or Config(pool=PoolConfig())
    claim_folder(out, "tree.json")
    source = OutcomesFile.open(file)
    given = embeddings is not None or VECTOR in source.columns
    check_encoder_options(given, same_encoder, encoder_name)
    with sole_writer(out):
        origin = _origin(source, config, partial, embeddings, same_encoder)
        if given:
            origin["encoder_name"] = encoder_name
        earlier = info = _earlier(out)
        if (
            info is not None
            and info["outcomes"]["import"] == digest_of(origin)
            and _is_whole(out, info)
        ):
            if has_vectors(out, info):
                say(f"outcomes: those in {out} are kept")
                return out
            say(f"outcomes: those in {out} are kept, their vectors are not all there yet")
            fresh = given
        else:
            fresh = True
        if fresh:
            named = None if same_encoder else encoder_name or ""
            info = _build(source, out, config, partial, embeddings, named, origin)
            forget_vectors(out, earlier, info)
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
    encoder_name: str | None,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """Reads, checks and writes; gives `tree.json`.

    Of vectors at hand, `encoder_name` is None if the config's encoder made them, blank if it is not
    told.
    """
    started = time.monotonic()
    with _spool(out) as spool:
        gathered = gather(source, spool, _named(config.pool), origin["partial"])
        if not len(gathered.query):
            scored = " with a score" if len(gathered.unscored) else ""
            raise ConfigError(
                f"{source.path}: holds no rows{scored}; it needs one a query and model"
            )
        if unscored := len(gathered.unscored):
            say(f"note: {unscored:,} rows without a score are left out")
        say(
            f"read: {len(gathered.query):,} rows of {len(gathered.query_ids):,} queries and "
            f"{len(gathered.models)} models in {duration(time.monotonic() - started)}"
        )
        tasks = valid_names("task", sorted(gathered.tasks))
        say_tasks(gathered)
        cells = cells_of(gathered, config.pool, partial)
        choices = choices_of(gathered, cells)
        given = _given(gathered, spool, embeddings)
        encoder = config.pool.encoder
        if given is not None and encoder_name is None:
            check_same_encoder(encoder, given, _first_prompts(spool))
        sides = sides_of(gathered, spool, config.data)
        say_sides(gathered, sides)
        say_whole(cells, sides)
        made, keys = None, None
        if given is not None:
            made = fingerprint(given, sides.order)
            keys = np.array([key_of(name) for name in gathered.query_ids], dtype=object)
            if encoder_name is not None:
                encoder = encoder_of_imported(given.width, encoder_name, made)
        identity = encoder_identity(encoder)
        pool = PoolConfig(
            models=list(cells.models[: cells.pool_size]),
            references=list(cells.models[cells.pool_size :]),
            hops=1,
            prompts=config.pool.prompts,
            encoder=encoder,
        )
        info = described(gathered, cells, sides, tasks, origin)
        info["outcomes"]["choices"] = choices is not None
        info |= {"pool": pool.model_dump(mode="json"), "encoder": identity}
        if made is not None:
            info["outcomes"]["vectors"] = made
        info = write_tree(out, info, gathered, cells, sides, tasks, spool, keys, choices)
        if given is not None and keys is not None:
            keep_given(out, info, given, keys)
    left = np.isnan(cells.score).sum()
    missing = f", {int(left):,} of {cells.score.size:,} outcomes are missing" if left else ""
    say(
        f"outcomes: {int(sides.train.sum()):,} train, {int((~sides.train).sum()):,} test queries, "
        f"{len(cells.models)} models{missing}, in {out} "
        f"({duration(time.monotonic() - started)})"
    )
    return info


def _named(pool: PoolConfig) -> set[str] | None:
    """What the models that are wanted may be called in the file; none: all are wanted."""
    specs = [*pool.models, *pool.references]
    return {name for spec in specs for name in (spec.name, spec.model)} if pool.models else None


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

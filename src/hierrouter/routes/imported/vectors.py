"""The vectors of imported prompts: taken from the user, or encoded, and then resumable."""

from __future__ import annotations

import shutil
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from hierrouter.config import EncoderConfig
from hierrouter.errors import ConfigError, DamagedFileError
from hierrouter.files import sha256_text
from hierrouter.progress import Progress, say
from hierrouter.routes.embed import AT_ONCE, embedding_files, read_bytes, write_vectors
from hierrouter.routes.encoder import IMPORTED, open_encoder
from hierrouter.routes.imported.columns import VECTOR
from hierrouter.routes.imported.fingerprint import kept_fingerprint
from hierrouter.routes.imported.store import OUTCOMES, embeddings_of, read_columns
from hierrouter.routes.tree import QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.routes.imported.given import GivenVectors

PART = 1024
"""Texts written together: at most so many are lost by a kill."""
CHECKED = 8
"""Prompts that are encoded to see whether an encoder made the vectors at hand."""
UNNAMED = "vectors:"
"""Before the digest that stands for the name of an encoder that is not told."""
SHOWN = 16
"""Digits of that digest."""
AGREED = 0.99
"""Least cosine between two vectors of one text by one encoder."""


def encoder_of_imported(width: int, name: str, made: str) -> EncoderConfig:
    """What stands for the encoder where only its vectors are known.

    Args:
        width: D.
        name: tells it from others; blank: not told, and then only these vectors are known to be
            of it.
        made: the vectors' fingerprint.
    """
    if not name:
        say(
            "note: which encoder made the vectors is not told, so a router trained on them can be "
            "judged on these vectors alone; name the encoder with --encoder-name"
        )
        name = f"{UNNAMED}{made[:SHOWN]}"
    return EncoderConfig(model=IMPORTED, revision=name, dimensions=width, views=["paper"])


def check_encoder_options(given: bool, same_encoder: bool, encoder_name: str | None) -> None:
    """Makes sure that what is said of the encoder of vectors at hand can be so.

    Raises:
        ConfigError: it cannot.
    """
    for option, used in (
        ("--same-encoder", same_encoder),
        ("--encoder-name", encoder_name is not None),
    ):
        if used and not given:
            raise ConfigError(
                f"{option}: there are no vectors at hand; give --embeddings, or a column {VECTOR}"
            )
    if encoder_name is not None:
        if same_encoder:
            raise ConfigError(
                "--encoder-name: with --same-encoder, the config names it; leave one of them out"
            )
        if not encoder_name.strip() or encoder_name.startswith(UNNAMED):
            raise ConfigError(
                f"--encoder-name: {encoder_name!r} names no encoder; give what tells it from "
                "others, such as text-embedding-3-small"
            )


def check_same_encoder(config: EncoderConfig, given: GivenVectors, prompts: Sequence[str]) -> None:
    """Makes sure that the vectors at hand are those of an encoder.

    Args:
        config: the encoder.
        given: the vectors.
        prompts: the first prompts, by number.

    Raises:
        ConfigError: they are not.
    """
    some = prompts[:CHECKED]
    made = open_encoder(config).encode(some)
    theirs = np.zeros((len(some), given.width), dtype=np.float32)
    for numbers, vectors in given.parts():
        mine = numbers < len(some)
        theirs[numbers[mine]] = vectors[mine]
    if made.shape != theirs.shape or _cosines(made, theirs).min() < AGREED:
        raise ConfigError(
            f"--same-encoder: {config.model} (pool.encoder) does not make the vectors in "
            f"{given.path}, {given.width} wide; name the encoder that made them, or leave "
            "--same-encoder out"
        )


def _cosines(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return np.asarray((one * two).sum(axis=1) / np.maximum(lengths, 1e-12))


def drop_vectors(tree: Path, info: Mapping[str, Any]) -> None:
    """Removes the vectors of an earlier import, which may be of the same name and width.

    Right before a new import takes the place of the earlier one: cut short then, neither can pass
    for whole.
    """
    for path in embedding_files(embeddings_of(tree, info)):
        path.unlink()


def keep_given(
    tree: Path, info: Mapping[str, Any], given: GivenVectors, keys: NDArray[np.object_]
) -> None:
    """Writes the vectors at hand to the tree.

    Args:
        tree: the folder.
        info: its `tree.json`.
        given: Q vectors.
        keys: what each is kept under, by number.
    """
    folder = embeddings_of(tree, info)
    for numbers, vectors in given.parts():
        if len(numbers):
            write_vectors(folder, keys[numbers].tolist(), vectors)


def encode_prompts(tree: Path, info: Mapping[str, Any], config: EncoderConfig) -> None:
    """Encodes the prompts that have no vector yet, each distinct text once.

    Raises:
        HierRouterError: the encoder cannot be had.
    """
    folder = embeddings_of(tree, info)
    known = _known(folder)
    texts = {digest for digest, _ in _prompts(tree) if digest not in known}
    if not texts:
        return
    encoder = open_encoder(config)
    with Progress("encoding", len(texts), "prompts") as progress:
        left = _distinct(tree, texts)
        while part := list(islice(left, PART)):
            # Texts of like length make full batches.
            part.sort(key=lambda pair: len(pair[1]), reverse=True)
            vectors = []
            for first in range(0, len(part), AT_ONCE):
                vectors.append(encoder.encode([text for _, text in part[first : first + AT_ONCE]]))
                progress.advance(len(vectors[-1]))
            write_vectors(folder, [digest for digest, _ in part], np.concatenate(vectors))


def _known(folder: Path) -> set[str]:
    """Digests of the texts that have a vector; parts that cannot be read are removed."""
    known: set[str] = set()
    for path in embedding_files(folder):
        try:
            known.update(read_bytes(path)[0])
        except DamagedFileError:
            say(f"{path} could not be read back; its prompts are encoded anew")
            path.unlink(missing_ok=True)
    return known


def _prompts(tree: Path) -> Iterator[tuple[str, str]]:
    with pq.ParquetFile(tree / QUERIES) as file:
        for batch in file.iter_batches(PART, columns=["prompt"], use_threads=False):
            for text in batch.column(0).to_pylist():
                yield sha256_text(text), text


def _distinct(tree: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    left = set(wanted)
    for digest, text in _prompts(tree):
        if digest in left:
            left.discard(digest)
            yield digest, text


def missing_vectors(tree: Path, info: Mapping[str, Any]) -> int:
    """How many distinct prompts (of vectors that were at hand: queries) have no vector."""
    known: set[str] = set()
    for path in embedding_files(embeddings_of(tree, info)):
        try:
            known.update(read_bytes(path)[0])
        except DamagedFileError:
            continue
    keys = read_columns(tree, info, OUTCOMES, ("text_digest",))["text_digest"]
    return len(set(keys.to_pylist()) - known)


def has_vectors(tree: Path, info: Mapping[str, Any]) -> bool:
    """Whether all vectors are there; of those that were at hand, whether they are the same."""
    if missing_vectors(tree, info):
        return False
    made = info["outcomes"].get("vectors")
    if made is None:
        return True
    keys = read_columns(tree, info, OUTCOMES, ("text_digest",))["text_digest"].to_pylist()
    return bool(kept_fingerprint(embeddings_of(tree, info), keys) == made)


def forget_vectors(tree: Path, earlier: Mapping[str, Any] | None, info: Mapping[str, Any]) -> None:
    """Removes vectors of an earlier import that no other can use: those of an unknown encoder."""
    if earlier is None or earlier.get("encoder", {}).get("model") != IMPORTED:
        return
    if (old := embeddings_of(tree, earlier)) != embeddings_of(tree, info):
        shutil.rmtree(old, ignore_errors=True)

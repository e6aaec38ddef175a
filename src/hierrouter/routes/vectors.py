"""Vectors of a tree's texts while the tree grows: encoded when they are wanted first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierrouter.files import sha256_text
from hierrouter.routes.embed import (
    PART,
    as_bytes,
    embedding_files,
    embeddings_folder,
    read_bytes,
    write_part,
)
from hierrouter.routes.encoder import open_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hierrouter.config import EncoderConfig
    from hierrouter.routes.encoder import Encoder
    from hierrouter.routes.tree import RouteTree


class Vectors:
    """The stored vectors, kept as bytes, and new ones, which are written by and by.

    A new vector is given as it will be read again, so that what is played now and what is played
    from the store later are the same.
    """

    def __init__(self, tree: RouteTree, config: EncoderConfig) -> None:
        """Reads what is stored; the encoder is loaded when a text is new.

        Raises:
            DamagedFileError: a file of embeddings cannot be read.
        """
        self._folder, self._config = embeddings_folder(tree), config
        self._identity = tree.info["encoder"]
        self._encoder: Encoder | None = None
        self._known: dict[bytes, tuple[np.float32, NDArray[np.int8]]] = {}
        self._new: dict[str, NDArray[np.float32]] = {}
        for path in embedding_files(self._folder):
            digests, scale, steps = read_bytes(path)
            self._known |= {
                bytes.fromhex(digest): (scale[row], steps[row])
                for row, digest in enumerate(digests)
            }

    def of(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vectors of N texts; those that are new are encoded together, each once."""
        keys = {text: bytes.fromhex(sha256_text(text)) for text in texts}
        new = [text for text, key in keys.items() if key not in self._known]
        if new:
            self._encoder = self._encoder or open_encoder(self._config, self._identity)
            vectors = self._encoder.encode(new)
            for row, (scale, steps) in enumerate(zip(*as_bytes(vectors), strict=True)):
                self._known[keys[new[row]]] = scale, steps
                self._new[new[row]] = vectors[row]
            if len(self._new) >= PART:
                self.flush()
        return [steps * scale for scale, steps in (self._known[keys[text]] for text in texts)]

    def flush(self) -> None:
        """Writes the new ones to the tree."""
        if self._new:
            write_part(self._folder, list(self._new), np.stack(list(self._new.values())))
            self._new.clear()

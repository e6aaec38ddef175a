"""The frozen encoder that turns a context into a vector (section 3.2 of the paper)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hierrouter import hub
from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hierrouter.config import EncoderConfig

HASHING = "hashing"
IMPORTED = "imported"
"""Stands for an encoder of which only the vectors are known."""
OFFSET_POSITIONS = ("mpnet", "roberta", "xlm-roberta", "camembert")


class Encoder(Protocol):
    """Texts in, vectors out; never trained."""

    device: str
    """Where it computes ("cpu", "cuda")."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of `texts`, N x D."""
        ...


def encoder_identity(config: EncoderConfig) -> dict[str, Any]:
    """What tells one encoder from another, without loading it.

    Two encoders with the same identity give the same vectors.
    """
    if config.model == HASHING:
        return {"model": HASHING, "dimensions": config.dimensions}
    if config.model == IMPORTED:
        return {"model": IMPORTED, "dimensions": config.dimensions}
    snapshot = hub.fetch_model(config.model, config.revision)
    return {
        "model": config.model,
        "revision": snapshot.revision,
        "digest": snapshot.digest,
        "max_tokens": config.max_tokens,
    }


def open_encoder(config: EncoderConfig) -> Encoder:
    """Loads the encoder that `config` names.

    Raises:
        HierRouterError: it cannot be had or is no sentence-transformers model.
    """
    if config.model == HASHING:
        return HashingEncoder(config.dimensions)
    if config.model == IMPORTED:
        raise HierRouterError(
            "the vectors of these prompts were imported, and which encoder made them is not known, "
            "so no new text can be read; import with --same-encoder and that encoder in "
            "pool.encoder, or without vectors, and train again"
        )
    return SentenceEncoder(hub.fetch_model(config.model, config.revision).folder, config.max_tokens)


def open_matching_encoder(config: EncoderConfig, identity: dict[str, Any]) -> Encoder:
    """Loads the encoder of a trained router.

    Args:
        config: the encoder's configuration, as the router remembers it.
        identity: its `encoder_identity` when the router was trained.

    Raises:
        HierRouterError: what is to be had now is another encoder.
    """
    if encoder_identity(config) != identity:
        raise HierRouterError(
            f"{config.model} is not the encoder that this router was trained with (another "
            "revision or digest); pin pool.encoder.revision, or train the router anew"
        )
    return open_encoder(config)


class HashingEncoder:
    """scikit-learn's HashingVectorizer: needs no model; for the scripted pool."""

    def __init__(self, dimensions: int) -> None:
        """Makes an encoder with vectors of width `dimensions`."""
        from sklearn.feature_extraction.text import HashingVectorizer

        self.device = "cpu"
        self._vectorizer = HashingVectorizer(n_features=dimensions, norm="l2")

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of `texts`, N x D, of unit length."""
        vectors = self._vectorizer.transform(texts).toarray()
        return np.asarray(vectors, dtype=np.float32)


class SentenceEncoder:
    """A sentence-transformers model, float32, in batches of like length."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Loads the model in `folder`; texts longer than `max_tokens` tokens are cut."""
        # The import takes seconds; the hashing encoder needs none of it.
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._model = SentenceTransformer(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise HierRouterError(
                f"{folder} does not load as a sentence-transformers model: {error}; "
                "set pool.encoder.model to one, or to `hashing`"
            ) from error
        self.device: str = self._model.device.type
        transformer: Any = self._model[0]
        # all-mpnet-base-v2 ships with 384, the paper reads 512.
        self._model.max_seq_length = min(max_tokens, longest_text(transformer.auto_model.config))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of `texts`, N x D."""
        vectors = self._model.encode(
            list(texts), batch_size=16, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


def longest_text(config: Any) -> int:
    """Tokens that a transformer has positions for.

    RoBERTa and its kin count positions from the padding token's id plus one.
    """
    positions: int = getattr(config, "max_position_embeddings", None) or 1_000_000
    offset = config.pad_token_id + 1 if config.model_type in OFFSET_POSITIONS else 0
    return positions - offset

"""The frozen encoder that turns a context into a vector (section 3.2 of the paper)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hierrouter import hub
from hierrouter.catalogue import READ_MORE
from hierrouter.errors import HierRouterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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


def encoder_identity(
    config: EncoderConfig, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What tells one encoder from another, without loading it.

    Two encoders with the same identity give the same vectors.

    Args:
        config: the encoder.
        known: the identity that a tree or router remembers: if it came from the mirror, it is taken
            from there again.
    """
    if config.model == HASHING:
        return {"model": HASHING, "dimensions": config.dimensions}
    if config.model == IMPORTED:
        # The name that was given at the import, or a digest of the vectors.
        return {"model": IMPORTED, "dimensions": config.dimensions, "named": config.revision}
    snapshot = _fetch(config, known)
    return {
        "model": config.model,
        "revision": snapshot.revision,
        "digest": snapshot.digest,
        "max_tokens": config.max_tokens,
    }


def _fetch(config: EncoderConfig, known: Mapping[str, Any] | None) -> hub.Snapshot:
    same = known if known is not None and known.get("model") == config.model else {}
    return hub.fetch_model(config.model, config.revision, same.get("digest"))


def _pinned(config: EncoderConfig, known: Mapping[str, Any] | None) -> EncoderConfig:
    """The encoder at the hub's commit that is remembered of it: its branch may have moved."""
    if known is None or known.get("model") != config.model or not known.get("revision"):
        return config
    return config.model_copy(update={"revision": known["revision"]})


def open_encoder(config: EncoderConfig, known: Mapping[str, Any] | None = None) -> Encoder:
    """Loads the encoder that `config` names.

    Args:
        config: the encoder.
        known: as for `encoder_identity`; of the hub, its commit is taken.

    Raises:
        HierRouterError: it cannot be had or is no sentence-transformers model.
    """
    if config.model == HASHING:
        return HashingEncoder(config.dimensions)
    if config.model == IMPORTED:
        raise HierRouterError(
            "the vectors of these prompts were imported, and the encoder that made them is not "
            "at hand, so no new text can be read; import with --same-encoder and that encoder in "
            "pool.encoder, or without vectors, and train again"
        )
    return SentenceEncoder(_fetch(_pinned(config, known), known).folder, config.max_tokens)


def open_matching_encoder(config: EncoderConfig, identity: dict[str, Any]) -> Encoder:
    """Loads the encoder of a trained router.

    Args:
        config: the encoder's configuration, as the router remembers it.
        identity: its `encoder_identity` when the router was trained.

    Raises:
        HierRouterError: what is to be had now is another encoder.
    """
    if config.model == IMPORTED:
        return open_encoder(config)  # which says why there is none
    here = encoder_identity(_pinned(config, identity), identity)
    if here != identity:
        raise HierRouterError(
            f"{config.model} is not the encoder that this router was trained with "
            f"({_told(here)} here, {_told(identity)} then); where that is to be had is said in "
            f"{READ_MORE}, else collect and train anew"
        )
    return open_encoder(config, identity)


def _told(identity: Mapping[str, Any]) -> str:
    """What tells an encoder from others, for people."""
    revision, digest = identity.get("revision"), str(identity.get("digest"))[:12]
    return f"revision {str(revision)[:12]}" if revision else f"digest {digest}"


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

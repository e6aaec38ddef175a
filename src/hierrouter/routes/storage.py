"""What nodes and embeddings take on disk, roughly; a tree's own files correct it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.routes.encoder import HASHING

if TYPE_CHECKING:
    from hierrouter.config import PoolConfig
    from hierrouter.routes.calls import Call

FILE_BYTES, NODE_BYTES, TOKEN_BYTES = 4500.0, 65.0, 1.1
"""Of a file of nodes, of a node in it, of a written token: compressed, with small models' text."""
WIDTH = 768
"""Numbers of a vector, a byte each, where the encoder was not used yet."""
VECTOR_BYTES = 70
"""What lies beside a vector: its scale and the digest of its text."""


def node_bytes(nodes: float, tokens_out: float, files: float) -> float:
    """Bytes of so many nodes with so many distinct written tokens in so many files."""
    return files * FILE_BYTES + nodes * NODE_BYTES + tokens_out * TOKEN_BYTES


def text_bytes(pool: PoolConfig) -> float:
    """Bytes of one encoded text."""
    width = pool.encoder.dimensions if pool.encoder.model == HASHING else WIDTH
    return float(width + VECTOR_BYTES)


def texts_after(call: Call, members: set[str], pool: PoolConfig) -> int:
    """How many new texts are encoded once a call is answered.

    Args:
        call: the call.
        members: names of the models that are routed to.
        pool: says how many views are encoded.
    """
    routed = set(call.models) <= members
    if routed and (call.role == "analyze" or len(call.models) == 1):
        return len(pool.encoder.views)
    return 0

"""Checking a tree of imported outcomes: that all of it can be read, and that it fits together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.data.queries import digest_queries, read_queries
from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.routes.embed import embedding_files, read_bytes
from hierrouter.routes.imported.fingerprint import kept_fingerprint
from hierrouter.routes.imported.store import (
    OUTCOMES,
    embeddings_of,
    file_digest,
    names_of,
    read_columns,
    read_table,
    tree_digest,
)
from hierrouter.routes.tree import QUERIES

if TYPE_CHECKING:
    from pathlib import Path


def verify_imported(tree: Path, info: dict[str, Any]) -> list[str]:
    """Reads every file whole and computes its digests anew.

    Args:
        tree: the folder.
        info: its `tree.json`.

    Returns:
        What is wrong, a line each; nothing if all is well.
    """
    again = "run the same `hierrouter import-outcomes` again"
    said = info["outcomes"]
    faults = []
    for name in (QUERIES, OUTCOMES):
        try:
            if file_digest(tree / name) != said["files"][name]:
                faults.append(f"{tree / name} is not the file that tree.json describes; {again}")
        except OSError as error:
            faults.append(f"{tree / name} cannot be read ({error.strerror}); {again}")
    if faults:
        return faults
    try:
        queries = read_queries(tree / QUERIES)
        models, references = names_of(info)
        names = [*models, *references]
        score, cost = (read_table(tree, info, names, each) for each in ("score", "cost"))
        digests = read_columns(tree, info, OUTCOMES, ("text_digest",))["text_digest"].to_pylist()
    except HierRouterError as error:
        return [str(error)]
    if digest_queries(queries) != info["query_digest"]:
        faults.append(f"{tree / QUERIES} holds other queries than tree.json says; {again}")
    vectors = said.get("vectors")
    if tree_digest(info["query_digest"], names, (score, cost), vectors) != said["tree_digest"]:
        faults.append(f"{tree / OUTCOMES} holds other outcomes than tree.json says; {again}")
    if (np.isnan(score) != np.isnan(cost)).any():
        faults.append(f"{tree / OUTCOMES} has scores without costs, or costs without; {again}")
    folder, known, damaged = embeddings_of(tree, info), set[str](), False
    for path in embedding_files(folder):
        try:
            keys, scale, _ = read_bytes(path)
        except DamagedFileError:
            faults.append(f"{path} cannot be read back; {again}")
            damaged = True
            continue
        known.update(keys)
        if not np.isfinite(scale).all():
            faults.append(
                f"{path} holds numbers that are not finite; make these vectors anew, and import "
                "them"
            )
    if missing := len(set(digests) - known):
        faults.append(f"{missing:,} prompts have no vector yet; {again}")
    elif vectors and not damaged and kept_fingerprint(folder, digests) != vectors:
        faults.append(f"{folder} holds other vectors than tree.json says; {again}")
    return faults

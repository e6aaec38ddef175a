"""Recording the route tree: the stage that asks models, scores answers and embeds contexts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hierrouter.data.queries import read_queries
from hierrouter.files import claim_folder, is_remote, read_json
from hierrouter.progress import say
from hierrouter.routes.calls import WHOLE, Part, in_parts
from hierrouter.routes.embed import embed_tree
from hierrouter.routes.journal import note_recording
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.recorder import Recorder
from hierrouter.routes.scores import score_tree
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import PoolConfig


def collect_routes(
    config: PoolConfig,
    queries: Path,
    out: Path,
    part: Part = WHOLE,
    part_size: int | None = None,
    max_dollars: float | None = None,
) -> Path:
    """Records the full tree of every query, and each reference model's direct answer.

    Nodes are generated depth by depth and model by model, and committed unit by unit; what is
    committed is never generated again, so the same call goes on after any interruption. Then
    answers are scored and contexts embedded.

    Args:
        config: the pool part of a config.
        queries: `queries.parquet` of `sample_queries`, or its folder.
        out: the folder of the tree.
        part: what of the tree is wanted now.
        part_size: so many queries of each task are finished, scored and embedded before the next:
            first all direct answers in this way, then all other nodes. None: all at once.
        max_dollars: what these calls may cost by the pool's rates. Never exceeded with local
            models; the prompts of endpoints are counted by an estimate.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` is not ours, or holds the tree of another pool.
        DamagedFileError: a file of the tree cannot be read back; the same call then goes on.
        RefusedError: an endpoint refused some calls; all others are recorded, scored and embedded.
        HierRouterError: the disk is full, or another process records into `out`.
    """
    table = queries / "queries.parquet" if queries.is_dir() else queries
    sampled = read_queries(table)
    origin = table.with_name("queries.json")
    claim_folder(out, "tree.json")
    with sole_writer(out):
        data = read_json(origin) if origin.exists() else {}
        tree = RouteTree.create_or_open(out, config, sampled, data)
        recorder = Recorder(tree, config, max_dollars)
        for each in [part] if part_size is None else in_parts(tree.queries, part, part_size):
            _record(recorder, each, out)
            # Others may have recorded into the same object store meanwhile.
            present = RouteTree(out) if is_remote(out) else tree
            score_tree(present)
            embed_tree(present, config.encoder)
            if recorder.out_of_money:
                break
        if max_dollars is not None:
            say(f"these calls cost ${recorder.spent_usd:.4f} of ${max_dollars:g}")
        recorder.complain()
    return out


def _record(recorder: Recorder, part: Part, out: Path) -> None:
    """Records a part and notes, however it ends, what was recorded and how long it took."""
    before, started = recorder.recorded, time.monotonic()
    try:
        recorder.record(part)
    finally:
        if recorder.recorded > before:
            note_recording(out, recorder.recorded - before, time.monotonic() - started)

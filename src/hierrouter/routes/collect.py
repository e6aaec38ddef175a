"""Recording the route tree: the stage that asks models, scores answers and embeds contexts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hierrouter.data.queries import read_queries
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import claim_folder, is_remote, read_json
from hierrouter.progress import say
from hierrouter.routes.calls import WHOLE, Part, in_parts
from hierrouter.routes.embed import embed_tree
from hierrouter.routes.journal import Recording
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.recorder import Recorder
from hierrouter.routes.scores import score_tree
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hierrouter.config import PoolConfig
    from hierrouter.routes.nodes import Node


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
    answers are scored and contexts embedded, also where a model failed.

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
        tree = _NotedTree.create_or_open(out, config, sampled, data)
        assert isinstance(tree, _NotedTree)
        recorder = Recorder(tree, config, max_dollars)
        # Only now: nodes that are moved from one file to another are not recorded.
        tree.journal = journal = Recording(out)
        derived = False
        for each in [part] if part_size is None else in_parts(tree.queries, part, part_size):
            before = recorder.recorded
            try:
                _record(recorder, each, journal)
            except (ConfigError, DamagedFileError):
                raise
            except HierRouterError:
                # A model may be away for days; what was answered can be trained on until then.
                with suppress(HierRouterError):
                    _derive(tree, config)
                raise
            if recorder.recorded > before:
                _derive(tree, config)
                derived = True
            if recorder.out_of_money:
                break
        if not derived:
            _derive(tree, config)
        if max_dollars is not None:
            say(f"these calls cost ${recorder.spent_usd:.4f} of ${max_dollars:g}")
        recorder.complain()
    return out


def _record(recorder: Recorder, part: Part, journal: Recording) -> None:
    """Records a part and notes, however it ends, what was recorded and how long it took."""
    try:
        with journal.running():
            recorder.record(part)
    except BaseException:
        # What stopped the recording is what is to be said.
        with suppress(HierRouterError):
            journal.write()
        raise
    journal.write()


def _derive(tree: RouteTree, config: PoolConfig) -> None:
    """Scores and embeds what is recorded."""
    # Others may have recorded into the same object store meanwhile.
    present = RouteTree(tree.folder) if is_remote(tree.folder) else tree
    score_tree(present)
    embed_tree(present, config.encoder)


class _NotedTree(RouteTree):
    """A tree whose journal tells of nodes as they are committed, and not only at the end."""

    journal: Recording | None = None

    def commit(self, name: str, nodes: Sequence[Node]) -> None:
        """Adds nodes as one file, all or none, and counts them."""
        super().commit(name, nodes)
        if self.journal is not None:
            self.journal.add(len(nodes))

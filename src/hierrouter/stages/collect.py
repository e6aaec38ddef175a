"""Recording in shards that outlive their pods, and joining them, as stages of a pipeline."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from hierrouter.config import PoolConfig
from hierrouter.configfile import load_part
from hierrouter.data.queries import digest_queries, read_queries
from hierrouter.errors import BusyError, ConfigError, DamagedFileError, RefusedError
from hierrouter.files import digest_of, folder_at
from hierrouter.progress import say
from hierrouter.routes.calls import Part, Shard, unit_numbers
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import tree_info
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import merge_trees

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from hierrouter.data.queries import Query

WHATEVER = ("base_rate", "billion_parameters", "endpoint")
"""What of a model may change without its replies being others."""
DIGEST = "#"
"""Stands before the digest in what a shard hands on."""
BUSY_S = 60.0
"""Seconds between two looks at a shard that another run is recording."""


def collect_shard(
    pool: str,
    queries: Path,
    shard: str,
    recordings: str,
    direct: bool = False,
    max_dollars: float | None = None,
) -> str:
    """Records one shard where it survives its pod: tried again, it goes on from what is there.

    Args:
        pool: the pool part of a config, as YAML or JSON.
        queries: the folder of the sample.
        shard: "I/N".
        recordings: a folder on a volume, or an address in an object store, shared by all runs.
        direct: only direct answers.
        max_dollars: what this shard's calls may cost; none: anything.

    Returns:
        The shard's tree and its digest, as `merge_shards` takes it. It is below `recordings`, in a
        folder named by queries and pool, so that another run with the same finds it; what it
        shares with others it takes from them.

    Raises:
        ConfigError: `pool`, `shard` or `recordings` is wrong.
        HierRouterError: a model fails; what was answered is kept. Single calls that a server
            refuses are said and left out.
    """
    config, part = load_part(PoolConfig, pool, "pool"), Shard.parse(shard)
    sample = read_queries(queries / "queries.parquet")
    recording = folder_at(recordings) / recording_name(config, sample)
    # What else a tree holds depends on the rest of the pool: runs that differ in it share replies,
    # but neither scores nor vectors.
    rest = digest_of([config.model_dump(mode="json"), direct])[:8]
    folder = recording / f"shard-{part.index}-of-{part.count}-{rest}"
    wanted = Part(direct=direct, shard=part)
    units = unit_numbers(sample, config.queries_per_unit)
    mine = {query_id for query_id, unit in units.items() if part.takes(unit)}
    while True:
        try:
            _take_what_is_there(recording, folder, mine)
            collect_routes(config, queries, folder, wanted, None, max_dollars)
        except BusyError:
            say(f"{folder}: another run is recording this shard; waiting for it")
            threading.Event().wait(BUSY_S)
            continue
        except RefusedError as error:
            say(f"{error}; training leaves these queries out")
        # The digest is for Kubeflow's cache, which looks at names and not at what they name.
        return f"{folder}{DIGEST}{tree_info(folder)['tree_digest']}"


def _take_what_is_there(recording: Path, folder: Path, mine: Collection[str]) -> None:
    """Takes over replies that other runs recorded for the same queries and models.

    They may have cut the recording into another number of shards, or had other rates.
    """
    ours = folder.name.partition("-of-")[2]
    for tree in sorted(path.parent for path in recording.glob("shard-*/tree.json")):
        if tree.name.partition("-of-")[2] == ours:
            continue
        try:
            merge_trees([tree], folder, mine)
        except (ConfigError, DamagedFileError) as error:
            if str(folder) in str(error):
                raise
            say(f"{tree} is left out: {error}")


def recording_name(config: PoolConfig, sample: Sequence[Query]) -> str:
    """What tells recordings apart: the queries, and all of a pool that its replies depend on."""
    described = config.model_dump(mode="json", exclude={"encoder", "batch_tokens"})
    for part in ("models", "references"):
        described[part] = [
            {key: value for key, value in model.items() if key not in WHATEVER}
            for model in described[part]
        ]
    return digest_of([digest_queries(sample), described])[:16]


def merge_shards(shards: Sequence[str], out: Path) -> dict[str, Any]:
    """Joins the shards of one recording to a route tree.

    Args:
        shards: their trees, as `collect_shard` named them.
        out: the folder of the joined tree.

    Returns:
        What to show of it: nodes, queries, digest.

    Raises:
        ConfigError: the shards do not belong together.
        HierRouterError: a shard is missing or damaged.
    """
    folders = [folder_at(shard.rpartition(DIGEST)[0] or shard) for shard in shards]
    tree = RouteTree(merge_trees(folders, out))
    return {
        "nodes": len(tree.nodes),
        "queries": len(tree.queries),
        "digest": tree_info(out)["tree_digest"],
    }

"""Recording in shards that outlive their pods, and joining them, as stages of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.config import PoolConfig
from hierrouter.configfile import load_part
from hierrouter.data.queries import digest_queries, read_queries
from hierrouter.files import digest_of, folder_at
from hierrouter.routes.calls import Part, Shard
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import tree_info
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import merge_trees

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WHATEVER = ("base_rate", "billion_parameters", "endpoint")
"""What of a model may change without its replies being others."""


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
        The shard's tree: below `recordings`, in a folder named by queries and pool, so that
        another run with the same finds it and one with others does not.

    Raises:
        ConfigError: `pool`, `shard` or `recordings` is wrong.
        HierRouterError: a model fails; what was answered is kept.
    """
    config, part = load_part(PoolConfig, pool, "pool"), Shard.parse(shard)
    recording = folder_at(recordings) / recording_name(config, queries)
    folder = recording / f"shard-{part.index}-of-{part.count}"
    # An earlier run may have cut the same recording into another number of shards.
    earlier = sorted(
        path.parent
        for path in recording.glob("shard-*-of-*/tree.json")
        if not path.parent.name.endswith(f"-of-{part.count}")
    )
    if earlier:
        merge_trees(earlier, folder)
    collect_routes(config, queries, folder, Part(direct=direct, shard=part), None, max_dollars)
    return str(folder)


def recording_name(config: PoolConfig, queries: Path) -> str:
    """What tells recordings apart: the queries, and all of a pool that its replies depend on."""
    described = config.model_dump(mode="json", exclude={"encoder", "batch_tokens"})
    for part in ("models", "references"):
        described[part] = [
            {key: value for key, value in model.items() if key not in WHATEVER}
            for model in described[part]
        ]
    sampled = digest_queries(read_queries(queries / "queries.parquet"))
    return digest_of([sampled, described])[:16]


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
    tree = RouteTree(merge_trees([folder_at(shard) for shard in shards], out))
    return {
        "nodes": len(tree.nodes),
        "queries": len(tree.queries),
        "digest": tree_info(out)["tree_digest"],
    }

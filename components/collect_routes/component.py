"""Records one shard of the route tree."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def collect_routes(
    pool: str,
    queries: dsl.Input[dsl.Dataset],
    shard: str,
    recordings: str,
    direct: bool = False,
    max_dollars: float = 0.0,
    gpu_type: str = "",
    gpus: str = "",
    cpus: str = "",
    memory: str = "",
) -> str:
    """Records one shard where it outlives this pod; tried again, it goes on from what is there.

    Args:
        pool: The pool part of the config, as YAML or JSON.
        queries: The folder of the sample.
        shard: "I/N".
        recordings: A folder on a volume, or an address in an object store such as s3://bucket/dir.
        direct: Whether only direct answers are recorded.
        max_dollars: What this shard's calls may cost by the pool's rates; 0 sets no bound.
        gpu_type: The accelerator that this pod asked for, such as nvidia.com/gpu.
        gpus: How many of them.
        cpus: The processors that it asked for.
        memory: The memory that it asked for.

    Returns:
        Where the shard's tree lies, and its digest.
    """
    from pathlib import Path

    from hierrouter.stages.collect import collect_shard

    return collect_shard(pool, Path(queries.path), shard, recordings, direct, max_dollars or None)

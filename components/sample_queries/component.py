"""Samples the queries of all tasks."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sample_queries(data: str, shards: int, queries: dsl.Output[dsl.Dataset]) -> list[str]:
    """Samples queries of every task, and says in which shards they are recorded.

    Args:
        data: The data part of the config, as YAML or JSON.
        shards: How many pods record side by side.
        queries: A folder with queries.parquet and queries.json.

    Returns:
        "0/4", "1/4" and so on, one for each recording pod.
    """
    from pathlib import Path

    from hierrouter.stages.sample import sample

    sampled = sample(data, shards, Path(queries.path))
    queries.metadata.update(sampled.shown)
    return sampled.shards

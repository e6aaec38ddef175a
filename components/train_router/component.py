"""Trains routers, one a seed."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_router(
    training: str,
    seeds: str,
    tree: dsl.Input[dsl.Dataset],
    routers: dsl.Output[dsl.Model],
    gpu_type: str = "",
    gpus: str = "",
    cpus: str = "",
    memory: str = "",
) -> None:
    """Trains one router a seed with PPO on the route tree.

    Args:
        training: The training part of the config, as YAML or JSON; its seed is replaced.
        seeds: Training seeds, separated by commas.
        tree: The folder of the route tree.
        routers: A folder with one router a seed, seed-42 and so on.
        gpu_type: The accelerator that this pod asked for, such as nvidia.com/gpu.
        gpus: How many of them.
        cpus: The processors that it asked for.
        memory: The memory that it asked for.
    """
    from pathlib import Path

    from hierrouter.stages.train import train_seeds

    routers.metadata.update(train_seeds(training, seeds, Path(tree.path), Path(routers.path)))

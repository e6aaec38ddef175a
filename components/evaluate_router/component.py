"""Judges the routers of all seeds and passes on the best."""

from components.image import IMAGE
from kfp import dsl


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_router(
    evaluation: str,
    tree: dsl.Input[dsl.Dataset],
    routers: dsl.Input[list[dsl.Model]],
    router: dsl.Output[dsl.Model],
    evaluated: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Judges every seed's router and its baselines on the test queries; passes on the best seed.

    Args:
        evaluation: The evaluation part of the config, as YAML or JSON.
        tree: The folder of the route tree.
        routers: Folders with one router a seed.
        router: The router best on validation.
        evaluated: The folder of its evaluation, with those of the other seeds below seeds.
        metrics: Means of every policy at the headline alpha.
        table: The policies as a table, with intervals.
        report: The whole report.
    """
    from pathlib import Path

    from hierrouter.stages.evaluate import evaluate_seeds

    measured = evaluate_seeds(
        evaluation,
        Path(tree.path),
        [Path(each.path) for each in routers],
        Path(router.path),
        Path(evaluated.path),
        Path(report.path),
        Path(table.path),
    )
    for name, value in measured.items():
        metrics.log_metric(name, value)

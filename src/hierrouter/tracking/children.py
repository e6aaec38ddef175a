"""Child runs, one a training seed, with the same names of parameters and metrics as their parent.

So MLflow's tables, charts and parallel coordinates show how far the seeds of one recipe lie apart,
beside how far recipes do.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.evaluation.evaluate import METRICS, RECORDS, ROUTERS
from hierrouter.files import read_json
from hierrouter.learning.router import Router
from hierrouter.tracking.values import (
    LOGGED,
    POLICIES,
    headline_metrics,
    is_logged,
    learning_points,
    log_values,
    parameters,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from hierrouter.config import EvaluationConfig

SEED = "hierrouter.training_seed"
PARENT = "mlflow.parentRunId"
KEPT_TAGS = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
"""Where a child comes from, as its parent does."""


@dataclass(frozen=True)
class Child:
    """What the run of one training seed gets."""

    seed: int
    settings: dict[str, str]
    metrics: dict[str, float]
    points: list[tuple[str, float, int]]
    """Of the learning curve: name, value and iteration."""


def judged_child(config: EvaluationConfig, router: Path, evaluation: Path) -> Child:
    """A child for a router that has an evaluation of its own.

    Args:
        config: the evaluation part of a config.
        router: the folder of the router.
        evaluation: the folder of its evaluation; of one with several seeds only the router's own
            counts.
    """
    metrics = read_json(evaluation / METRICS)
    if int(metrics.get("seeds", 1)) == 1:
        return _child(config, router, headline_metrics(metrics))
    return _child(config, router, seed_metrics(_records(evaluation / RECORDS), metrics, 0))


def children_in(
    config: EvaluationConfig, router: Path, evaluation: Path, metrics: dict[str, Any]
) -> list[Child]:
    """The children of an evaluation: none if it has a single training seed.

    Args:
        config: the evaluation part of a config.
        router: the folder of the evaluated router.
        evaluation: the folder of its evaluation, with the routers of the other seeds.
        metrics: the content of metrics.json.

    Returns:
        One a seed, the router's own first. The metrics are means over the test queries: what was
        cross-fitted is known of all seeds together only.

    Raises:
        HierRouterError: the router of a seed is not in the evaluation's folder any more.
        DamagedFileError: `per_query.parquet` does not hold what metrics.json says.
    """
    count = int(metrics.get("seeds", 1))
    if count == 1:
        return []
    first = int(metrics["router"]["training_seed"])
    trained = evaluation / ROUTERS / "split" / "router"
    folders = [router, *(trained / str(first + number) for number in range(1, count))]
    for folder in folders:
        if not (folder / "router.json").is_file():
            raise HierRouterError(
                f"{folder} is gone, the router of a training seed of this evaluation; run "
                "`hierrouter evaluate` again, which trains what is missing"
            )
    records = _records(evaluation / RECORDS)
    children = [
        _child(config, folder, seed_metrics(records, metrics, number))
        for number, folder in enumerate(folders)
    ]
    # One recipe: the unit of cost, which the others were given, would pass for another setting.
    recipe = children[0].settings
    return [
        replace(child, settings={**recipe, "training.seed": str(child.seed)}) for child in children
    ]


def _child(config: EvaluationConfig, router: Path, metrics: dict[str, float]) -> Child:
    info = Router.load(router).info
    return Child(
        seed=info.training_seed,
        # MLflow names the registered model's alpha among its parent's parameters.
        settings={**parameters(info, config.model_dump(mode="json")), "alpha": str(config.alpha)},
        metrics=metrics,
        points=learning_points(read_json(router / "learning_curve.json")),
    )


def _records(path: Path) -> pa.Table:
    columns = ["policy", "task", "alpha", "seed", "quality", "cost", "relative_cost", "reward"]
    try:
        names = pc.field("policy").cast("string")
        kept = names.isin(POLICIES) | pc.starts_with(names, "single:")
        table = pq.read_table(path, columns=columns, filters=kept)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); evaluate again") from error
    for name in ("policy", "task"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast("string"))
    return table


def seed_metrics(records: pa.Table, metrics: dict[str, Any], number: int) -> dict[str, float]:
    """What `headline_metrics` gives, of one training seed.

    Args:
        records: the rows of per_query.parquet.
        metrics: the content of metrics.json.
        number: which seed, from 0. Policies without seeds are the same for all.

    Raises:
        DamagedFileError: there are no rows of this seed.
    """
    mine = pc.and_(pc.equal(records["policy"], "router"), pc.equal(records["seed"], number))
    router = records.filter(mine)
    others = records.filter(
        pc.and_(pc.not_equal(records["policy"], "router"), pc.equal(records["seed"], 0))
    )
    headline = metrics["alpha"]
    at = router.filter(pc.equal(router["alpha"], headline))
    if not len(at):
        raise DamagedFileError(
            f"{RECORDS} has no row of training seed {number} at alpha {headline:g}; evaluate again"
        )
    found = _means("router", at, (*LOGGED, "relative_cost"))
    rest = others.filter(pc.equal(others["alpha"], headline))
    for name in metrics["policies"]:
        if name != "router" and is_logged(name):
            found |= _means(name, rest.filter(pc.equal(rest["policy"], name)))
    for task in metrics["policies"]["router"]["tasks"]:
        found |= _means(f"router/{task}", at.filter(pc.equal(at["task"], task)))
    # The curve has a point that the records lack (`summary.SAVING`), so it is not made of these.
    if areas := metrics.get("tradeoff", {}).get("aiq_by_seed"):
        found["router/aiq"] = float(areas[number])
    return found


def _means(name: str, rows: pa.Table, measures: Sequence[str] = LOGGED) -> dict[str, float]:
    return {f"{name}/{measure}": float(pc.mean(rows[measure]).as_py()) for measure in measures}


def write_children(client: MlflowClient, parent: str, children: Iterable[Child]) -> list[str]:
    """Makes the runs; those that are there already are kept.

    Args:
        client: of the tracking store.
        parent: the run that they belong to. It is neither made nor ended here.
        children: what they get.

    Returns:
        The ids of the runs.
    """
    wanted = list(children)
    if not wanted:
        return []
    run = client.get_run(parent)
    known = {}
    for each in child_runs(client, run.info.experiment_id, parent):
        if each.info.status == "FINISHED":
            known[each.data.tags.get(SEED)] = each.info.run_id
        elif SEED in each.data.tags:
            client.delete_run(each.info.run_id)  # of a try that was cut short
    return [known.get(str(child.seed)) or _write(client, run, child) for child in wanted]


def end_children(client: MlflowClient, parent: Run, status: str) -> None:
    """Ends the children that were left open by a process that was killed."""
    for each in child_runs(client, parent.info.experiment_id, parent.info.run_id):
        if SEED in each.data.tags and each.info.status == "RUNNING":
            client.set_terminated(each.info.run_id, status)


def child_runs(client: MlflowClient, experiment: str, parent: str) -> list[Run]:
    """The runs below a run."""
    return list(client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'"))


def _write(client: MlflowClient, parent: Run, child: Child) -> str:
    from mlflow.exceptions import MlflowException

    tags = {name: value for name, value in parent.data.tags.items() if name in KEPT_TAGS}
    tags |= {PARENT: parent.info.run_id, SEED: str(child.seed), "mlflow.source.name": "hierrouter"}
    # Children of several parents are compared, too.
    name = f"seed {child.seed} of {parent.info.run_name}"
    run = client.create_run(parent.info.experiment_id, tags=tags, run_name=name).info.run_id
    values = [(name, value, 0) for name, value in child.metrics.items()] + child.points
    try:
        log_values(client, run, child.settings, values)
    except BaseException:
        with contextlib.suppress(MlflowException):  # the server may be gone
            client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return str(run)

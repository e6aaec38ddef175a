"""The stage that brings a router and its evaluation to MLflow: one run, one registered version."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError
from hierrouter.evaluation.evaluate import RESULTS
from hierrouter.progress import say
from hierrouter.tracking.children import child_runs, write_children
from hierrouter.tracking.contest import settle
from hierrouter.tracking.origin import has_ended, process, user
from hierrouter.tracking.package import copy_router, log_router_model
from hierrouter.tracking.record import KEY, PROCESS, Record, read_record
from hierrouter.tracking.resolve import EVALUATION
from hierrouter.tracking.store import connected, shown_uri
from hierrouter.tracking.values import headline_metrics, log_values, parameters

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

    from hierrouter.config import EvaluationConfig
    from hierrouter.learning.router import RouterInfo

COMPLETE = "hierrouter.complete"
"""Tag of a run that holds everything; what is left to do is the version."""
PATIENCE_MS = 15 * 60 * 1000
"""How long an incomplete run of ours may still be in the making, in milliseconds."""


@dataclass(frozen=True)
class Registered:
    """Where a router went.

    Attributes:
        name: the registered model.
        version: its version, from 1.
        run_id: the MLflow run.
        experiment_id: the experiment that the run is in.
        aliases: the aliases that the version has now.
        reused: whether it had been registered before.
        reason: why the version did or did not become champion, or that this was never asked, as of
            a version from before there was a rule.
    """

    name: str
    version: int
    run_id: str
    experiment_id: str
    aliases: tuple[str, ...]
    reused: bool
    reason: str

    @property
    def uri(self) -> str:
        """The version for MLflow and `--router`: `models:/hierrouter/3`."""
        return f"models:/{self.name}/{self.version}"


def register_router(
    config: EvaluationConfig,
    router: Path,
    evaluation: Path,
    tree: Path | None = None,
    run_id: str | None = None,
) -> Registered:
    """Records a router in MLflow and registers it.

    The new version becomes `challenger`. It becomes `champion` if there is none, or if it is better
    than the champion (`champion.judge`); why is written to the version. The same router with the
    same evaluation and data sets is registered once: a second call finds the first one's run and
    version, or makes the version alone where it was deleted. A run of this user's that was cut
    short is removed; one that somebody may still be filling is left alone.

    Args:
        config: the evaluation part of a config: experiment and registered name.
        router: the folder of a router.
        evaluation: the folder of its evaluation.
        tree: the route tree, for the run's data sets, and to play the champion on; none: the run
            has no data sets, and a champion stays.
        run_id: a run that is open already and gets all this, whatever was registered before; it
            stays open. None: one of its own.

    Returns:
        The version and its run.

    Raises:
        HierRouterError: router, evaluation and tree do not belong together, or MLflow refuses.
        DamagedFileError: a file cannot be read.
        UnreachableError: MLflow does not answer.
    """
    record = read_record(config, router, evaluation, tree)
    with connected() as client:
        if run_id is None:
            experiment = experiment_id(client, config.experiment)
        else:
            experiment = str(client.get_run(run_id).info.experiment_id)
            _fill_open(client, run_id, record)
        runs = _earlier_runs(client, experiment, record.digest)
        known = _known(client, runs, config.registered_name)
        version = known or _new_version(client, experiment, runs, record)
        reason = settle(client, version, record, new=known is None)
        aliases = _aliases_of(client, version)
    registered = Registered(
        name=version.name,
        version=int(version.version),
        run_id=str(version.run_id),
        experiment_id=experiment,
        aliases=aliases,
        reused=known is not None,
        reason=reason,
    )
    verb = "was registered before as" if registered.reused else "registered as"
    say(
        f"router {verb} {registered.uri} ({', '.join(aliases) or 'no alias'}) in MLflow at "
        f"{shown_uri()}"
    )
    say(reason)
    return registered


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made if there is none of that name.

    Raises:
        HierRouterError: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise HierRouterError(
            f"the MLflow experiment {name} was deleted; restore it, or name another "
            "(evaluation.experiment)"
        )
    return str(found.experiment_id)


def _earlier_runs(client: MlflowClient, experiment: str, digest: str) -> list[Run]:
    """The complete runs of the same; of the others those that are ours and dead are removed."""
    complete = []
    for run in client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{digest}'"):
        if COMPLETE in run.data.tags:
            complete.append(run)
        elif _is_abandoned(run):
            _delete(client, run)
    return complete


def _is_abandoned(run: Run) -> bool:
    """Whether an incomplete run is of this user, here, and nobody fills it any more."""
    tags = run.data.tags
    filler = tags.get(PROCESS, "")
    here = filler.rpartition("/")[0] == process().rpartition("/")[0]
    if not here or tags.get("mlflow.user") != user():
        return False
    return has_ended(filler) or time.time() * 1000 - run.info.start_time > PATIENCE_MS


def _known(client: MlflowClient, runs: list[Run], name: str) -> ModelVersion | None:
    """The version that was made of one of these runs."""
    for run in runs:
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            if version.name == name:
                # A search gives no aliases.
                return client.get_model_version(name, version.version)
    return None


def _new_version(
    client: MlflowClient, experiment: str, runs: list[Run], record: Record
) -> ModelVersion:
    """Everything in a run, unless one of `runs` has it, then, as the last step, the version."""
    for run in runs:
        for model in _models_of(client, run):
            return _create_version(client, record, str(model.model_uri))
    run = client.create_run(experiment, tags=record.tags(), run_name=_run_name(record.info))
    run_id = run.info.run_id
    try:
        model_uri = _fill(client, run_id, record)
    except BaseException:
        _discard(client, run_id)
        raise
    return _create_version(client, record, model_uri)


def _fill_open(client: MlflowClient, run_id: str, record: Record) -> None:
    """Fills a run that somebody else opened and will end, unless that was done before."""
    run = client.get_run(run_id)
    if COMPLETE in run.data.tags:
        return
    for key, value in record.tags().items():
        # Whoever opened the run has said where it comes from.
        if not key.startswith("mlflow.") or key == "mlflow.note.content":
            client.set_tag(run_id, key, value)
    _delete_models(client, run)  # of a try that failed; it has also set the run's status
    _fill(client, run_id, record)
    client.update_run(run_id, "RUNNING")


def _run_name(info: RouterInfo) -> str:
    # MLflow's charts cut names off: what tells two runs apart comes first.
    kind = f"{info.moves}-{info.metric}-{len(info.models)}x{info.hops}-seed{info.training_seed}"
    return f"{info.weights_sha256[:6]}-{kind}"


def _fill(client: MlflowClient, run_id: str, record: Record) -> str:
    """Writes parameters, model, metrics, data sets and files; gives the model's URI."""
    import mlflow
    from mlflow.data.pandas_dataset import from_pandas

    settings = parameters(record.info, record.config.model_dump(mode="json"))
    with (
        mlflow.start_run(run_id=run_id, nested=True, log_system_metrics=False),
        tempfile.TemporaryDirectory(prefix="hierrouter-") as scratch,
    ):
        copy = copy_router(record.router, Path(scratch, "router"), record.card)
        model = log_router_model(record.info, copy, record.config.alpha, Path(scratch, "code"))
        for split, (frame, digest) in record.queries.items():
            dataset = from_pandas(
                frame, source=str(record.queries_path), name=f"queries-{split}", digest=digest[:32]
            )
            mlflow.log_input(dataset, context=split)
        headline = [(name, value, 0) for name, value in headline_metrics(record.metrics).items()]
        log_values(client, run_id, settings, headline, model.model_id)
        log_values(client, run_id, {}, record.points)
        client.log_artifacts(run_id, str(copy), "router")
        for name in RESULTS:
            client.log_artifact(run_id, str(record.evaluation / name), EVALUATION)
    write_children(client, run_id, record.children)
    client.set_tag(run_id, COMPLETE, "true")
    return str(model.model_uri)


def _create_version(client: MlflowClient, record: Record, model_uri: str) -> ModelVersion:
    import mlflow

    made = mlflow.register_model(
        model_uri, record.config.registered_name, tags={KEY: record.digest}
    )
    return client.get_model_version(made.name, made.version)


def _discard(client: MlflowClient, run_id: str) -> None:
    """Removes a run that was cut short, if MLflow can still be asked."""
    from mlflow.exceptions import MlflowException

    try:
        _delete(client, client.get_run(run_id))
    except MlflowException:
        # A later registration of the same router finds the run by its tag and removes it.
        return


def _delete(client: MlflowClient, run: Run) -> None:
    """Removes a run with its children and its model."""
    _delete_models(client, run)
    for child in child_runs(client, run.info.experiment_id, run.info.run_id):
        client.delete_run(child.info.run_id)
    client.delete_run(run.info.run_id)


def _models_of(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The models that were logged in a run."""
    of_run = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=of_run))


def _delete_models(client: MlflowClient, run: Run) -> None:
    """Removes a run's models, which MLflow keeps where it deletes the run."""
    for model in _models_of(client, run):
        client.delete_logged_model(model.model_id)


def _aliases_of(client: MlflowClient, version: ModelVersion) -> tuple[str, ...]:
    aliases = client.get_registered_model(version.name).aliases
    return tuple(sorted(name for name, at in aliases.items() if int(at) == int(version.version)))

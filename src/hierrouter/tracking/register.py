"""The stage that brings a router and its evaluation to MLflow: one run, one registered version."""

from __future__ import annotations

import getpass
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierrouter.errors import DamagedFileError, HierRouterError
from hierrouter.files import digest_of, read_json, sha256_file
from hierrouter.learning.card import model_card
from hierrouter.learning.router import Router
from hierrouter.progress import say
from hierrouter.tracking.package import copy_router, log_router_model
from hierrouter.tracking.store import connected, shown_uri
from hierrouter.tracking.values import (
    evaluation_table,
    headline_metrics,
    learning_points,
    parameters,
    query_sets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from hierrouter.config import EvaluationConfig
    from hierrouter.learning.router import RouterInfo

CHALLENGER, CHAMPION = "challenger", "champion"
EVALUATION_FILES = ("metrics.json", "per_query.parquet", "report.html")
KEY = "hierrouter.registration"
"""Tag with the digest of all that a run records; it tells a second registration of the same."""


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
    """

    name: str
    version: int
    run_id: str
    experiment_id: str
    aliases: tuple[str, ...]
    reused: bool

    @property
    def uri(self) -> str:
        """The version for MLflow and `--router`: `models:/hierrouter/3`."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class _Record:
    """All that a run will hold, read before MLflow is asked anything."""

    config: EvaluationConfig
    info: RouterInfo
    router: Path
    evaluation: Path
    metrics: dict[str, Any]
    card: str
    points: list[tuple[str, float, int]]
    queries: dict[str, tuple[Any, str]]
    queries_path: Path | None

    @property
    def digest(self) -> str:
        """The same for the same router and evaluation, wherever their folders lie."""
        return digest_of(
            [
                sha256_file(self.router / "router.json"),
                self.info.weights_sha256,
                sha256_file(self.evaluation / "metrics.json"),
            ]
        )

    def tags(self) -> dict[str, str]:
        """What the run came from."""
        tags = {
            KEY: self.digest,
            "hierrouter.version": self.info.library_version,
            "hierrouter.config_digest": digest_of(self.info.config),
            "hierrouter.query_digest": self.info.query_digest,
            "hierrouter.tree_digest": self.info.tree_digest,
            "hierrouter.weights_sha256": self.info.weights_sha256,
            "mlflow.note.content": self.card,
            "mlflow.source.name": "hierrouter",
            "mlflow.source.type": "LOCAL",
        }
        if user := _user():
            tags["mlflow.user"] = user
        if commit := git_commit():
            tags["mlflow.source.git.commit"] = commit
        return tags


def register_router(
    config: EvaluationConfig, router: Path, evaluation: Path, tree: Path | None = None
) -> Registered:
    """Records a router in MLflow and registers it.

    The new version becomes `challenger`; it becomes `champion` only if there is none. The same
    router with the same evaluation is registered once: a second call finds the first one's run
    and version. A run that was cut short is removed, by this call or the next.

    Args:
        config: the evaluation part of a config: experiment and registered name.
        router: the folder of a router.
        evaluation: the folder of its evaluation.
        tree: the route tree, for the run's data sets; none: the run has none.

    Returns:
        The version and its run.

    Raises:
        HierRouterError: router and evaluation do not belong together, or MLflow refuses.
        DamagedFileError: a file cannot be read.
        UnreachableError: MLflow does not answer.
    """
    record = _read(config, router, evaluation, tree)
    with connected() as client:
        experiment = _experiment(client, config.experiment)
        known = _known(client, experiment, record.digest, config.registered_name)
        version = known or _new_version(client, experiment, record)
        aliases = _point_aliases(client, version)
    registered = Registered(
        name=version.name,
        version=int(version.version),
        run_id=str(version.run_id),
        experiment_id=experiment,
        aliases=aliases,
        reused=known is not None,
    )
    verb = "was registered before as" if registered.reused else "registered as"
    say(
        f"router {verb} {registered.uri} ({', '.join(aliases) or 'no alias'}) in MLflow at "
        f"{shown_uri()}"
    )
    return registered


def git_commit() -> str | None:
    """The commit of the working directory's checkout: GIT_COMMIT (for images), else git's word."""
    if commit := os.environ.get("GIT_COMMIT"):
        return commit
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return None


def _read(config: EvaluationConfig, router: Path, evaluation: Path, tree: Path | None) -> _Record:
    info = Router.load(router).info
    for name in EVALUATION_FILES:
        if not (evaluation / name).is_file():
            raise HierRouterError(
                f"{evaluation} holds no {name}; make it with `hierrouter evaluate`"
            )
    metrics = read_json(evaluation / "metrics.json")
    try:
        judged = metrics["router"]["weights_sha256"]
        headline_metrics(metrics)
        card = model_card(info, evaluation_table(metrics))
    except (KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{evaluation / 'metrics.json'} has no {error}; evaluate the router anew"
        ) from error
    if judged != info.weights_sha256:
        raise HierRouterError(
            f"{evaluation} is the evaluation of another router than {router}; evaluate this one"
        )
    path = None if tree is None else tree / "queries.parquet"
    return _Record(
        config=config,
        info=info,
        router=router,
        evaluation=evaluation,
        metrics=metrics,
        card=card,
        points=learning_points(read_json(router / "learning_curve.json")),
        queries={} if path is None else query_sets(path),
        queries_path=path,
    )


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise HierRouterError(
            f"the MLflow experiment {name} was deleted; restore it, or name another "
            "(evaluation.experiment)"
        )
    return str(found.experiment_id)


def _known(client: MlflowClient, experiment: str, digest: str, name: str) -> ModelVersion | None:
    """The version of an earlier registration of the same; what it left half done is removed."""
    for run in client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{digest}'"):
        versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
        for version in versions:
            if version.name == name:
                # A search gives no aliases.
                return client.get_model_version(name, version.version)
        if not versions:  # the version comes last, so the run was cut short
            client.delete_run(run.info.run_id)
    return None


def _new_version(client: MlflowClient, experiment: str, record: _Record) -> ModelVersion:
    """Everything in a run, then, as the last step, the version."""
    run = client.create_run(experiment, tags=record.tags(), run_name=_run_name(record.info))
    run_id = run.info.run_id
    try:
        model_uri = _fill(client, run_id, record)
        return _create_version(client, record, model_uri)
    except BaseException:
        _discard(client, run_id)
        raise


def _run_name(info: RouterInfo) -> str:
    return f"{info.moves}-{info.metric}-{len(info.models)}x{info.hops}-seed{info.training_seed}"


def _fill(client: MlflowClient, run_id: str, record: _Record) -> str:
    """Writes parameters, model, metrics, data sets and files; gives the model's URI."""
    import mlflow
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    settings = parameters(record.info, record.config.model_dump(mode="json"))
    for some in _chunks([Param(key, value) for key, value in settings.items()], 100):
        client.log_batch(run_id, params=some)
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
        values = [
            Metric(name, value, now, 0, model_id=model.model_id)
            for name, value in headline_metrics(record.metrics).items()
        ]
        values += [Metric(name, value, now, step) for name, value, step in record.points]
        for some in _chunks(values, 1000):
            client.log_batch(run_id, metrics=some)
        client.log_artifacts(run_id, str(copy), "router")
        for name in EVALUATION_FILES:
            client.log_artifact(run_id, str(record.evaluation / name), "evaluation")
    return str(model.model_uri)


def _create_version(client: MlflowClient, record: _Record, model_uri: str) -> ModelVersion:
    import mlflow

    made = mlflow.register_model(
        model_uri, record.config.registered_name, tags={KEY: record.digest}
    )
    return client.get_model_version(made.name, made.version)


def _discard(client: MlflowClient, run_id: str) -> None:
    """Removes a run that was cut short, if MLflow can still be asked."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(run_id)
    except MlflowException:
        # The next registration of the same router finds the run by its tag and removes it.
        return


def _point_aliases(client: MlflowClient, version: ModelVersion) -> tuple[str, ...]:
    """`challenger` is the newest version, `champion` what was made it; the first is both."""
    registered = client.get_registered_model(version.name)
    number = int(version.version)
    versions = client.search_model_versions(f"name = '{version.name}'")
    aliases = {name: int(value) for name, value in registered.aliases.items()}
    wanted = {}
    if number == max(int(other.version) for other in versions):
        wanted[CHALLENGER] = number
    if CHAMPION not in aliases:
        wanted[CHAMPION] = number
    for alias, target in wanted.items():
        if aliases.get(alias) != target:
            client.set_registered_model_alias(version.name, alias, str(target))
    return tuple(sorted(name for name, at in {**aliases, **wanted}.items() if at == number))


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])

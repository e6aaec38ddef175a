"""Starting a run of the pipeline on a cluster, now or by a schedule."""

import difflib
import re
from datetime import datetime

from hierrouter.errors import ConfigError
from hierrouter.progress import say
from hierrouter.tracking.pipeline_runs import run_page
from pipelines.client import Cluster
from pipelines.definition import NAME
from pipelines.package import Package

DEFAULT_EXPERIMENT = "hierrouter"
"""Made if it is not there; any other is taken for a slip of the pen then."""


def start(
    cluster: Cluster, package: Package, experiment: str, name: str | None, make: bool = False
) -> str:
    """Starts a run, and says where it can be seen.

    Args:
        cluster: where.
        package: the pipeline and the run's arguments.
        experiment: the Kubeflow experiment that it goes to.
        name: what to call it; none: by the date.
        make: whether the experiment is made if there is none.

    Returns:
        The run's id.

    Raises:
        ConfigError: there is no such experiment; nothing was started.
        HierRouterError: the cluster refuses.
    """
    where = _experiment(cluster, experiment, make)
    title = name or f"{NAME} {datetime.now():%Y-%m-%d %H:%M}"
    with package.on_disk() as path:
        run = cluster.client.run_pipeline(
            where, title, path, params=_arguments(cluster, package, title)
        )
    say(f"run         {title}")
    say(f"in Kubeflow {run_page(cluster.host, run.run_id)}")
    say(f"experiment  {cluster.host.rstrip('/')}/#/experiments/details/{where}")
    return str(run.run_id)


def repeat(
    cluster: Cluster,
    package: Package,
    experiment: str,
    name: str | None,
    make: bool,
    cron: str,
) -> str:
    """Runs the pipeline again and again.

    Args:
        cluster: where.
        package: the pipeline and the runs' arguments.
        experiment: the Kubeflow experiment that they go to.
        name: what to call them.
        make: whether the experiment is made if there is none.
        cron: when: seconds, minutes, hours, day, month, weekday.

    Returns:
        The id of the recurring run.

    Raises:
        ConfigError: `cron` is none, or there is no such experiment.
        HierRouterError: the cluster refuses.
    """
    if len(cron.split()) != 6 or not re.fullmatch(r"[-0-9*/,?LW# ]+", cron):
        raise ConfigError(
            f'--cron "{cron}": Kubeflow takes six fields (seconds, minutes, hours, day, month, '
            'weekday), for example "0 0 3 * * 1" for Mondays at 3'
        )
    where = _experiment(cluster, experiment, make)
    title = name or NAME
    with package.on_disk() as path:
        made = cluster.client.create_recurring_run(
            where,
            title,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            pipeline_package_path=path,
            params=_arguments(cluster, package, title),
        )
    say(f"recurring   {title}, {cron}")
    say(f"in Kubeflow {cluster.host.rstrip('/')}/#/recurringrun/details/{made.recurring_run_id}")
    return str(made.recurring_run_id)


def _arguments(cluster: Cluster, package: Package, title: str) -> dict[str, object]:
    return {"kubeflow_ui": cluster.host, "run_name": title, **package.arguments}


def _experiment(cluster: Cluster, name: str, make: bool) -> str:
    client, namespace = cluster.client, cluster.namespace or None
    found: list[str] = []
    page = ""
    while True:
        listed = client.list_experiments(page_token=page, page_size=100, namespace=namespace)
        for each in listed.experiments or ():
            if each.display_name == name:
                return str(each.experiment_id)
            found.append(each.display_name)
        page = listed.next_page_token or ""
        if not page:
            break
    if not make and name != DEFAULT_EXPERIMENT:
        near = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(found) or 'none'}"
        raise ConfigError(
            f"--experiment {name}: there is no such Kubeflow experiment ({hint}); --new-experiment "
            "makes it"
        )
    return str(client.create_experiment(name, namespace=namespace).experiment_id)

"""Starting a run of the pipeline on a cluster, now or by a schedule."""

import difflib
import re
from datetime import datetime

from hierrouter.errors import ConfigError, UnreachableError
from hierrouter.progress import say
from hierrouter.tracking.pipeline_runs import run_page
from pipelines.client import Cluster, address
from pipelines.definition import NAME
from pipelines.package import Package

LOOPBACK = re.compile(r"https?://(localhost|127\.|\[::1\])")
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
    made = _made(cluster, run.run_id)
    say(f"run         {title}")
    say(f"in Kubeflow {run_page(address(cluster.host), made)}")
    say(f"experiment  {address(cluster.host)}/#/experiments/details/{where}")
    return made


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
    if len(cron.split()) != 6 or not re.fullmatch(r"[-0-9A-Za-z*/,?# ]+", cron):
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
    recurring = _made(cluster, made.recurring_run_id)
    say(f"recurring   {title}, {cron}")
    say(f"in Kubeflow {address(cluster.host)}/#/recurringrun/details/{recurring}")
    return recurring


def _arguments(cluster: Cluster, package: Package, title: str) -> dict[str, object]:
    # A port-forward is an address for nobody else.
    ui = {} if LOOPBACK.match(address(cluster.host)) else {"kubeflow_ui": address(cluster.host)}
    return {**ui, "run_name": title, **package.arguments}


def _made(cluster: Cluster, identifier: str | None) -> str:
    """The id of what was made.

    Raises:
        UnreachableError: there is none: whatever answered is not what it seemed.
    """
    if not identifier:
        raise UnreachableError(
            f"{cluster.host} answers, but names nothing that it made; give the address of "
            "Kubeflow Pipelines' API or of its UI"
        )
    return str(identifier)


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
    return _made(cluster, client.create_experiment(name, namespace=namespace).experiment_id)

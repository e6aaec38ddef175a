"""The pipeline: which component follows on which, with what resources and secrets.

What can change from run to run is a pipeline parameter. What Kubeflow fixes when it compiles
(timeouts, retries, parallelism, whether there are volumes, the image) is in `Compiled`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from components.collect_routes.component import collect_routes
from components.deploy_router.component import deploy_router
from components.evaluate_router.component import evaluate_router
from components.image import IMAGE
from components.merge_routes.component import merge_routes
from components.open_run.component import open_run
from components.register_router.component import register_router
from components.report_exit.component import report_exit
from components.sample_queries.component import sample_queries
from components.train_router.component import train_router
from kfp import dsl, kubernetes

from hierrouter.serving.manifest_settings import SECRETS

NAME = "hierrouter-train-eval"
FIXED = {
    "open-run": ("500m", "1Gi", "2Gi"),
    "sample-queries": ("1", "2Gi", "4Gi"),
    "merge-routes": ("1", "4Gi", "8Gi"),
    "evaluate-router": ("1", "2Gi", "4Gi"),
    "register-router": ("1", "2Gi", "4Gi"),
    "deploy-router": ("500m", "1Gi", "2Gi"),
    "report-exit": ("500m", "1Gi", "2Gi"),
}
"""Processors, memory, and most memory of the tasks that need little; a namespace with a quota
refuses pods that say nothing."""
RECORDINGS, MODELS, AUTHORITIES = "/recordings", "/models", "/etc/hierrouter-ca"
"""Where the volumes and the authorities' certificates are mounted."""
BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""What the libraries that components call servers with look at."""


@dataclass(frozen=True)
class Compiled:
    """What is fixed when the pipeline is compiled.

    Attributes:
        image: the image of all components; by digest for what must not change.
        volumes: whether recordings and models lie on volumes (persistent volume claims). Without,
            `recordings` must be an object store, and every pod downloads its models.
        endpoint_keys: keys of the secret `endpoint_secret`, each a variable that a model's
            `endpoint.api_key_env` names.
        ca_bundle: whether components trust the authorities in the config map `ca_bundle`, and
            no other.
        retries: how often a task is tried again, with growing waits.
        parallelism: most shards that record at the same time.
        timeout_s: seconds after which one try of a recording or training task has failed; 0: none.
        pull_secrets: secrets for pulling the image.
        resources: whether tasks ask for accelerators, processors, memory and nodes. kfp's local
            runner, which has none to give, fails where their number is a parameter.
        caching: whether a stage with the same inputs is taken from an earlier run.
        deploy: whether the registered router, where it is the champion, is served at the end:
            `apply` does it, `write` only makes its InferenceService an artifact.
    """

    image: str = IMAGE
    volumes: bool = True
    endpoint_keys: tuple[str, ...] = ()
    ca_bundle: bool = False
    retries: int = 3
    parallelism: int = 8
    timeout_s: int = 0
    pull_secrets: tuple[str, ...] = ()
    resources: bool = True
    caching: bool = True
    deploy: Literal["off", "write", "apply"] = "off"


def build(compiled: Compiled, parts: dict[str, str]) -> Callable[..., Any]:
    """Makes the pipeline.

    Args:
        compiled: what is fixed.
        parts: defaults of the parameters `data`, `pool`, `training` and `evaluation`, as JSON.

    Returns:
        A kfp pipeline.
    """

    @dsl.pipeline(
        name=NAME,
        description="Learns with PPO which model to call at each hop: samples queries, records "
        "every route's replies in shards, trains, evaluates, and registers the router in MLflow.",
    )
    def train_eval(
        data: str = parts["data"],
        pool: str = parts["pool"],
        training: str = parts["training"],
        evaluation: str = parts["evaluation"],
        run_name: str = "train-eval",
        kubeflow_ui: str = "",
        seeds: str = "",
        pod_per_seed: bool = False,
        shards: int = 1,
        direct: bool = False,
        max_dollars_per_shard: float = 0.0,
        recordings: str = RECORDINGS,
        mlflow_uri: str = "",
        experiment: str = "",
        registered_name: str = "",
        record_accelerator_type: str = "nvidia.com/gpu",
        record_accelerator_count: str = "1",
        record_cpu: str = "4",
        record_memory: str = "32Gi",
        record_node_selector: dict = {},  # noqa: B006
        record_tolerations: list = [],  # noqa: B006
        train_accelerator_type: str = "nvidia.com/gpu",
        train_accelerator_count: str = "0",
        train_cpu: str = "4",
        train_memory: str = "16Gi",
        train_node_selector: dict = {},  # noqa: B006
        train_tolerations: list = [],  # noqa: B006
        recordings_claim: str = "hierrouter-recordings",
        models_claim: str = "hierrouter-models",
        hugging_face_secret: str = "hierrouter-hugging-face",
        mlflow_secret: str = "hierrouter-mlflow",
        store_secret: str = "hierrouter-store",
        endpoint_secret: str = "hierrouter-endpoints",
        ca_bundle: str = "hierrouter-ca",
        serving_namespace: str = "",
        serving_keys_secret: str = "hierrouter-api-keys",
        serving_all_in_one: bool = False,
        serving_wait_minutes: float = 30.0,
    ) -> None:
        """Runs the whole study.

        Args:
            data: The data part of the config (YAML or JSON): which queries are asked.
            pool: The pool part: models, prompts, limits, hops, encoder.
            training: The training part: how the router learns.
            evaluation: The evaluation part: alphas, intervals, MLflow experiment, registered name.
            run_name: What to call the run in MLflow.
            kubeflow_ui: Address of the Kubeflow UI, for links in MLflow; submit fills it in.
            seeds: Training seeds, 1,2,3; the best on validation is registered; empty: training's.
            pod_per_seed: Whether each seed trains in a pod of its own.
            shards: How many pods record side by side.
            direct: Whether only direct answers are recorded.
            max_dollars_per_shard: What one try of a shard may cost by the rates; 0: no bound.
            recordings: Folder on the volume, or s3://…, where shards outlive their pods.
            mlflow_uri: MLflow's tracking server; empty where Kubeflow's MLflow plugin sets it.
            experiment: MLflow experiment; empty: as the evaluation part says.
            registered_name: Registered model; empty: as the evaluation part says.
            record_accelerator_type: Resource that a recording pod asks for.
            record_accelerator_count: How many; 0 where models are endpoints or run on processors.
            record_cpu: Processors of a recording pod.
            record_memory: Memory of a recording pod.
            record_node_selector: Labels of the node pool that records.
            record_tolerations: Taints of that node pool that recording pods tolerate.
            train_accelerator_type: Resource that a training pod asks for.
            train_accelerator_count: How many; a network as small as the router's needs none.
            train_cpu: Processors of a training pod.
            train_memory: Memory of a training pod.
            train_node_selector: Labels of the node pool that trains.
            train_tolerations: Taints of that node pool that training pods tolerate.
            recordings_claim: The volume for recordings; ReadWriteMany for several nodes.
            models_claim: The volume that caches models.
            hugging_face_secret: Secret with HF_TOKEN; it need not exist.
            mlflow_secret: Secret with MLflow's credentials; it need not exist.
            store_secret: Secret with the object store's credentials; it need not exist.
            endpoint_secret: Secret with the keys of the models' endpoints; it need not exist.
            ca_bundle: Config map with ca.crt, where the pipeline is compiled with --ca-bundle.
            serving_namespace: Where the router is deployed (--deploy); empty: the run's namespace.
            serving_keys_secret: Secret with the keys of the served router's clients.
            serving_all_in_one: Whether the served router's pod runs the models, too.
            serving_wait_minutes: After so many minutes a router that is not ready has failed.
        """
        secrets = {
            hugging_face_secret: SECRETS["hugging_face_secret"],
            mlflow_secret: SECRETS["mlflow_secret"],
            store_secret: SECRETS["store_secret"],
            endpoint_secret: compiled.endpoint_keys,
        }
        claims = {recordings_claim: RECORDINGS, models_claim: MODELS}

        def settled(task: dsl.PipelineTask, *names: Any, mounts: tuple[Any, ...] = ()) -> Any:
            """A task with the image, retries, secrets and volumes that it needs."""
            task.set_container_image(compiled.image)
            task.set_retry(compiled.retries, backoff_duration="30s", backoff_factor=2.0)
            task.set_caching_options(compiled.caching)
            if compiled.resources and task.name in FIXED:
                cpu, memory, most = FIXED[task.name]
                task.set_cpu_request(cpu)
                task.set_memory_request(memory)
                task.set_memory_limit(most)
            for name in names:
                if keys := secrets[name]:
                    kubernetes.use_secret_as_env(
                        task,
                        secret_name=name,
                        secret_key_to_env={key: key for key in keys},
                        optional=True,
                    )
            for claim in mounts if compiled.volumes else ():
                kubernetes.mount_pvc(task, pvc_name=claim, mount_path=claims[claim])
            if compiled.volumes and models_claim in mounts:
                task.set_env_variable("HIERROUTER_HOME", f"{MODELS}/hierrouter")
                task.set_env_variable("HF_HOME", f"{MODELS}/huggingface")
            if compiled.ca_bundle:
                kubernetes.use_config_map_as_volume(task, ca_bundle, mount_path=AUTHORITIES)
                for variable in BUNDLE_VARIABLES:
                    task.set_env_variable(variable, f"{AUTHORITIES}/ca.crt")
            if compiled.pull_secrets:
                kubernetes.set_image_pull_secrets(task, list(compiled.pull_secrets))
            return task

        def placed(task: Any, accelerator: Any, share: Any, pool_of_nodes: Any) -> None:
            """Asks for accelerators, processors and memory, on the nodes of one pool."""
            if compiled.timeout_s:
                kubernetes.set_timeout(task, compiled.timeout_s)
            if not compiled.resources:
                return
            (kind, count), (cpu, memory), (selector, tolerations) = (
                accelerator,
                share,
                pool_of_nodes,
            )
            task.set_accelerator_type(kind)
            task.set_accelerator_limit(count)
            task.set_cpu_request(cpu)
            task.set_memory_request(memory)
            task.set_memory_limit(memory)
            kubernetes.add_node_selector_json(task, selector)
            kubernetes.add_toleration_json(task, tolerations)

        job = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        ending = settled(report_exit(job=job, mlflow_uri=mlflow_uri), mlflow_secret)
        ending.set_caching_options(False)
        with dsl.ExitHandler(ending):
            opened = settled(
                open_run(
                    evaluation=evaluation,
                    name=run_name,
                    job=job,
                    ui=kubeflow_ui,
                    seeds=seeds,
                    pod_per_seed=pod_per_seed,
                    mlflow_uri=mlflow_uri,
                    experiment=experiment,
                    training=training,
                ),
                mlflow_secret,
            )
            sampled = settled(
                sample_queries(data=data, shards=shards),
                hugging_face_secret,
                mounts=(models_claim,),
            )
            # Where MLflow is not reached, nothing is paid for.
            sampled.after(opened)
            with dsl.ParallelFor(
                sampled.outputs["Output"], parallelism=compiled.parallelism
            ) as shard:
                recorded = settled(
                    collect_routes(
                        pool=pool,
                        queries=sampled.outputs["queries"],
                        shard=shard,
                        recordings=recordings,
                        direct=direct,
                        max_dollars=max_dollars_per_shard,
                        gpu_type=record_accelerator_type,
                        gpus=record_accelerator_count,
                        cpus=record_cpu,
                        memory=record_memory,
                    ),
                    hugging_face_secret,
                    store_secret,
                    endpoint_secret,
                    mounts=(recordings_claim, models_claim),
                )
                placed(
                    recorded,
                    (record_accelerator_type, record_accelerator_count),
                    (record_cpu, record_memory),
                    (record_node_selector, record_tolerations),
                )
            merged = settled(
                merge_routes(shards=dsl.Collected(recorded.output)),
                store_secret,
                mounts=(recordings_claim, models_claim),
            )
            with dsl.ParallelFor(opened.outputs["Output"]) as some:
                trained = settled(
                    train_router(
                        training=training,
                        seeds=some,
                        tree=merged.outputs["tree"],
                        gpu_type=train_accelerator_type,
                        gpus=train_accelerator_count,
                        cpus=train_cpu,
                        memory=train_memory,
                    ),
                    hugging_face_secret,
                    mounts=(models_claim,),
                )
                placed(
                    trained,
                    (train_accelerator_type, train_accelerator_count),
                    (train_cpu, train_memory),
                    (train_node_selector, train_tolerations),
                )
            judged = settled(
                evaluate_router(
                    evaluation=evaluation,
                    tree=merged.outputs["tree"],
                    routers=dsl.Collected(trained.outputs["routers"]),
                ),
                hugging_face_secret,
                mounts=(models_claim,),
            )
            registered = settled(
                register_router(
                    evaluation=evaluation,
                    run_id=opened.outputs["run_id"],
                    tree=merged.outputs["tree"],
                    routers=dsl.Collected(trained.outputs["routers"]),
                    router=judged.outputs["router"],
                    evaluated=judged.outputs["evaluated"],
                    mlflow_uri=mlflow_uri,
                    registered_name=registered_name,
                ),
                mlflow_secret,
                store_secret,
            )
            # A run that is taken from the cache would be another pipeline run's.
            opened.set_caching_options(False)
            registered.set_caching_options(False)
            if compiled.deploy != "off":
                deployed = settled(
                    deploy_router(
                        pool=pool,
                        version=registered.outputs["Output"],
                        image=compiled.image,
                        apply=compiled.deploy == "apply",
                        namespace=serving_namespace,
                        mlflow_uri=mlflow_uri,
                        keys_secret=serving_keys_secret,
                        all_in_one=serving_all_in_one,
                        wait_minutes=serving_wait_minutes,
                        mlflow_secret=mlflow_secret,
                        store_secret=store_secret,
                        hugging_face_secret=hugging_face_secret,
                        endpoint_secret=endpoint_secret,
                        pull_secrets=list(compiled.pull_secrets),
                    ),
                    mlflow_secret,
                )
                deployed.set_caching_options(False)
                # It waits by itself; waiting four times is of no use.
                deployed.set_retry(min(compiled.retries, 1), backoff_duration="30s")

    return train_eval

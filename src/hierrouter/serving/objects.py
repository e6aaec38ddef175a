"""KServe's objects for a router and its pool, made of the SDK's own classes.

Where a field is there for something that KServe does with it and does not say, that stands beside
it; it was read in KServe's source.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from hierrouter.serving.keys import VARIABLE
from hierrouter.serving.kserve_import import no_arguments, require_kserve
from hierrouter.serving.manifest_settings import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hierrouter.serving.manifest_settings import ManifestSettings

NAME = "hierrouter"
"""Of the runtime, of its model format, and of the router's InferenceService."""
LABELS = {"app.kubernetes.io/part-of": NAME}
STANDARD = {"serving.kserve.io/deploymentMode": "Standard"}
"""Without it an InferenceService is made in the cluster's own mode, which is another by default."""
PORT = 8080
GRACE_S, PRE_STOP_S, MARGIN_S = 60, 10, 20
"""Seconds: for requests under way, before that until no more come, and to end after it."""
START_S = 1800
"""Seconds that a start may take: models are downloaded, converted and loaded."""
HUGGING_FACE = "kserve-huggingfaceserver"
"""KServe's own runtime for `huggingface`; others of that format take other arguments."""


@cache
def _sdk() -> tuple[Any, Any]:
    """KServe's and Kubernetes' classes; seconds to import."""
    require_kserve()
    with no_arguments():
        import kserve.models as kserve
        from kubernetes import client  # type: ignore[import-untyped]
    return kserve, client


def serialised(item: Any) -> dict[str, Any]:
    """An object of the SDK as Kubernetes' API has it."""
    with no_arguments():
        from kserve import ApiClient
    body: dict[str, Any] = ApiClient().sanitize_for_serialization(item)
    # The SDK fills in an empty name, which KServe allows in no other form.
    body["spec"].get("predictor", {}).get("model", {}).pop("name", None)
    return body


def serving_runtime(namespace: str, image: str) -> Any:
    """The runtime `hierrouter`: how a router is started, whichever it is."""
    kserve, client = _sdk()
    container = client.V1Container(
        name="kserve-container",  # the one that KServe completes with the InferenceService's
        image=image,
        command=["hierrouter", "serve"],
        args=["--host=0.0.0.0", f"--port={PORT}", f"--grace={GRACE_S}"],
        env=[
            client.V1EnvVar(name="HIERROUTER_HOME", value="/cache/hierrouter"),
            client.V1EnvVar(name="HF_HOME", value="/cache/huggingface"),
            client.V1EnvVar(name="MLFLOW_DISABLE_TELEMETRY", value="true"),
        ],
        ports=[client.V1ContainerPort(name="http", container_port=PORT, protocol="TCP")],
        startup_probe=_probe("live", period=10, failures=START_S // 10),
        readiness_probe=_probe("ready", period=5, failures=2),
        liveness_probe=_probe("live", period=10, failures=6),
        # While it sleeps, the pod leaves the service: no request comes to a server that ends.
        lifecycle=client.V1Lifecycle(
            pre_stop=client.V1LifecycleHandler(
                _exec=client.V1ExecAction(command=["sleep", str(PRE_STOP_S)])
            )
        ),
        security_context=client.V1SecurityContext(
            **_container_rights(), read_only_root_filesystem=True
        ),
        volume_mounts=[
            client.V1VolumeMount(name="scratch", mount_path="/tmp"),
            client.V1VolumeMount(name="cache", mount_path="/cache"),
        ],
    )
    return kserve.V1alpha1ServingRuntime(
        api_version="serving.kserve.io/v1alpha1",
        kind="ServingRuntime",
        metadata=client.V1ObjectMeta(name=NAME, namespace=namespace, labels=LABELS),
        spec=kserve.V1alpha1ServingRuntimeSpec(
            annotations={
                "prometheus.kserve.io/path": "/metrics",
                "prometheus.kserve.io/port": str(PORT),
            },
            supported_model_formats=[
                kserve.V1alpha1SupportedModelFormat(
                    name=NAME, version="1", auto_select=True, priority=1
                )
            ],
            protocol_versions=["v1", "v2"],
            containers=[container],
            volumes=[
                client.V1Volume(name=name, empty_dir=client.V1EmptyDirVolumeSource())
                for name in ("scratch", "cache")
            ],
        ),
    )


def router_service(
    settings: ManifestSettings,
    endpoints: Sequence[tuple[str, str]],
    endpoint_keys: Iterable[str],
    resources: dict[str, dict[str, str]],
) -> Any:
    """The router's InferenceService.

    Args:
        settings: how it is to be served.
        endpoints: models of the pool with the address that answers for each.
        endpoint_keys: variables with the keys of the pool's own endpoints.
        resources: requests and limits.
    """
    kserve, client = _sdk()
    arguments = [f"--router={settings.router}"]
    arguments += [f"--endpoint={name}={url}" for name, url in endpoints]
    endpoint_keys = tuple(endpoint_keys)
    arguments += [f"--endpoint-key={name}" for name in endpoint_keys]
    return _inference_service(
        NAME,
        settings.namespace,
        "router",
        kserve.V1beta1ModelSpec(
            model_format=kserve.V1beta1ModelFormat(name=NAME, version="1"),
            runtime=NAME,
            # In place of the runtime's, which may be from the version before.
            image=settings.image,
            # KServe takes a predictor without any storage for a server of many models, and puts
            # an agent beside it that downloads them. Empty, it is neither that nor a download.
            storage=kserve.V1beta1ModelStorageSpec(),
            args=arguments,
            env=[
                client.V1EnvVar(name="MLFLOW_TRACKING_URI", value=settings.mlflow_uri),
                _secret(VARIABLE, settings.keys_secret, optional=False),
                *(
                    _secret(name, settings.endpoint_secret, optional=False)
                    for name in endpoint_keys
                ),
                *(
                    _secret(key, getattr(settings, secret))
                    for secret, keys in SECRETS.items()
                    for key in keys
                ),
            ],
            resources=client.V1ResourceRequirements(**resources),
        ),
        timeout=settings.timeout_s,
        image_pull_secrets=[
            client.V1LocalObjectReference(name=name) for name in settings.pull_secrets
        ]
        or None,
        termination_grace_period_seconds=PRE_STOP_S + GRACE_S + MARGIN_S,
        # A service of the namespace called `mlflow` would set MLFLOW_PORT.
        enable_service_links=False,
    )


def model_service(
    settings: ManifestSettings,
    name: str,
    model: str,
    revision: str,
    dtype: str,
    resources: dict[str, dict[str, str]],
) -> Any:
    """A pool model on KServe's Hugging Face runtime, for the cluster alone: it asks for no key.

    Args:
        settings: how it is to be served, and on how many accelerators.
        name: of the InferenceService.
        model: a model of the hub; the runtime answers to this name, as the router asks by it.
        revision: commit, tag or branch.
        dtype: number format; "auto" leaves it to the runtime.
        resources: requests and limits.
    """
    kserve, client = _sdk()
    arguments = [f"--model_name={model}", f"--model_id={model}"]
    if revision != "main":
        arguments += [f"--model_revision={revision}", f"--tokenizer_revision={revision}"]
    if dtype != "auto":
        arguments.append(f"--dtype={dtype}")
    if settings.accelerators > 1:
        arguments.append(f"--tensor-parallel-size={settings.accelerators}")
    return _inference_service(
        name,
        settings.namespace,
        "model",
        kserve.V1beta1ModelSpec(
            model_format=kserve.V1beta1ModelFormat(name="huggingface"),
            runtime=HUGGING_FACE,
            args=arguments,
            env=[_secret("HF_TOKEN", settings.hugging_face_secret)],
            resources=client.V1ResourceRequirements(**resources),
            security_context=client.V1SecurityContext(**_container_rights()),
        ),
        {"networking.kserve.io/visibility": "cluster-local"},
        timeout=settings.timeout_s,
    )


def address(name: str, namespace: str) -> str:
    """Where KServe's OpenAI interface of a model answers, within the cluster."""
    return f"http://{name}-predictor.{namespace}.svc.cluster.local/openai/v1"


def _inference_service(
    name: str,
    namespace: str,
    component: str,
    model: Any,
    labels: dict[str, str] | None = None,
    **predictor: Any,
) -> Any:
    kserve, client = _sdk()
    return kserve.V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=client.V1ObjectMeta(
            name=name,
            namespace=namespace,
            labels={**LABELS, "app.kubernetes.io/component": component, **(labels or {})},
            annotations=STANDARD,
        ),
        spec=kserve.V1beta1InferenceServiceSpec(
            predictor=kserve.V1beta1PredictorSpec(
                min_replicas=1,
                max_replicas=1,
                automount_service_account_token=False,
                security_context=client.V1PodSecurityContext(
                    run_as_non_root=True,
                    seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
                ),
                model=model,
                **predictor,
            )
        ),
    )


def _container_rights() -> dict[str, Any]:
    _, client = _sdk()
    return {
        "allow_privilege_escalation": False,
        "capabilities": client.V1Capabilities(drop=["ALL"]),
    }


def _probe(what: str, period: int, failures: int) -> Any:
    _, client = _sdk()
    return client.V1Probe(
        http_get=client.V1HTTPGetAction(path=f"/v2/health/{what}", port="http"),
        period_seconds=period,
        timeout_seconds=5,
        failure_threshold=failures,
    )


def _secret(variable: str, secret: str, optional: bool = True) -> Any:
    _, client = _sdk()
    return client.V1EnvVar(
        name=variable,
        value_from=client.V1EnvVarSource(
            secret_key_ref=client.V1SecretKeySelector(
                name=secret, key=variable, optional=True if optional else None
            )
        ),
    )

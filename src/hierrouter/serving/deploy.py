"""Bringing an InferenceService to a cluster, and waiting until it is ready.

Kubernetes' own client is used as it is; what it raises becomes one line that names the remedy.
"""

from __future__ import annotations

import copy
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError, HierRouterError, UnreachableError
from hierrouter.progress import duration, say

if TYPE_CHECKING:
    from collections.abc import Callable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod is told of its account."""
IN_CLUSTER, KUBECONFIG = "KUBERNETES_SERVICE_HOST", "KUBECONFIG"
KIND = ("serving.kserve.io", "v1beta1")
PLURAL = "inferenceservices"
WAIT_S, POLL_S = 1800.0, 5.0
CALL_S = 30.0
"""Seconds that one call of the API may take."""
TRIES = 5
"""So many conflicts in a row, and somebody else keeps writing."""
FAILURES = 12
"""So many looks in a row without an answer, and the cluster is given up."""
SETTLED = 6
"""Looks in a row at which what was changed is ready without a sign of the change."""


def own_namespace() -> str:
    """The namespace of this pod, or that of kubectl's context; empty if there is neither."""
    if (told := ACCOUNT / "namespace").is_file():
        return told.read_text(encoding="utf-8").strip()
    from kubernetes import config  # type: ignore[import-untyped]

    try:
        _, context = config.list_kube_config_contexts(os.environ.get(KUBECONFIG))
    except (config.ConfigException, OSError):
        return ""
    return str(context.get("context", {}).get("namespace", ""))


class Services:
    """The InferenceServices of a namespace."""

    def __init__(self, namespace: str, poll_s: float = POLL_S) -> None:
        """Asks nothing yet.

        Args:
            namespace: where.
            poll_s: seconds between two looks.

        Raises:
            ConfigError: neither is this a pod, nor does kubectl know a cluster here.
        """
        self._namespace, self._poll_s = namespace, poll_s
        self._where = (*KIND, namespace, PLURAL)
        self._api = _api()
        self._pause = threading.Event()

    def apply(self, service: dict[str, Any]) -> int:
        """Creates an InferenceService, or replaces the one of its name.

        Args:
            service: as Kubernetes' API has it.

        Returns:
            What `wait` is to be told.

        Raises:
            ConfigError: the name belongs to something that is no router.
            HierRouterError: the cluster or KServe refuses.
            UnreachableError: the cluster does not answer, or others keep writing.
        """
        name = service["metadata"]["name"]
        for number in range(TRIES):
            before = self._look(name)
            if before is None:
                made = self._write(self._api.create_namespaced_custom_object, service)
            else:
                _require_router(before, self._namespace)
                body = _in_place_of(before, service)
                made = self._write(self._api.replace_namespaced_custom_object, body, name)
            if made is not None:
                verb = "created" if before is None else "replaced"
                say(f"InferenceService {name} in {self._namespace}: {verb}")
                changed = before is not None and _generation(before) != _generation(made)
                return _observed(before) if changed else -1
            self._pause.wait(number * min(self._poll_s, 1.0))
        raise UnreachableError(
            f"InferenceService {name} in {self._namespace} was changed by somebody else at each of "
            f"{TRIES} tries; let one of you deploy it, and run this again"
        )

    def wait(self, name: str, seen: int, wait_s: float = WAIT_S) -> str:
        """Waits until an InferenceService is ready.

        KServe's `observedGeneration` counts the changes of a Deployment and not of the
        InferenceService (kserve#6081), and `Ready` stays true for the version before until KServe
        has looked. So readiness counts once that number has grown, or when it has lasted.

        Args:
            name: of the InferenceService.
            seen: what `apply` gave: the number before it was replaced; -1: as it is, it counts.
            wait_s: seconds after which it has failed.

        Returns:
            Where it answers.

        Raises:
            HierRouterError: it is not ready in time; the line says why.
            UnreachableError: the cluster does not answer any more.
        """
        deadline = time.monotonic() + wait_s
        told, lasted, failed = "", 0, 0
        while True:
            try:
                service = self._look(name)
                failed = 0
            except UnreachableError:
                failed += 1
                if failed == FAILURES:
                    raise
                self._pause.wait(self._poll_s)
                continue
            if service is None:
                raise HierRouterError(
                    f"InferenceService {name} in {self._namespace} is gone; was it deleted?"
                )
            status = service.get("status") or {}
            if _is_ready(status):
                lasted += 1
                if _observed(service) > seen or lasted >= SETTLED:
                    return str((status.get("address") or {}).get("url") or status.get("url") or "")
            else:
                lasted = 0
            if (why := _why(status)) != told:
                told = why
                say(f"InferenceService {name}: {why}")
            if time.monotonic() >= deadline:
                raise HierRouterError(
                    f"InferenceService {name} in {self._namespace} is not ready after "
                    f"{duration(wait_s)}: {why}"
                )
            self._pause.wait(self._poll_s)

    def _look(self, name: str) -> dict[str, Any] | None:
        """The InferenceService; none if there is none."""
        found: dict[str, Any] | None = self._call(
            self._api.get_namespaced_custom_object, name, passed_over=(404,)
        )
        return found

    def _write(self, call: Callable[..., Any], body: Any, *name: str) -> dict[str, Any] | None:
        """What was made; none if somebody else has written meanwhile."""
        passed_over = (404, 409) if name else (409,)
        made: dict[str, Any] | None = self._call(call, *name, body, passed_over=passed_over)
        return made

    def _call(self, call: Callable[..., Any], *arguments: Any, passed_over: tuple[int, ...]) -> Any:
        """Calls the API; none where the answer is one of `passed_over`."""
        import urllib3
        from kubernetes.client import ApiException  # type: ignore[import-untyped]

        try:
            return call(*self._where, *arguments, _request_timeout=CALL_S)
        except ApiException as error:
            if error.status in passed_over:
                return None
            raise _refusal(error.status, _said(error), self._namespace) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise UnreachableError(
                f"Kubernetes does not answer ({reason}); look at the network and run this again"
            ) from error


def _api() -> Any:
    """Kubernetes' client for objects of other kinds, of this pod's account or kubectl's context."""
    import urllib3
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if IN_CLUSTER in os.environ and KUBECONFIG not in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(os.environ.get(KUBECONFIG), client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        raise ConfigError(
            f"no cluster is known here ({' '.join(str(error).split())[:160]}); deploy from a "
            "pipeline's pod, or set KUBECONFIG"
        ) from error
    settings.retries = urllib3.Retry(2, backoff_factor=0.2)
    return client.CustomObjectsApi(client.ApiClient(settings))


def _said(error: Any) -> str:
    """What the API says of a refusal, in one line."""
    try:
        text = json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        text = error.reason or error.body or ""
    return " ".join(str(text).split())[:300]


def _refusal(status: int, said: str, namespace: str) -> HierRouterError:
    """What a refusal means."""
    if "admission webhook" in said:
        return HierRouterError(f"the cluster does not take the InferenceService ({said})")
    if status in (401, 403):
        return HierRouterError(
            f"this account may not deploy in {namespace} ({said}); manifests/components/deploy has "
            "the rights that it needs"
        )
    if status == 404:
        return HierRouterError(
            f"there is no KServe in the cluster, or no namespace {namespace} ({said}); install "
            "KServe, or name another namespace"
        )
    if status == 429 or status >= 500:
        return UnreachableError(f"Kubernetes cannot answer now ({status}: {said}); run this again")
    return HierRouterError(f"Kubernetes refuses the InferenceService ({status}: {said})")


def _require_router(service: dict[str, Any], namespace: str) -> None:
    """Makes sure that what would be replaced is a router.

    Raises:
        ConfigError: it is something else.
    """
    from hierrouter.serving.objects import NAME

    model = service.get("spec", {}).get("predictor", {}).get("model") or {}
    if (model.get("modelFormat") or {}).get("name") != NAME:
        raise ConfigError(
            f"InferenceService {service['metadata']['name']} in {namespace} is no router, and is "
            "left as it is; deploy into another namespace"
        )


def _in_place_of(before: dict[str, Any], service: dict[str, Any]) -> dict[str, Any]:
    """A service with what Kubernetes, KServe and others have noted on the one before."""
    metadata = copy.deepcopy(before["metadata"])
    metadata.pop("managedFields", None)
    for notes in ("labels", "annotations"):
        metadata[notes] = {**(metadata.get(notes) or {}), **service["metadata"].get(notes, {})}
    return {**service, "metadata": metadata}


def _generation(service: dict[str, Any]) -> int:
    return int(service["metadata"].get("generation", 0))


def _observed(service: dict[str, Any] | None) -> int:
    return int(((service or {}).get("status") or {}).get("observedGeneration", 0))


def _is_ready(status: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    return conditions.get("Ready") == "True"


def _why(status: dict[str, Any]) -> str:
    """What an InferenceService says of itself."""
    lines = []
    for each in status.get("conditions") or ():
        if each["status"] != "True" and each.get("severity") != "Info":
            said = ": ".join(each[key] for key in ("reason", "message") if each.get(key))
            lines.append(f"{each['type']} is {each['status']}" + (f" ({said})" if said else ""))
    failure = (status.get("modelStatus") or {}).get("lastFailureInfo") or {}
    if failure.get("message"):
        lines.append(failure["message"])
    if not lines:
        return "ready" if _is_ready(status) else "KServe has not looked at it yet"
    return " ".join("; ".join(lines).split())[:500]

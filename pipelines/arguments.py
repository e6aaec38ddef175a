"""The arguments of a run of the pipeline, read and checked before anything is sent."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from hierrouter.config import DataConfig, EvaluationConfig, PoolConfig, TrainingConfig
from hierrouter.configfile import load_part
from hierrouter.errors import ConfigError
from hierrouter.serving.manifest_settings import SECRET
from hierrouter.stages.settings import parse_seeds, refuse_filling

KINDS = {
    "STRING": (str, "text"),
    "NUMBER_INTEGER": (int, "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": (bool, "true or false"),
    "LIST": (list, "a list, such as [{key: gpu, operator: Exists}]"),
    "STRUCT": (dict, "keys with values, such as {pool: gpu}"),
}
"""Types of pipeline parameters: what Python has for them, and their name for people."""
PARTS = {
    "data": DataConfig,
    "pool": PoolConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}
QUANTITY = r"(\d+(\.\d*)?|\.\d+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE]\d+)?"
"""Kubernetes' quantities, but for those that nobody can ask for."""
TOLERATION: dict[str, type] = {
    "key": str,
    "operator": str,
    "value": str,
    "effect": str,
    "tolerationSeconds": int,
}


@cache
def declared_parameters(pipeline: str) -> dict[str, Any]:
    """The parameters of a compiled pipeline, by name, as it declares them."""
    spec = next(yaml.safe_load_all(pipeline))
    return spec["root"]["inputDefinitions"]["parameters"]


def read_arguments(pipeline: str, params: Sequence[str]) -> dict[str, Any]:
    """Reads NAME=VALUE, the value in YAML, against a pipeline's parameters.

    Args:
        pipeline: the compiled pipeline.
        params: what the user gave.

    Raises:
        ConfigError: one is unknown, of the wrong type, or nothing that a cluster could use.
    """
    declared, arguments = declared_parameters(pipeline), {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals:
            raise ConfigError(f"--param {param}: write it as NAME=VALUE, for example shards=4")
        if name not in declared:
            near = difflib.get_close_matches(name, sorted(declared), n=1)
            hint = f"did you mean {near[0]}?" if near else ", ".join(sorted(declared))
            raise ConfigError(f"--param {param}: the pipeline has no parameter {name} ({hint})")
        kind, words = KINDS[declared[name]["parameterType"]]
        try:
            value = text if kind is str else yaml.safe_load(text)
            if words == "a number":
                value = float(text)  # YAML takes 1e3 for a text
        except (yaml.YAMLError, ValueError):
            value = None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"--param {param}: {name} should be {words}")
        arguments[name] = value
    for name, value in arguments.items():
        _check(name, value)
    return arguments


def _check(name: str, value: Any) -> None:
    """Makes sure of what the type alone does not tell."""
    if name in PARTS:
        loaded = load_part(PARTS[name], value, f"--param {name}")
        if isinstance(loaded, TrainingConfig):
            refuse_filling(loaded)
    elif name == "seeds":
        if value:
            parse_seeds(value)
    elif (wanted := _wanted(name)) is not None:
        good, words = wanted
        if not good(value):
            raise ConfigError(f"--param {name}={value}: give {words}")


def _wanted(name: str) -> tuple[Callable[[Any], bool], str] | None:
    """What a parameter's value has to be, and how to say it; none: anything of its type."""
    if name == "shards":
        return (lambda value: value >= 1), "at least 1"
    if name == "serving_wait_minutes":
        return (lambda value: 0 < value < math.inf), "minutes, more than 0"
    if name == "serving_namespace":
        return (
            lambda value: (
                not value or bool(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value))
            )
        ), "a namespace, or nothing for the run's own"
    if name == "max_dollars_per_shard":
        return (lambda value: 0 <= value < math.inf), "dollars, or 0 for no bound"
    if name.endswith("_accelerator_count"):
        return (lambda value: bool(re.fullmatch(r"\d+", value))), "a whole number, or 0 for none"
    if name.endswith(("_cpu", "_memory")):
        return (
            lambda value: bool(re.fullmatch(QUANTITY, value))
        ), "a quantity as Kubernetes has it, such as 4 or 500m, 32Gi"
    if name.endswith("_node_selector"):
        return _texts, "labels with their values, all texts: {pool: gpu}, {tier: '1'}"
    if name.endswith("_tolerations"):
        return (
            (lambda value: all(_is_toleration(one) for one in value)),
            f"tolerations with {', '.join(TOLERATION)}, the last a number, all others texts",
        )
    if name.endswith("_secret"):
        return (
            lambda value: bool(re.fullmatch(SECRET, value))
        ), "a name of small letters, digits, dashes and dots (a secret need not exist)"
    if name.endswith(("_claim", "_accelerator_type")) or name == "ca_bundle":
        return bool, "a name"
    if name == "mlflow_uri":
        return (lambda value: not re.search(r"//[^/]*:[^/]*@", value)), (
            "the address without its password, which everybody could read in Kubeflow; the secret "
            "mlflow_secret holds MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return None


def _is_toleration(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key in TOLERATION and type(each) is TOLERATION[key] for key, each in value.items()
    )


def _texts(value: Mapping[str, Any]) -> bool:
    return all(isinstance(each, str) for each in value.values())

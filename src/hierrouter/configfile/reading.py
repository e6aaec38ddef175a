"""Reading and writing configurations, whole and in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import ValidationError

from hierrouter.config import Config, PoolConfig, Section
from hierrouter.configfile.mistakes import one_line
from hierrouter.configfile.overrides import apply
from hierrouter.configfile.yamlfile import parse, read
from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Part = TypeVar("Part", bound=Section)


def load_config(path: Path, overrides: Sequence[str] = (), any_pool: bool = False) -> Config:
    """Reads a YAML configuration and applies `overrides` to it.

    Args:
        path: the YAML file.
        overrides: `dotted.path=value` each, the value in YAML, for example
            `training.iterations=20`, `pool.models.0.base_rate=0.001` or
            `evaluation.alphas=[0, .1]`. Later ones win.
        any_pool: whether the pool may name no models, as where a tree brings them along.

    Raises:
        ConfigError: one line that names the file (or the override), the key, the value and what
            is allowed.
    """
    values = parse(read(path), str(path))
    if values is None:
        raise ConfigError(f"{path}: the file is empty; it needs at least `pool`")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no keys; it needs at least `pool`")
    origin: dict[tuple[str, ...], str] = {}
    for override in overrides:
        origin[apply(values, override)] = f"--set {override}"
    try:
        config = Config.model_validate(values, strict=True)
    except ValidationError as error:
        raise ConfigError(one_line(error, str(path), origin)) from None
    if not any_pool:
        culprits = [words for keys, words in origin.items() if keys[0] == "pool"]
        _refuse_no_models(config.pool, culprits[-1] if culprits else str(path), "pool.models")
    return config


def _refuse_no_models(pool: Section, culprit: str, key: str) -> None:
    if isinstance(pool, PoolConfig) and not pool.models:
        raise ConfigError(
            f"{culprit}: {key}: this key is missing and has no default; only imported outcomes "
            "bring their models along"
        )


def load_part(section: type[Part], text: str, culprit: str) -> Part:
    """Reads one part of a configuration from text, as pipelines hand it to a stage.

    Args:
        section: what it is, such as `DataConfig`.
        text: its keys, in YAML or JSON.
        culprit: what to call it in messages.

    Raises:
        ConfigError: one line that names the culprit, the key, the value and what is allowed.
    """
    values = parse(text, culprit)
    if not isinstance(values, dict):
        raise ConfigError(f"{culprit}: holds no keys; give the config's part as YAML or JSON")
    try:
        part = section.model_validate(values, strict=True)
        _refuse_no_models(part, culprit, "models")
        return part
    except ValidationError as error:
        inside = [name for name, each in Config.model_fields.items() if each.annotation is section]
        raise ConfigError(one_line(error, culprit, {}, inside)) from None


def join_parts(parts: Mapping[str, str], culprit: str) -> Config:
    """Reads all four parts of a configuration, as a pipeline has them, and holds them together.

    Args:
        parts: the text of each, in YAML or JSON, by name.
        culprit: what to call them in messages.

    Raises:
        ConfigError: as `load_part`, and where one part names what another does not have.
    """
    values = {name: parse(text, f"{culprit} {name}") for name, text in parts.items()}
    try:
        config = Config.model_validate(values, strict=True)
        _refuse_no_models(config.pool, culprit, "pool.models")
        return config
    except ValidationError as error:
        raise ConfigError(one_line(error, culprit, {})) from None


def dump_config(config: Section) -> str:
    """The whole configuration, defaults included, as YAML that `load_config` reads back."""
    return yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )

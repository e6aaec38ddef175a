"""`--set KEY=VALUE`: single settings over those of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.config import Config, Section
from hierrouter.configfile.annotations import alternatives, arms, is_section
from hierrouter.configfile.hints import did_you_mean, show
from hierrouter.configfile.yamlfile import parse
from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def apply(values: dict[Any, Any], override: str) -> tuple[str, ...]:
    """Writes one `dotted.path=value` into the raw values; gives the path."""
    dotted, equals, text = override.partition("=")
    culprit = f"--set {override}"
    parts = tuple(dotted.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(f"{culprit}: write it as KEY=VALUE, for example training.iterations=20")
    value = parse(text, culprit)
    here: Any = values
    kind: Any = Config
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        kind, default = _step(kind, part, here, culprit, parts[:depth])
        key: Any = int(part) if isinstance(here, list) else part
        if last:
            here[key] = value
            break
        if isinstance(here, dict) and here.get(key) is None:
            here[key] = default
        here = here[key]
        if not isinstance(here, dict | list):
            path = ".".join(parts[: depth + 1])
            raise ConfigError(f"{culprit}: {path} is {show(here)}, which has no keys")
    return parts


def _step(kind: Any, part: str, here: Any, culprit: str, path: tuple[str, ...]) -> tuple[Any, Any]:
    """Goes from a type into its key `part`: (that key's type, its default in raw form)."""
    where = ".".join(path)
    if isinstance(here, list):
        if not part.isdecimal() or int(part) >= len(here):
            raise ConfigError(
                f"{culprit}: {where} has {len(here)} entries; name one by its number from 0"
            )
        return next((arg for arg in alternatives(kind, list)), Any), {}
    section = next((arm for arm in arms(kind) if is_section(arm)), None)
    if section is None:  # a map with free keys
        return next((arg for arg in alternatives(kind, dict, 1)), Any), {}
    if part not in section.model_fields:
        known = list(section.model_fields)
        at = f"{where}." if where else ""
        raise ConfigError(f"{culprit}: {at}{part}: unknown key{did_you_mean(part, known)}")
    field: FieldInfo = section.model_fields[part]
    default: Any = {}
    if not field.is_required() and isinstance(field.default, list | dict):
        raw = [
            entry.model_dump(mode="json") if isinstance(entry, Section) else entry
            for entry in field.default
        ]
        default = raw if isinstance(field.default, list) else dict(field.default)
    return field.annotation, default

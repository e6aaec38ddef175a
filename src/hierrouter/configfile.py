"""Reading and writing configuration files; every mistake in one becomes one clear line."""

from __future__ import annotations

import difflib
import json
import math
import re
from itertools import chain
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import ValidationError

from hierrouter.config import Config, KeyedError, PoolConfig, Section
from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic.fields import FieldInfo

Part = TypeVar("Part", bound=Section)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but 1e-4 is a number, and duplicate keys and infinity are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        written: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key: object = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in written:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", key_node.start_mark
                )
            written.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep=deep)

    def construct_finite(self, node: yaml.ScalarNode) -> float:
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is not a finite number", node.start_mark
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_finite)
# YAML 1.1 takes 1e-4 and -.5 for words; everybody means the numbers, as YAML 1.2 does.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


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
    values = _parse(_read(path), str(path))
    if values is None:
        raise ConfigError(f"{path}: the file is empty; it needs at least `pool`")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no keys; it needs at least `pool`")
    origin: dict[tuple[str, ...], str] = {}
    for override in overrides:
        origin[_apply(values, override)] = f"--set {override}"
    try:
        config = Config.model_validate(values, strict=True)
    except ValidationError as error:
        raise ConfigError(_one_line(error, str(path), origin)) from None
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
    values = _parse(text, culprit)
    if not isinstance(values, dict):
        raise ConfigError(f"{culprit}: holds no keys; give the config's part as YAML or JSON")
    try:
        part = section.model_validate(values, strict=True)
        _refuse_no_models(part, culprit, "models")
        return part
    except ValidationError as error:
        inside = [name for name, each in Config.model_fields.items() if each.annotation is section]
        raise ConfigError(_one_line(error, culprit, {}, inside)) from None


def join_parts(parts: Mapping[str, str], culprit: str) -> Config:
    """Reads all four parts of a configuration, as a pipeline has them, and holds them together.

    Args:
        parts: the text of each, in YAML or JSON, by name.
        culprit: what to call them in messages.

    Raises:
        ConfigError: as `load_part`, and where one part names what another does not have.
    """
    values = {name: _parse(text, f"{culprit} {name}") for name, text in parts.items()}
    try:
        config = Config.model_validate(values, strict=True)
        _refuse_no_models(config.pool, culprit, "pool.models")
        return config
    except ValidationError as error:
        raise ConfigError(_one_line(error, culprit, {})) from None


def dump_config(config: Section) -> str:
    """The whole configuration, defaults included, as YAML that `load_config` reads back."""
    return yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def explain(section: type[Section] = Config) -> Iterator[tuple[str, str, str, str]]:
    """Every field there is: (dotted path, type in words, default, description).

    The fields of a list's entries read `pool.models[].name`, those of a map's `data.own.NAME.file`.
    A kind of entry that was explained before is not explained again.
    """
    yield from _explain(section, "", set())


def _explain(
    section: type[Section], prefix: str, listed: set[type[Section]]
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        inner, entry = _section_of(field.annotation)
        if field.is_required():
            default = "required"
        elif inner is not None and not entry and field.default is not None:
            default = ""
        else:
            default = _show(field.get_default(), 10_000)
        description = " ".join((field.description or "").split())
        yield path, _in_words(field), default, description
        if inner is None or inner in listed:
            continue
        if entry:
            listed.add(inner)
        yield from _explain(inner, f"{path}{entry}.", listed)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = ""
        if path.parent.is_dir():
            names = [entry.name for entry in path.parent.iterdir() if entry.suffix == path.suffix]
            near = _did_you_mean(path.name, names, show_all=False)
        raise ConfigError(f"{path}: there is no such file{near}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(text: bytes | str, culprit: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark and "\n" in _as_text(text) else ""
        raise ConfigError(f"{culprit}: {where}not usable YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{culprit}: not usable YAML: {' '.join(reason.split())}") from None


def _as_text(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", errors="replace")


def _apply(values: dict[Any, Any], override: str) -> tuple[str, ...]:
    """Writes one `dotted.path=value` into the raw values; gives the path."""
    dotted, equals, text = override.partition("=")
    culprit = f"--set {override}"
    parts = tuple(dotted.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(f"{culprit}: write it as KEY=VALUE, for example training.iterations=20")
    value = _parse(text, culprit)
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
            raise ConfigError(f"{culprit}: {path} is {_show(here)}, which has no keys")
    return parts


def _step(kind: Any, part: str, here: Any, culprit: str, path: tuple[str, ...]) -> tuple[Any, Any]:
    """Goes from a type into its key `part`: (that key's type, its default in raw form)."""
    where = ".".join(path)
    if isinstance(here, list):
        if not part.isdecimal() or int(part) >= len(here):
            raise ConfigError(
                f"{culprit}: {where} has {len(here)} entries; name one by its number from 0"
            )
        return next((arg for arg in _alternatives(kind, list)), Any), {}
    section = next((arm for arm in _arms(kind) if _is_section(arm)), None)
    if section is None:  # a map with free keys
        return next((arg for arg in _alternatives(kind, dict, 1)), Any), {}
    if part not in section.model_fields:
        known = list(section.model_fields)
        at = f"{where}." if where else ""
        raise ConfigError(f"{culprit}: {at}{part}: unknown key{_did_you_mean(part, known)}")
    field: FieldInfo = section.model_fields[part]
    default: Any = {}
    if not field.is_required() and isinstance(field.default, list | dict):
        raw = [
            entry.model_dump(mode="json") if isinstance(entry, Section) else entry
            for entry in field.default
        ]
        default = raw if isinstance(field.default, list) else dict(field.default)
    return field.annotation, default


def _alternatives(kind: Any, container: type, index: int = 0) -> Iterator[Any]:
    for arm in _arms(kind):
        if get_origin(arm) is container:
            yield get_args(arm)[index]


def _one_line(
    error: ValidationError,
    path: str,
    origin: Mapping[tuple[str, ...], str],
    inside: Sequence[str] = (),
) -> str:
    """The first mistake in words; several complaints about one value are joined.

    Args:
        error: what pydantic found.
        path: what to call the whole.
        origin: what to call single keys that came from elsewhere.
        inside: the keys of a config that lead to the whole, where it is a part of one.
    """
    found: dict[tuple[str, ...], list[Any]] = {}
    for entry in error.errors(include_url=False):
        raised = entry.get("ctx", {}).get("error")
        deeper = raised.keys if isinstance(raised, KeyedError) else ()
        found.setdefault((*_real_path(entry["loc"]), *deeper), []).append(entry)
    keys, entries = next(
        ((keys, group) for keys, group in found.items() if group[0]["type"] == "extra_forbidden"),
        next(iter(found.items())),
    )
    # A rule over several keys is reported at their parent, so an override below it counts too.
    culprits = [
        words
        for set_keys, words in origin.items()
        if keys[: len(set_keys)] == set_keys or set_keys[: len(keys)] == keys
    ]
    culprit = culprits[-1] if culprits else path
    dotted = ".".join(keys)
    at = f"{dotted}: " if dotted else ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{culprit}: {at}{_complaint((*inside, *keys), entries)}{more}"


def _complaint(keys: tuple[str, ...], entries: list[Any]) -> str:
    kind = entries[0]["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_did_you_mean(keys[-1], _siblings(keys))}"
    if kind == "missing":
        return "this key is missing and has no default"
    if kind == "value_error":
        return str(entries[0]["ctx"]["error"])
    allowed = " or ".join(dict.fromkeys(_allowed(entry) for entry in entries))
    return f"{_show(entries[0]['input'])} is not allowed; should be {allowed}"


def _allowed(entry: Any) -> str:
    context = {
        key: f"{value:g}" if isinstance(value, float) else value
        for key, value in entry.get("ctx", {}).items()
    }
    words = {
        "literal_error": "{expected}",
        "string_type": "text (quote it)",
        "float_type": "a number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "bool_type": "true or false",
        "list_type": "a list",
        "dict_type": "keys with values",
        "model_type": "keys with values",
        "none_required": "nothing",
        "greater_than": "above {gt}",
        "greater_than_equal": "at least {ge}",
        "less_than": "below {lt}",
        "less_than_equal": "at most {le}",
        "too_short": "at least {min_length} long",
        "too_long": "at most {max_length} long",
        "string_too_short": "at least {min_length} characters long",
        "string_too_long": "at most {max_length} characters long",
        "string_pattern_mismatch": "text that matches {pattern}",
    }.get(entry["type"])
    if words is None:
        return str(entry["msg"]).removeprefix("Input should be ")
    return words.format(**context)


def _real_path(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Pydantic's location without its notes on union members and map keys."""
    kind: Any = Config
    path: list[str] = []
    for part in location:
        arms = _arms(kind)
        sections = [arm for arm in arms if _is_section(arm)]
        if part == "[key]":
            continue
        if isinstance(part, int):
            kind = next(_alternatives(kind, list), Any)
        elif sections:
            field = sections[0].model_fields.get(part)
            kind = field.annotation if field else Any
        elif any(get_origin(arm) is dict for arm in arms):
            kind = next(_alternatives(kind, dict, 1))
        else:
            continue
        path.append(str(part))
    return tuple(path)


def _siblings(keys: tuple[str, ...]) -> list[str]:
    kind: Any = Config
    for key in keys[:-1]:
        section = next((arm for arm in _arms(kind) if _is_section(arm)), None)
        if section is not None:
            kind = section.model_fields[key].annotation
        else:
            kind = next(chain(_alternatives(kind, list), _alternatives(kind, dict, 1)))
    section = next((arm for arm in _arms(kind) if _is_section(arm)), None)
    return list(section.model_fields) if section is not None else []


def _did_you_mean(word: str, known: Sequence[str], show_all: bool = True) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f" (did you mean {near[0]}?)"
    return f" (known: {', '.join(known)})" if known and show_all else ""


def _show(value: Any, longest: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _arms(annotation: Any) -> list[Any]:
    """The members of a union, without `Annotated`; of anything else, itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arms(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [arm for member in get_args(annotation) for arm in _arms(member)]
    return [annotation]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _section_of(annotation: Any) -> tuple[type[Section] | None, str]:
    """The section that a field holds (or None), and how one is named if it holds several."""
    for arm in _arms(annotation):
        if _is_section(arm):
            return arm, ""
        if get_origin(arm) is list and _is_section(get_args(arm)[0]):
            return get_args(arm)[0], "[]"
        if get_origin(arm) is dict and _is_section(get_args(arm)[1]):
            return get_args(arm)[1], ".NAME"
    return None, ""


def _in_words(field: FieldInfo) -> str:
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        inner = [
            note for extra in arguments[1:] for note in getattr(extra, "metadata", None) or [extra]
        ]
        return _words(arguments[0], [*inner, *metadata])
    if origin in (Union, UnionType):
        return " or ".join(_words(member) for member in arguments)
    if origin is Literal:
        return " or ".join(str(value) for value in arguments)
    if origin is list:
        return f"list of: {_words(arguments[0])}{_bounds(metadata)}"
    if origin is dict:
        return f"map from {_words(arguments[0])} to {_words(arguments[1])}"
    if annotation is NoneType:
        return "null"
    if _is_section(annotation):
        return "keys"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return f"{names.get(annotation, str(annotation))}{_bounds(metadata)}"


def _bounds(metadata: Sequence[Any]) -> str:
    signs = {
        annotated_types.Gt: (">", "gt"),
        annotated_types.Ge: (">=", "ge"),
        annotated_types.Lt: ("<", "lt"),
        annotated_types.Le: ("<=", "le"),
        annotated_types.MinLen: ("length >=", "min_length"),
        annotated_types.MaxLen: ("length <=", "max_length"),
    }
    bounds = []
    for note in metadata:
        for kind, (sign, attribute) in signs.items():
            if isinstance(note, kind):
                bounds.append(f"{sign} {getattr(note, attribute)}")
    return f" ({', '.join(bounds)})" if bounds else ""

"""What pydantic found wrong in a configuration, as one line that names key, value and remedy."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, get_origin

from hierrouter.config import Config, KeyedError
from hierrouter.configfile.annotations import alternatives, arms, is_section
from hierrouter.configfile.hints import did_you_mean, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError


def one_line(
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
        return f"unknown key{did_you_mean(keys[-1], _siblings(keys))}"
    if kind == "missing":
        return "this key is missing and has no default"
    if kind == "value_error":
        return str(entries[0]["ctx"]["error"])
    allowed = " or ".join(dict.fromkeys(_allowed(entry) for entry in entries))
    return f"{show(entries[0]['input'])} is not allowed; should be {allowed}"


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
        members = arms(kind)
        sections = [arm for arm in members if is_section(arm)]
        if part == "[key]":
            continue
        if isinstance(part, int):
            kind = next(alternatives(kind, list), Any)
        elif sections:
            field = sections[0].model_fields.get(part)
            kind = field.annotation if field else Any
        elif any(get_origin(arm) is dict for arm in members):
            kind = next(alternatives(kind, dict, 1))
        else:
            continue
        path.append(str(part))
    return tuple(path)


def _siblings(keys: tuple[str, ...]) -> list[str]:
    kind: Any = Config
    for key in keys[:-1]:
        section = next((arm for arm in arms(kind) if is_section(arm)), None)
        if section is not None:
            kind = section.model_fields[key].annotation
        else:
            kind = next(chain(alternatives(kind, list), alternatives(kind, dict, 1)))
    section = next((arm for arm in arms(kind) if is_section(arm)), None)
    return list(section.model_fields) if section is not None else []

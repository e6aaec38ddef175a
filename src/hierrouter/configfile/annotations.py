"""What the annotations of settings say: walked through, and in words."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types

from hierrouter.config import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo


def arms(annotation: Any) -> list[Any]:
    """The members of a union, without `Annotated`; of anything else, itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return arms(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [arm for member in get_args(annotation) for arm in arms(member)]
    return [annotation]


def is_section(annotation: Any) -> bool:
    """Whether it is one section, and not a union or a list of some."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def section_of(annotation: Any) -> tuple[type[Section] | None, str]:
    """The section that a field holds (or None), and how one is named if it holds several."""
    for arm in arms(annotation):
        if is_section(arm):
            return arm, ""
        if get_origin(arm) is list and is_section(get_args(arm)[0]):
            return get_args(arm)[0], "[]"
        if get_origin(arm) is dict and is_section(get_args(arm)[1]):
            return get_args(arm)[1], ".NAME"
    return None, ""


def alternatives(kind: Any, container: type, index: int = 0) -> Iterator[Any]:
    """What a container of this kind holds, of every member that is one; `index` is 1 for values."""
    for arm in arms(kind):
        if get_origin(arm) is container:
            yield get_args(arm)[index]


def in_words(field: FieldInfo) -> str:
    """The kind and the bounds of a setting, for people."""
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
    if is_section(annotation):
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

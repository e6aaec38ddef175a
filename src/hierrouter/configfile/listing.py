"""Every setting there is, with its kind, default and meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierrouter.config import Config, Section
from hierrouter.configfile.annotations import in_words, section_of
from hierrouter.configfile.hints import show

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        inner, entry = section_of(field.annotation)
        if field.is_required():
            default = "required"
        elif inner is not None and not entry and field.default is not None:
            default = ""
        else:
            default = show(field.get_default(), 10_000)
        description = " ".join((field.description or "").split())
        yield path, in_words(field), default, description
        if inner is None or inner in listed:
            continue
        if entry:
            listed.add(inner)
        yield from _explain(inner, f"{path}{entry}.", listed)

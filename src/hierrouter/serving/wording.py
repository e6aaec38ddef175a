"""What pydantic finds wrong with a request, in words for whoever sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TELLABLE = 20
"""Characters of a value that is told back."""
WANTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
"""What a field has to be, by the begin of the kind of error."""
TYPES = ("str", "int", "float", "bool")
"""What pydantic writes behind a place to tell alternatives apart; no field is called so."""


def wrong(errors: Sequence[Any], *framing: str) -> tuple[tuple[str | int, ...], str]:
    """Where something is wrong, and what, to be read after the name of the place.

    Args:
        errors: as pydantic tells them, one at least.
        framing: parts of a place that mean nothing to the sender, beside types.
    """
    places = [_place(each["loc"], framing) for each in errors]
    first = places[0]
    # A field that may be several things is told about as each of them: what is wrong further in
    # belongs to the one that was meant.
    within = [n for n, place in enumerate(places) if place[: len(first)] == first]
    deepest = max(within, key=lambda n: (len(places[n]), -n))
    alike = [errors[n] for n in within if places[n] == places[deepest]]
    wanted = dict.fromkeys(filter(None, map(_wanted, alike)))
    if len(wanted) == len(alike):
        told = f"has to be {' or '.join(wanted)}{_shown(alike[0]['input'])}"
        return places[deepest], told
    return places[deepest], _other(alike[0])


def _place(loc: Sequence[str | int], framing: Sequence[str]) -> tuple[str | int, ...]:
    """Where it is, without the types by which pydantic tells alternatives apart."""
    return tuple(
        part
        for part in loc
        if isinstance(part, int) or (part not in (*TYPES, *framing) and "[" not in part)
    )


def _wanted(error: Any) -> str | None:
    kind, _, rest = error["type"].partition("_")
    return WANTED.get(kind) if rest not in ("too_short", "too_long", "pattern_mismatch") else None


def _other(error: Any) -> str:
    limits = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not known; leave it out"
        case "too_short" if limits.get("min_length") == 1:
            return "is empty; give at least one"
        case "greater_than":
            return f"has to be greater than {limits['gt']:g}{_shown(error['input'])}"
        case "greater_than_equal":
            return f"has to be at least {limits['ge']:g}{_shown(error['input'])}"
        case "less_than_equal":
            return f"has to be at most {limits['le']:g}{_shown(error['input'])}"
    text: str = error["msg"]
    return f"is wrong ({text[:1].lower()}{text[1:]})"


def _shown(value: Any) -> str:
    """A wrong value, where it is short: more of it could be a whole conversation."""
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= TELLABLE):
        return f", not {value!r}"
    return ""

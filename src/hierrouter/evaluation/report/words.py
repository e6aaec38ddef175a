"""Numbers as the report writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from hierrouter.evaluation.statistics.intervals import Interval

NONE = "–"


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; no minus before a zero."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def points(value: float | None) -> str:
    """A difference in points (hundredths) with its sign."""
    if value is None:
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share in whole percents; what is neither none nor all is not written as such."""
    if value is None:
        return NONE
    if 0 < value < 0.005:
        return "<1%"
    if 0.995 < value < 1:
        return ">99%"
    return f"{100 * value:.0f}%"


def probability(value: float) -> str:
    """A p-value."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def whole(value: int | None) -> str:
    """A count with its thousands apart."""
    return NONE if value is None else f"{value:,}"


def outcome(difference: Interval) -> str:
    """What an interval of a difference says by itself."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "not told apart"


def breakable(name: str) -> Markup:
    """A name, escaped, that may go on in the next line after each `_`."""
    return Markup("_<wbr>").join(name.split("_"))


FILTERS: dict[str, Any] = {
    each.__name__: each for each in (fixed, points, percent, probability, whole, outcome, breakable)
}

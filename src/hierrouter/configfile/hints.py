"""Values and near misses as messages show them."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str], show_all: bool = True) -> str:
    """A hint at the known word that was meant, or else (`show_all`) at all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f" (did you mean {near[0]}?)"
    return f" (known: {', '.join(known)})" if known and show_all else ""


def show(value: Any, longest: int = 60) -> str:
    """A value as it would be written, cut at `longest` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else text[: longest - 3] + "..."

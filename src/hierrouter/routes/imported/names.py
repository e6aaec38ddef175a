"""Names that fit everywhere (files, MLflow, Kubernetes) for models and tasks of foreign logs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hierrouter.errors import ConfigError
from hierrouter.files import sha256_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST = 64
_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")


def valid_name(original: str) -> str:
    """A name of letters, digits, `.`, `_` and `-` for any other.

    Every run of other characters becomes one `-` (`openai/gpt-4o` is `openai-gpt-4o`), without any
    at the ends. What is longer than 64 characters then, or empty, ends in eight digits of the
    original's SHA-256.
    """
    name = _OTHERS.sub("-", original).strip("-") if _OTHERS.search(original) else original
    if 0 < len(name) <= LONGEST:
        return name
    digest = sha256_text(original)[:8]
    return f"{name[: LONGEST - 9]}-{digest}" if name else digest


def valid_names(
    what: str, originals: Iterable[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Names of ours by those in the file.

    Args:
        what: what they are of, in the singular.
        originals: the names in the file.
        given: names that were decided already, by those in the file.

    Raises:
        ConfigError: two would get the same name.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for original in originals:
        name = (given or {}).get(original) or valid_name(original)
        if name in taken:
            raise ConfigError(
                f"the {what}s {taken[name]} and {original} would both be called {name}; rename one "
                "of them in the file" + (", or name it in pool.models" if what == "model" else "")
            )
        names[original] = name
        taken[name] = original
    return names

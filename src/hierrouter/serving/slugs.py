"""Names of Kubernetes objects for names that people gave, such as `Qwen2.5-Coder-0.5B`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hierrouter.files import sha256_text

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST = 40
"""Of a name, so that what KServe makes of it (`isvc.NAME-predictor`, a label) keeps below 63."""
MARK = 6
"""Hexadecimal digits that tell names apart."""


def slug(name: str, taken: Collection[str], longest: int = LONGEST) -> str:
    """A DNS label for a name: the same one for the same name and the same names before it.

    Args:
        name: any name with a letter or a digit in it.
        taken: labels that others have.
        longest: most characters; at least 16.

    Returns:
        The name in small letters, other characters as dashes. One that is too long or taken ends
        in the beginning of the name's SHA-256.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not label[:1].isalpha():
        label = f"m-{label}".rstrip("-")  # KServe wants a letter first
    if len(label) <= longest and label not in taken:
        return label
    digest = sha256_text(name)
    # More of the digest, should even its beginning be taken.
    for digits in range(MARK, len(digest)):
        marked = f"{label[: longest - digits - 1].rstrip('-')}-{digest[:digits]}".lstrip("-")
        if marked[0].isalpha() and len(marked) <= longest and marked not in taken:
            return marked
    raise AssertionError(f"no label is left for {name}")

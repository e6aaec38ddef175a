"""The keys that clients have to send: from a variable or a file, which may change meanwhile."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from hierrouter.errors import ConfigError
from hierrouter.serving.gate import digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger("hierrouter.serving")
VARIABLE = "HIERROUTER_API_KEYS"
"""Holds keys, with commas or line ends between them."""
LOOK_EVERY_S = 5.0
"""A mounted secret changes without a word; it is looked at again after so many seconds."""
SHORTEST = 16
"""Characters of a key, so that it cannot be guessed."""


class Keys:
    """The keys in force."""

    def __init__(
        self, file: Path | None, text: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads them.

        Args:
            file: one key a line; lines that begin with # are left out.
            text: keys with commas or line ends between them.
            clock: seconds that only grow.

        Raises:
            ConfigError: the file cannot be read, or one of the two holds no key, or one that is
                too short.
        """
        self._file, self._clock = file, clock
        self._fixed = _digests(_split(text), VARIABLE)
        if text.strip() and not self._fixed:
            raise ConfigError(f"{VARIABLE} holds no key; write them with commas between")
        self._read = self._from_file() if file is not None else []
        self._looked = clock()

    def __call__(self) -> list[bytes]:
        """Digests of the keys in force."""
        if self._file is not None and self._clock() - self._looked >= LOOK_EVERY_S:
            self._looked = self._clock()
            self._read = self._looked_again()
        return [*self._fixed, *self._read]

    def _looked_again(self) -> list[bytes]:
        """The keys of a file that may have changed: one that is gone from it holds no longer."""
        try:
            return self._from_file()
        except ConfigError as error:
            wrong = error
        try:
            text = self._file.read_text(encoding="utf-8") if self._file else ""
        except (OSError, UnicodeDecodeError):
            text = ""
        if listed := _split(text):
            log.warning("%s", wrong)
            return [digest(key) for key in listed if _usable(key)]
        # An empty or missing file is one half-way through a change.
        log.warning("%s; the keys read before stay in force", wrong)
        return self._read

    def _from_file(self) -> list[bytes]:
        try:
            text = self._file.read_text(encoding="utf-8") if self._file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--api-keys {self._file} cannot be read ({error})") from error
        found = _digests(_split(text), str(self._file))
        if not found:
            raise ConfigError(f"--api-keys {self._file} holds no key; write one a line")
        return found


def find_keys(file: Path | None) -> Keys | None:
    """The keys that the file and the variable give; none where neither is given.

    Raises:
        ConfigError: a key is too short, the file cannot be read, or one of the two holds none.
    """
    text = os.environ.get(VARIABLE, "")
    if file is None and not text.strip():
        return None
    return Keys(file, text)


def _split(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [key.strip() for line in lines for key in line.split(",") if key.strip()]


def _digests(keys: list[str], where: str) -> list[bytes]:
    for key in keys:
        if not _usable(key):
            raise ConfigError(
                f"{where} holds a key that is shorter than {SHORTEST} characters or has others "
                "than visible ASCII; make one with `openssl rand -hex 24`"
            )
    return [digest(key) for key in keys]


def _usable(key: str) -> bool:
    return len(key) >= SHORTEST and key.isascii() and key.isprintable() and " " not in key

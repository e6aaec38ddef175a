"""Writing files so that a crash, a full disk or Ctrl-C never leaves half of one behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`, renamed onto it when the block succeeds.

    Raises:
        HierRouterError: the disk is full or the folder cannot be written; `target` is untouched.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = target.parent / name.rsplit("/", 1)[-1]
        temporary.chmod(0o644)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as error:
        raise HierRouterError(
            f"cannot write {target}: {error.strerror or error}; "
            "make room or name another folder, then run the same command again"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Writes `text` (UTF-8) to `target` in one step."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes `value` as indented JSON to `target` in one step."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file of ours.

    Raises:
        HierRouterError: the file is missing.
        DamagedFileError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HierRouterError(f"{path} does not exist; was the stage before it run?") from None
    except (ValueError, OSError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); make it anew") from error


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """The SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False))


def claim_folder(folder: Path, marker: str) -> None:
    """Makes sure that `folder` may be written: new, empty, or holding our `marker` file.

    Raises:
        ConfigError: the path is a file, or a folder with other content.
        HierRouterError: it cannot be made.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; name a folder for the output")
        folder.mkdir(parents=True, exist_ok=True)
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".tmp-")]
    except OSError as error:
        raise HierRouterError(f"cannot make the folder {folder}: {error.strerror}") from error
    if entries and not (folder / marker).exists():
        raise ConfigError(
            f"{folder} is not empty and holds no {marker} of ours; name an empty or new folder"
        )

"""Writing files so that a crash, a full disk or Ctrl-C never leaves half of one behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from hierrouter.errors import (
    BusyError,
    ConfigError,
    DamagedFileError,
    HierRouterError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`, renamed onto it when the block succeeds.

    In an object store, which shows an object when it is whole, `target` is put there in one piece.

    Raises:
        HierRouterError: the disk is full or the folder cannot be written; `target` is untouched.
    """
    if is_remote(target):
        with _uploaded(target) as local:
            yield local
        return
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


def folder_at(text: str) -> Path:
    """The folder that a user names: a path, or an address such as s3://bucket/tree.

    An address is served by fsspec, and behaves like a path.

    Raises:
        ConfigError: no such kind of store is known, or what reads it is not installed.
        HierRouterError: the store cannot be reached.
    """
    scheme, found, rest = text.partition("://")
    if not found or scheme == "file":
        return Path(rest if found else text)
    from upath import UPath

    try:
        folder = UPath(text)
        folder.exists()
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"{text}: no store of this kind can be used here ({reason}); "
            f"pip install what fsspec needs for {scheme} (s3fs, gcsfs, adlfs, …)"
        ) from error
    except Exception as error:  # each kind of store has errors of its own
        raise UnreachableError(
            f"{text} cannot be reached ({reason_of(error)}); look at the address, its credentials "
            "and the network, then run the same command again"
        ) from error
    return cast("Path", folder)


def reason_of(error: Exception) -> str:
    """What an error of a library says, in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def is_remote(path: Path) -> bool:
    """Whether a path is an address of `folder_at` and not one of this machine."""
    return not isinstance(path, Path)


def readable(path: Path) -> Path | BinaryIO:
    """What pyarrow reads a file from: the path, or the content of an object."""
    return io.BytesIO(fetched(path)) if is_remote(path) else path


def fetched(path: Path) -> bytes:
    """The content of an object.

    Raises:
        UnreachableError: the store does not give it.
    """
    try:
        return path.read_bytes()
    except Exception as error:  # each kind of store has errors of its own
        raise UnreachableError(
            f"cannot read {path} ({reason_of(error)}); run the same command again when the "
            "store answers"
        ) from error


@contextlib.contextmanager
def _uploaded(target: Any) -> Iterator[Path]:
    """A local file that is put at `target` in one piece when the block succeeds."""
    with temporary_folder(target) as folder:
        local = Path(folder) / target.name
        with kept_here(target):
            yield local
        try:
            target.fs.put_file(str(local), target.path)
        except Exception as error:  # each kind of store has errors of its own
            raise _untaken(target, error) from error


def put_new(local: Path, target: Any) -> None:
    """Puts a file of this machine in an object store, where it replaces none.

    Args:
        local: the file.
        target: its address. Where the same content is there, it is left: a store may take what is
            put and fail to say so.

    Raises:
        BusyError: another process has put other content there.
        UnreachableError: the store does not take it.
    """
    # Others write there too, so what was listed earlier tells nothing.
    target.fs.invalidate_cache(target.path)
    try:
        # Asked first, as some stores pass over `create`.
        if not target.exists():
            _create(local, target)
            return
    except FileExistsError:
        target.fs.invalidate_cache(target.path)
    except Exception as error:  # each kind of store has errors of its own
        raise _untaken(target, error) from error
    if fetched(target) != local.read_bytes():
        raise BusyError(
            f"{target} was put there by another process meanwhile; wait until it has ended, then "
            "run the same command again, or name another folder"
        )


def _create(local: Path, target: Any) -> None:
    try:
        target.fs.put_file(str(local), target.path, mode="create")
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a store that refuses conditions altogether
            raise
        target.fs.put_file(str(local), target.path)


def _untaken(target: Any, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"cannot write {target} ({reason_of(error)}); run the same command again when the store "
        "answers: what was written before is kept"
    )


def temporary_folder(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder of this machine for copies of an object such as `path`, which goes with its owner.

    Raises:
        HierRouterError: it cannot be made.
    """
    with kept_here(path):
        return tempfile.TemporaryDirectory(prefix="hierrouter-", ignore_cleanup_errors=True)


@contextlib.contextmanager
def kept_here(path: Path) -> Iterator[None]:
    """For blocks that write the copy of an object to a temporary folder.

    Raises:
        HierRouterError: the disk is full or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise HierRouterError(
            f"cannot keep a copy of {path} among the temporary files of this machine: "
            f"{error.strerror or error}; make room there or let TMPDIR name another folder, then "
            "run the same command again"
        ) from error


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
        DamagedFileError: it is not JSON.
        HierRouterError: it is missing, or cannot be read now.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HierRouterError(f"{path} does not exist; was the stage before it run?") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); make it anew") from error
    except OSError as error:
        raise HierRouterError(
            f"{path} cannot be read now ({error.strerror or error}); mend what is wrong, then run "
            "the same command again"
        ) from error


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_text(text: str) -> str:
    """The SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return sha256_bytes(text.encode("utf-8"))


def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form."""
    return sha256_text(canonical_json(value))


def canonical_json(value: Any) -> str:
    """A JSON value in canonical form: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def claim_folder(folder: Path, marker: str) -> None:
    """Makes sure that `folder` may be written: new, empty, or holding our `marker` file.

    Raises:
        ConfigError: the path is a file, or a folder with other content.
        HierRouterError: it cannot be made.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; name a folder for the output")
        if is_remote(folder):
            if not folder.exists():
                return  # an object store has no empty folders
        else:
            folder.mkdir(parents=True, exist_ok=True)
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".tmp-")]
    except OSError as error:
        raise HierRouterError(
            f"cannot make the folder {folder}: {error.strerror}; make its parent writable or name "
            "another folder"
        ) from error
    if entries and not (folder / marker).exists():
        raise ConfigError(
            f"{folder} is not empty and holds no {marker} of ours; name an empty or new folder"
        )

"""One writer a tree: the lock that whatever changes a tree holds."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from hierrouter.errors import BusyError, HierRouterError
from hierrouter.files import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".tmp-lock"
"""The operating system frees it when its holder ends, however that ends; the file may stay."""


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of the tree in `folder`, and clears away what a killed writer left.

    An object store has no locks. A file of nodes replaces none there: of two writers with the same
    calls the second is refused (`BusyError`), and goes on from the replies of the first when it is
    run again. But both pay for what is under way, calls of which only some are the same may stand
    there twice, each with second hops of its own, and the scores and journal of the last to end
    replace those of the other: give each recorder a shard and a folder of its own, then merge.

    Raises:
        BusyError: another process writes there.
        HierRouterError: nobody can.
    """
    if is_remote(folder):
        yield
        return
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
        for leftover in folder.rglob(".tmp-*"):
            if leftover.name != LOCK:
                leftover.unlink(missing_ok=True)
    except Timeout:
        raise BusyError(
            f"another process is recording into {folder}; wait for it, or name another folder"
        ) from None
    except NotImplementedError:
        raise HierRouterError(
            f"cannot lock {folder}: its file system has no locks; name a folder of another, or an "
            "object store"
        ) from None
    except OSError as error:
        lock.release()
        raise HierRouterError(
            f"cannot write in {folder}: {error.strerror or error}; "
            "make it writable or name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()

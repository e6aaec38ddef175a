"""Who registers from where: the code's commit, the user, the process."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

import hierrouter

PACKAGE = Path(hierrouter.__file__).parent


def git_commit(package: Path = PACKAGE) -> str | None:
    """The commit of the code that runs, followed by "-dirty" if tracked files were changed since.

    GIT_COMMIT overrides it: images are built without the history. Only the checkout that the
    package belongs to counts, not the one that the user stands in, nor one that the package was
    merely installed into.

    Args:
        package: the folder of the package.

    Returns:
        The commit; none where the package is no part of a checkout.
    """
    if commit := os.environ.get("GIT_COMMIT"):
        return commit
    git = ["git", "--no-optional-locks", "-C", str(package)]
    try:
        # Fails where git ignores the file: an environment inside somebody's checkout.
        _said([*git, "ls-files", "--error-unmatch", "__init__.py"])
        return _said([*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
    except (OSError, subprocess.SubprocessError):
        return None


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def user() -> str | None:
    """The name of the user; none in a container whose user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def process() -> str:
    """Tells this process from others on this and other machines: `HOST/PID`."""
    return f"{socket.gethostname()}/{os.getpid()}"


def has_ended(name: str) -> bool:
    """Whether a process, named as by `process`, is known to be gone: one of this host's."""
    host, _, number = name.rpartition("/")
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False

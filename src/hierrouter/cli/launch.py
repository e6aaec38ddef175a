"""How our programs start and end: expected failures are one line and a non-zero exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from hierrouter.errors import HierRouterError
from hierrouter.interrupts import INTERRUPTED, StoppedError
from hierrouter.progress import console, say

if TYPE_CHECKING:
    from typer import Typer

STORES = ("aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs")
"""Libraries that serve object stores."""
STOPPED = "stopped; what was finished is kept, the same command goes on from there"


def launch(app: Typer, name: str, stopped: str = STOPPED) -> None:
    """Runs a command line; expected failures end in one line and a non-zero exit code.

    Args:
        app: its commands.
        name: what the program is called.
        stopped: what to say after Ctrl-C, where a command has no words of its own (`stopping`).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait make a model several times slower as soon as another program
    # uses a core; asleep they cost nothing. Read when torch is loaded, so it is set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A plain `kill` ends like Ctrl-C: replies that are there are kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name=name, standalone_mode=True)
    except HierRouterError as error:
        _end(" ".join(f"error: {error}".splitlines()), error.exit_code)
    except Exception as error:
        # What an object store's library raises has no common ancestor.
        if type(error).__module__.partition(".")[0] not in STORES:
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        _end(f"error: an object store failed ({reason}); run the same command again", 1)
    except StoppedError as ending:
        say(ending.words)
        raise
    except SystemExit as ending:
        # typer turns Ctrl-C into this, without a word.
        if ending.code == INTERRUPTED:
            say(stopped)
        raise


def _end(line: str, code: int) -> None:
    console.print(line, style="red", markup=False, emoji=False, soft_wrap=True)
    sys.exit(code)

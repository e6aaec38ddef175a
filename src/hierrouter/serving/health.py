"""What the image's health check runs: asks the server, where this container is one.

Other containers of the image run a stage and end by themselves; they are healthy while they run.
"""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

PORT = "8080"
"""Where the server listens unless it is told."""
WITHIN_S = 10


def healthy(arguments: list[str]) -> bool:
    """Whether a container is well.

    Args:
        arguments: the command line of its first process.
    """
    if "serve" not in arguments:
        return True
    port = PORT
    for index, argument in enumerate(arguments):
        if argument == "--port":
            port = arguments[index + 1]
        elif argument.startswith("--port="):
            port = argument.partition("=")[2]
    url = f"http://127.0.0.1:{port}/v2/health/ready"
    try:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    line = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace")
    sys.exit(0 if healthy(line.split("\0")) else 1)

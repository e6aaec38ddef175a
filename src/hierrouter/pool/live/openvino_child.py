"""The program that holds an OpenVINO model for `openvino.py`: it steps the batch, and no more.

OpenVINO keeps Python's lock while a step computes, and nothing else in its process runs meanwhile;
so the model has a process of its own. Run as a module, with a socket's descriptor and the model's
folder as arguments; imports little, so that it starts fast and takes little beside the weights.

Both ends write one JSON array a line. The child hears

    ["ask", number, tokens, limit, stops]    and    ["drop", number]

and says ["loaded"] first, then ["refused", number, reason] or, after a step, what it made for all

    ["made", [[number, tokens, log-probabilities, end], …]]

where `end` is null while there is more to come, "done", or "no room" in the cache. Its last word
is ["failed", reason]. It ends with the socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from hierrouter.pool.openvino_pipeline import add_request, open_pipeline

PR_SET_PDEATHSIG = 1
RECEIVED = 1 << 20
"""Most bytes that are read at once."""


class Channel:
    """Lines from and to the parent."""

    def __init__(self, end: socket.socket) -> None:
        """Takes the child's end, which blocks."""
        self._end = end
        self._rest = b""

    def say(self, *words: object) -> None:
        """Writes a line."""
        self._end.sendall(json.dumps(words).encode() + b"\n")

    def heard(self, *, wait: bool) -> list[Any]:
        """What the parent has written since; waits for a line if told to.

        Raises:
            EOFError: the parent is gone, or wants no more.
        """
        lines: list[bytes] = []
        while True:
            try:
                now = 0 if wait and not lines else socket.MSG_DONTWAIT
                part = self._end.recv(RECEIVED, now)
            except BlockingIOError:
                return [json.loads(line) for line in lines]
            if not part:
                raise EOFError
            *whole, self._rest = (self._rest + part).split(b"\n")
            lines += whole


def serve(channel: Channel, pipeline: Any) -> None:
    """Steps while something is asked; returns with an error only."""
    from openvino_genai import GenerationStatus

    running: dict[int, Any] = {}
    while True:
        for word, number, *rest in channel.heard(wait=not running):
            if word == "ask":
                try:
                    running[number] = add_request(pipeline, number, *rest)
                except Exception as error:  # about this one request; the others go on
                    channel.say("refused", number, _reason(error))
            elif handle := running.pop(number, None):
                handle.cancel()
        # Also where nothing is left to compute: what was cancelled is freed by a step.
        pipeline.step()
        made = []
        for number, handle in list(running.items()):
            tokens: list[int] = []
            logprobs: list[float] = []
            while handle.can_read():
                for output in handle.read().values():
                    tokens += output.generated_ids
                    logprobs += output.generated_log_probs
            status, end = handle.get_status(), None
            if status != GenerationStatus.RUNNING:
                end = "no room" if status == GenerationStatus.IGNORED else "done"
                del running[number]
            if tokens or end:
                made.append((number, tokens, logprobs, end))
        if made:
            channel.say("made", made)


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _end_with_the_parent() -> None:
    """Lets the kernel end this process with the parent, however long a step takes.

    More exactly with the thread that started it, which is its event loop's. Elsewhere than on
    Linux the socket's end is seen after the step.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Loads, serves, ends."""
    # When it ends is the parent's to say: replies under way are finished first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _end_with_the_parent()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    # OpenVINO does without this package where there is none; with it, some calls report to a
    # statistics service.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        try:
            pipeline = open_pipeline(Path(sys.argv[2]))
            channel.say("loaded")
            serve(channel, pipeline)
        except (EOFError, ConnectionError):
            pass
        except Exception as error:
            channel.say("failed", _reason(error))
    except OSError:  # nobody is left to hear it
        pass
    # Taking a pipeline down in good order takes time, and serves nobody.
    os._exit(0)


if __name__ == "__main__":
    main()

"""The process that holds an OpenVINO model, as the server sees it: started, asked, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hierrouter.pool.checkpoint import Checkpoint

CHILD = "hierrouter.pool.live.openvino_child"
"""What it runs."""

Made = tuple[int, list[int], list[float], Literal["done", "no room"] | None]
"""For a request: new tokens, their log-probabilities, and how it ended if it has."""


class Asking(Protocol):
    """Whoever waits for a reply; what ends it is the last that it is told."""

    def made(self, made: Made) -> None:
        """A step made something for it."""
        ...

    def failed(self, error: HierRouterError) -> None:
        """Nothing more will come."""
        ...


class ModelProcess(asyncio.Protocol):
    """One process, from its start to its end, for callers of the event loop that started it.

    Its socket is all that they share: the process ends when this end is closed, also where the
    server was killed; and that it has ended is seen there.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Starts it, inside a running event loop.

        Args:
            checkpoint: the model's.
        """
        self.over = False
        """Whether it answers no more."""
        self._checkpoint = checkpoint
        self._asking: dict[int, Asking] = {}
        self._numbers = 0
        self._rest = b""
        self._settled = asyncio.Event()
        self._failure = ""
        self._heard_at = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._buried: asyncio.Future[int] | None = None
        self._starting = asyncio.ensure_future(self._start())

    @property
    def silent_s(self) -> float:
        """Seconds since it said something; of use only where somebody waits for a reply."""
        return time.monotonic() - self._heard_at

    async def loaded(self) -> None:
        """Waits until it can be asked.

        Raises:
            HierRouterError: it cannot.
        """
        await self._settled.wait()
        if self._failure:
            raise HierRouterError(self._failure)

    def ask(self, asking: Asking, ids: Sequence[int], limit: int, stops: Sequence[int]) -> int:
        """Asks for a reply of a process that is loaded; returns the request's number.

        Args:
            asking: who is told of it.
            ids: the prompt's tokens.
            limit: the most new tokens.
            stops: tokens that end it.
        """
        if not self._asking:
            self._heard_at = time.monotonic()  # until now there was nothing to say
        self._numbers += 1
        self._asking[self._numbers] = asking
        self._say("ask", self._numbers, ids, limit, stops)
        return self._numbers

    def drop(self, number: int) -> None:
        """Ends a reply that nobody waits for; nothing happens where it has ended."""
        if self._asking.pop(number, None) is not None:
            self._say("drop", number)

    async def end(self, why: str) -> None:
        """Ends it, whatever it is at, and waits until it has.

        Args:
            why: what its callers are told.
        """
        self._fail(why)
        self._starting.cancel()
        if self._transport is not None:
            self._transport.abort()
        await asyncio.shield(self._bury())

    async def _start(self) -> None:
        try:
            self._child, ours = _run(self._checkpoint.folder)
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException as error:
            self._fail(f"model {self._checkpoint.label}: cannot start a process for it ({error})")
            await asyncio.shield(self._bury())
            if not isinstance(error, OSError):
                raise

    def data_received(self, data: bytes) -> None:
        """What the process says."""
        self._heard_at = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._heard(*json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or this end was closed."""
        self.over = True
        if not self._failure:
            self._starting = asyncio.ensure_future(self._tell_how_it_ended())
        else:
            self._bury()

    def _say(self, *words: object) -> None:
        if self._transport is not None and not self.over:
            self._transport.write(json.dumps(words).encode() + b"\n")

    def _heard(self, word: str, *rest: Any) -> None:
        match word, rest:
            case "made", (made,):
                for each in made:
                    self._hand_out(each)
            case "refused", (number, reason):
                if asking := self._asking.pop(number, None):
                    asking.failed(RefusedError(self._failed(reason)))
            case "loaded", ():
                self._settled.set()
            case "failed", (reason,) if self._settled.is_set():
                self._fail(self._failed(reason))
            case "failed", (reason,):
                error = self._checkpoint.unusable("OpenVINO model", RuntimeError(reason))
                self._fail(str(error))

    def _hand_out(self, made: Made) -> None:
        number, _, _, end = made
        asking = self._asking.get(number)
        if asking is None:
            return
        try:
            asking.made(made)
        except Exception as error:  # text that cannot be made of its tokens is this caller's alone
            self.drop(number)
            asking.failed(UnreachableError(self._failed(str(error) or type(error).__name__)))
        if end:
            self._asking.pop(number, None)

    def _failed(self, reason: str) -> str:
        line = reason.splitlines()[0] if reason else "no reason given"
        return f"model {self._checkpoint.label}: OpenVINO failed ({line})"

    def _fail(self, why: str) -> None:
        """Tells all who wait; whoever asks next is told the same."""
        self.over = True
        self._failure = self._failure or why
        self._settled.set()
        asking, self._asking = self._asking, {}
        for each in asking.values():
            each.failed(UnreachableError(why))

    async def _tell_how_it_ended(self) -> None:
        code = await asyncio.shield(self._bury())
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
        memory = "; is there enough memory?" if code == -signal.SIGKILL else ""
        self._fail(f"model {self._checkpoint.label}: its process {how}{memory}")

    def _bury(self) -> asyncio.Future[int]:
        """Makes sure that it is dead, and its memory free; gives its exit code.

        Nothing in it is worth an orderly end, which a step that hangs would keep from coming.
        """
        if self._buried is None:
            self._buried = asyncio.ensure_future(asyncio.to_thread(_kill, self._child))
        return self._buried


def _run(folder: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Starts the program, with this interpreter and the modules that this process sees.

    Not with multiprocessing, which would run the main program's module anew. In a session of its
    own, so that Ctrl-C in a terminal reaches the server alone, which ends it when all is said.

    Returns:
        The process, and the socket at whose other end it is.

    Raises:
        OSError: there can be no further process.
    """
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD, str(theirs.fileno()), str(folder)],
                stdin=subprocess.DEVNULL,
                # Messages of the native code must not get between a command's output.
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return child, ours


def _kill(child: subprocess.Popen[bytes] | None) -> int:
    if child is None:
        return 0
    child.kill()
    return child.wait()

"""A live OpenVINO model in its own process: whatever becomes of one, the other is not harmed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from hierrouter.errors import HierRouterError, RefusedError, UnreachableError
from hierrouter.pool import openvino_convert
from hierrouter.pool.live.backend import Prompt, Turn
from hierrouter.pool.live.openvino import OpenVINOLive
from hierrouter.pool.live.openvino_child import Channel, serve
from hierrouter.pool.openvino_pipeline import open_pipeline

STAND_IN = """
import ctypes, os, signal, sys, time
HERE = os.path.dirname(__file__)
sys.path.remove(HERE)
del sys.modules[__name__]
import openvino_genai as real

class Pipeline(real.ContinuousBatchingPipeline):
    def __init__(self, folder, scheduler, device):
        LOADING
        super().__init__(folder, scheduler, device)

    def step(self):
        if os.path.exists(os.path.join(HERE, "broken")):
            STEPPING
        super().step()

real.ContinuousBatchingPipeline = Pipeline
"""
"""OpenVINO GenAI as the child sees it, with a fault."""
HANG = "os.close(os.open(f'{HERE}/hung', os.O_WRONLY)); ctypes.PyDLL(None).pause()"
"""For ever, and with Python's lock, as native code hangs; first it tells whoever reads a pipe."""
SLOW = "time.sleep(0.02)"
"""As a larger model is: a reply is under way for long enough to do something."""


@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    openvino_convert.convert(tiny, folder)
    return folder


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Gives OpenVINO a fault; the one in a step lasts while the file `broken` exists."""

    def give(loading="pass", stepping="pass"):
        text = STAND_IN.replace("LOADING", loading).replace("STEPPING", stepping)
        (tmp_path / "openvino_genai.py").write_text(text)
        (tmp_path / "broken").touch()
        os.mkfifo(tmp_path / "hung")
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return give


def started(backend, work):
    async def run():
        await backend.start()
        try:
            return await asyncio.wait_for(work(), 120)
        finally:
            await asyncio.wait_for(backend.close(), 60)

    result = asyncio.run(run())
    assert children() == []
    return result


def children():
    return [each for each in psutil.Process().children() if "openvino_child" in str(each.cmdline())]


def ask(backend, message="Hi", limit=8):
    return backend.stream(backend.prepare([Turn("user", message)]), limit)


async def reply_of(*asked):
    return [said async for said in ask(*asked)][-1]


async def begun(backend):
    """A reply of many words whose first is there."""
    stream = ask(backend, "And?", 100)
    assert isinstance(await anext(stream), str)
    return stream


async def rest_of(stream):
    return [said async for said in stream][-1]


def test_it_dies_and_its_callers_know_and_the_next_gets_another(converted, faulty) -> None:
    faulty(stepping=SLOW)
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        before = await reply_of(backend)
        (child,) = children()
        streams = [await begun(backend) for _ in range(3)]
        child.kill()
        ends = await asyncio.gather(*map(rest_of, streams), return_exceptions=True)
        for end in ends:
            assert isinstance(end, UnreachableError)
            assert str(end).startswith("model tiny: its process was ended by signal 9 (Killed)")
        after = await asyncio.gather(*(reply_of(backend) for _ in range(3)))
        assert {each.reply for each in after} == {before.reply}
        (another,) = children()
        assert another.pid != child.pid

    started(backend, work)


def test_it_dies_while_nobody_asks(converted) -> None:
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        (child,) = children()
        os.kill(child.pid, signal.SIGSEGV)
        # It was there when it was asked, or is not: either the caller is told, or gets an answer.
        first = await asyncio.gather(reply_of(backend), return_exceptions=True)
        assert getattr(first[0], "tokens_out", 8) == 8
        assert (await reply_of(backend)).tokens_out == 8

    started(backend, work)


def test_signals_for_a_whole_terminal_do_not_end_it(converted, faulty) -> None:
    faulty(stepping=SLOW)
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        expected = await reply_of(backend, "And?", 100)
        stream = await begun(backend)
        (child,) = children()
        assert os.getpgid(child.pid) != os.getpgid(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            child.send_signal(number)
        assert (await rest_of(stream)).reply == expected.reply
        assert children() == [child]

    started(backend, work)


def test_closing_tells_all_who_wait(converted, faulty) -> None:
    """A step hangs: neither the event loop nor the end waits for it."""
    folder = faulty(stepping=HANG)
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        waiting = [asyncio.ensure_future(reply_of(backend)) for _ in range(80)]
        await asyncio.to_thread((folder / "hung").read_bytes)
        await backend.close()
        for end in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(end, UnreachableError)
            assert str(end) == "model tiny is shutting down"
        with pytest.raises(UnreachableError, match="model tiny"):
            await reply_of(backend)

    started(backend, work)


def test_one_that_hangs_is_ended_once_that_is_known_and_the_next_gets_another(
    converted, faulty, monkeypatch
) -> None:
    folder = faulty(stepping=HANG)
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        waiting = asyncio.ensure_future(reply_of(backend))
        await asyncio.to_thread((folder / "hung").read_bytes)
        await backend.slow()  # it may only be slow
        assert not waiting.done()
        monkeypatch.setattr("hierrouter.pool.live.openvino.SILENT_S", 0.0)
        (folder / "broken").unlink()
        await backend.slow()
        (end,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(end, UnreachableError)
        assert "hangs" in str(end)
        assert (await reply_of(backend)).tokens_out == 8

    started(backend, work)


def test_given_up_while_it_loads_it_ends(converted, faulty) -> None:
    folder = faulty(loading=HANG)
    backend = OpenVINOLive(converted, "tiny")

    async def run():
        starting = asyncio.ensure_future(backend.start())
        await asyncio.to_thread((folder / "hung").read_bytes)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert children() == []

    asyncio.run(run())


def test_a_step_that_fails_is_told_to_all_and_mended(converted, faulty) -> None:
    folder = faulty(stepping="raise RuntimeError('no memory\\nat all')")
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        asked = (reply_of(backend, message) for message in ("Hi", "And?", "So?"))
        for failed in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(failed, UnreachableError)
            assert str(failed) == "model tiny: OpenVINO failed (no memory)"
        (folder / "broken").unlink()
        assert (await reply_of(backend)).tokens_out == 8

    started(backend, work)


def test_what_openvino_refuses_is_that_callers_alone(converted) -> None:
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        expected = await reply_of(backend, "And?", 100)
        stream = await begun(backend)
        with pytest.raises(RefusedError, match=r"model tiny: OpenVINO failed \(.*prompt_len > 0"):
            await rest_of(backend.stream(Prompt((Turn("user", ""),), 0, []), 8))
        assert (await rest_of(stream)).reply == expected.reply

    started(backend, work)


def test_a_prompt_beyond_the_cache_is_refused(converted, faulty) -> None:
    faulty(loading="scheduler.cache_size, scheduler.num_kv_blocks = 0, 2")
    backend = OpenVINOLive(converted, "tiny")

    async def work():
        with pytest.raises(RefusedError, match="model tiny: a prompt does not fit into its cache"):
            await reply_of(backend, "x" * 300)
        assert (await reply_of(backend, "x", 2)).tokens_out == 2

    started(backend, work)


@pytest.mark.parametrize(
    ("loading", "said"),
    [
        ("raise RuntimeError('not\\nso')", r"model tiny: no usable OpenVINO model in .* \(not\)"),
        ("raise MemoryError", r"model tiny: no usable OpenVINO model in .* \(MemoryError\)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "model tiny: .* by signal 9 .*; is there enough"),
        ("os._exit(3)", "model tiny: its process ended with exit code 3"),
    ],
)
def test_what_does_not_load_is_one_line(converted, faulty, loading, said) -> None:
    faulty(loading=loading)
    with pytest.raises(HierRouterError, match=said) as caught:
        started(OpenVINOLive(converted, "tiny"), lambda: None)
    assert "\n" not in str(caught.value)
    assert children() == []


def test_a_broken_folder_is_one_line(converted, tmp_path) -> None:
    folder = shutil.copytree(converted, tmp_path / "broken")
    (folder / "openvino_model.xml").write_text("<net")
    with pytest.raises(HierRouterError, match="model tiny: no usable OpenVINO model in") as caught:
        started(OpenVINOLive(folder, "tiny"), lambda: None)
    assert "\n" not in str(caught.value)


def test_where_no_process_can_be_started_it_is_one_line(converted, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(HierRouterError, match="model tiny: cannot start a process for it"):
        started(OpenVINOLive(converted, "tiny"), lambda: None)


PROGRAM = """
import asyncio, sys, psutil
from pathlib import Path
from hierrouter.pool.live.backend import Turn
from hierrouter.pool.live.openvino import OpenVINOLive

async def main():
    backend = OpenVINOLive(Path(sys.argv[1]), "tiny")
    await backend.start()
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    async for said in backend.stream(backend.prepare([Turn("user", "Hi")]), 8):
        pass
    print("done", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
"""Without a guard: a child must not run its parent's main module again."""


@pytest.mark.parametrize("stepping", ["pass", HANG], ids=["idle", "hanging"])
def test_the_server_is_killed_and_no_child_is_left(converted, tmp_path, faulty, stepping) -> None:
    folder = faulty(stepping=stepping)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    server = subprocess.Popen(
        [sys.executable, str(script), str(converted)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    with server:
        try:
            (number,) = server.stdout.readline().split()
            child = psutil.Process(int(number))
            if stepping == HANG:
                (folder / "hung").read_bytes()
            else:
                assert server.stdout.readline() == "done\n"
        finally:
            server.kill()
    assert psutil.wait_procs([child], timeout=60)[1] == []


def test_the_child_computes_nothing_for_those_who_went_away(converted) -> None:
    pipeline = open_pipeline(converted)
    ours, theirs = socket.socketpair()

    def run() -> None:
        with pytest.raises(EOFError):
            serve(Channel(theirs), pipeline)

    thread = threading.Thread(target=run)
    thread.start()
    with ours, ours.makefile("rw") as lines:

        def say(*words):
            print(json.dumps(words), file=lines, flush=True)

        def made_until(number, end):
            """Takes what is said, up to a reply's end; returns all the numbers in it."""
            seen = set()
            for line in lines:
                word, made = json.loads(line)
                assert word == "made"
                seen |= {each[0] for each in made}
                if any(each[0] == number and each[3] == end for each in made):
                    return seen
            return None

        say("ask", 1, [5, 6, 7], 10**6, [])
        made_until(1, None)
        say("drop", 1)
        say("ask", 2, [5, 6, 7], 3, [1])
        made_until(2, "done")
        say("ask", 3, [5, 6, 7], 20, [1])
        assert made_until(3, "done") == {3}
    thread.join(60)
    assert not pipeline.has_non_finished_requests()

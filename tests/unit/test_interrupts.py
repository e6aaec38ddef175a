"""Programs that are told to stop, once and again while they put things in order."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import asyncio, sys, typer
from hierrouter.cli.launch import launch
from hierrouter.interrupts import run_live, stopping

app = typer.Typer()
HANGS, OWN_WORDS = "hangs" in sys.argv, "own" in sys.argv

async def close():
    print("closing", flush=True)
    await (asyncio.Event().wait() if HANGS else asyncio.sleep(0))
    print("closed", flush=True)

async def work():
    helper = asyncio.ensure_future(asyncio.Event().wait())
    try:
        print("working", flush=True)
        await helper
    finally:
        await close()

@app.command()
def main(how: str) -> None:
    if OWN_WORDS:
        with stopping("nothing is there"):
            run_live(work())
    run_live(work())

launch(app, "program", "all is kept")
"""


def started(how: str) -> subprocess.Popen[str]:
    """The program, once it works."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", CODE, how], **pipes)
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("how", "words"), [("closes", "all is kept"), ("own", "nothing is there")])
def test_told_once_it_puts_things_in_order_and_says_what_is_left(how, words, number) -> None:
    process = started(how)
    process.send_signal(number)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "closing\nclosed\n"
    assert told == f"{words}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_again_it_ends_at_once_with_one_line(number) -> None:
    process = started("hangs")
    process.send_signal(number)
    assert process.stdout.readline() == "closing\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "stopped at once\n"

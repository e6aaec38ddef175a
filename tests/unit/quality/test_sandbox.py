"""What untrusted programs can and cannot do."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hierrouter.quality.sandbox import SandboxLimits, passes_tests

GOOD = "def f(x):\n    return x + 1\n"
BAD = "def f(x):\n    return x\n"
TESTS = ["assert f(1) == 2"]
SHORT = SandboxLimits(cpu_seconds=1, wall_seconds=3.0)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sandboxes make their folders during a test."""
    # An unprivileged child must be able to walk here, as it is in /tmp.
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    place.rmdir()


def living(name: str) -> list[psutil.Process]:
    """Processes of that name that still run."""
    return [
        process
        for process in psutil.process_iter(["name", "status"])
        if process.info["name"] == name and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_right_and_wrong() -> None:
    assert passes_tests(GOOD, TESTS)
    assert not passes_tests(BAD, TESTS)
    assert not passes_tests("def f(x:", TESTS)
    assert not passes_tests(GOOD, ["assert f(1) == 2", "assert f(1) == 3"])


def test_set_up_snippets_run_before_the_asserts() -> None:
    assert passes_tests(
        "def f(n):\n    return n.value", ["class N:\n    value = 2", "assert f(N()) == 2"]
    )


def test_the_standard_library_can_be_imported() -> None:
    names = "re json math heapq decimal fractions datetime statistics dataclasses typing asyncio"
    program = "from __future__ import annotations\n" + "\n".join(
        f"import {name}" for name in names.split()
    )
    point = "@dataclasses.dataclass\nclass Point:\n    x: int\n"
    assert passes_tests(f"{program}\n{point}{GOOD}", ["assert f(Point(1).x) == 2"])


ESCAPES = {
    "sys.exit": f"import sys\n{BAD}sys.exit(0)",
    "os._exit": f"import os\n{BAD}os._exit(0)",
    "exit in the function": "import os\ndef f(x):\n    os._exit(0)",
    "SystemExit in the function": "def f(x):\n    raise SystemExit(0)",
    "atexit": f"import atexit, os\natexit.register(os._exit, 0)\n{BAD}",
    "AssertionError replaced": (
        f"import builtins\nbuiltins.AssertionError = type('E', (), {{}})\n{BAD}"
    ),
    "exec and compile replaced": (
        "import builtins\nbuiltins.exec = lambda *a: None\n"
        f"builtins.compile = lambda *a, **k: 'pass'\n{BAD}"
    ),
    "os functions replaced": f"import os\nos.write = os.read = os._exit = print\n{BAD}",
    "excepthook": f"import sys\nsys.excepthook = lambda *a: None\n{BAD}",
    "every descriptor written to": (
        "import os\nfor fd in range(64):\n    try:\n        os.write(fd, b'0' * 32)\n"
        f"    except OSError:\n        pass\n{BAD}"
    ),
    "null byte": "\0",
    "lone surrogate": f"x = '\ud800'\n{GOOD}",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**8)\ndef f(x):\n    return f(x)",
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
}


@pytest.mark.parametrize("program", ESCAPES.values(), ids=ESCAPES.keys())
def test_leaving_early_or_cheating_fails(program: str) -> None:
    assert not passes_tests(program, TESTS, SHORT)


EXCESSES = {
    "endless loop": "while True: pass",
    "endless sleep": "import time\ntime.sleep(1000)",
    "memory": f"x = bytearray(1 << 30)\n{GOOD}",
    "files": (
        "with open('a', 'wb') as file:\n    for _ in range(64):\n"
        f"        file.write(bytes(1 << 20))\n{GOOD}"
    ),
    "descriptors": f"import os\nx = [os.open('/', 0) for _ in range(100)]\n{GOOD}",
    "output": "while True: print('x' * 100_000)",
    "SIGXCPU ignored": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    ),
}


@pytest.mark.parametrize("program", EXCESSES.values(), ids=EXCESSES.keys())
def test_excess_ends_and_fails(program: str) -> None:
    assert not passes_tests(program, TESTS, SHORT)


def test_much_output_is_no_failure() -> None:
    assert passes_tests(f"print('x' * 10_000_000)\n{GOOD}", TESTS)


def test_input_is_empty() -> None:
    assert passes_tests("import sys\ntext = sys.stdin.read()", ["assert text == ''"])


def test_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    look = "import os\nseen = b''.join(open('/proc/self/environ', 'rb').readlines())"
    assert passes_tests(look, ["assert not os.environ", "assert b'secret' not in seen"])


def test_its_own_folder_is_writable_and_gone_afterwards(folder: Path) -> None:
    program = "import os\nos.mkdir('d')\nopen('d/a', 'w').write('b')\nos.chmod('d', 0)"
    assert passes_tests(program, ["assert os.listdir('.') == ['d']", "assert os.getcwd() != '/'"])
    assert list(folder.iterdir()) == []


def test_no_process_outlives_it() -> None:
    name = f"hr{os.getpid()}"
    named = f"import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'{name}')\n"
    fork = (
        "try:\n    child = os.fork()\nexcept OSError:\n    child = 1\n"
        "if child == 0:\n    os.setsid()\n    time.sleep(1000)\n"
    )
    # That the name is seen from outside: a process of ours that sleeps under it.
    with subprocess.Popen(
        [sys.executable, "-c", f"{named}print(1, flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as own:
        assert own.stdout is not None
        own.stdout.readline()
        assert [process.pid for process in living(name)] == [own.pid]
        own.communicate(b"\n")
    passes_tests(named + fork + GOOD, TESTS, SHORT)
    assert living(name) == []
    passes_tests(f"{named}os.setsid()\nwhile True: pass", TESTS, SHORT)
    assert living(name) == []


def test_fork_bombs_and_threads_are_refused() -> None:
    if os.getuid() == 0 and not passes_tests("import os", ["assert os.getuid() != 0"]):
        pytest.skip("root may not change its user here, and no process limit binds root")
    assert not passes_tests(f"import os\nos.fork()\n{GOOD}", TESTS, SHORT)
    assert not passes_tests(
        f"import threading\nthreading.Thread(target=print).start()\n{GOOD}", TESTS
    )


def isolated() -> bool:
    """Whether the kernel lets us have namespaces."""
    return passes_tests("import os", ["assert os.getpid() == 1"])


def test_no_network() -> None:
    if not isolated():
        pytest.skip("this kernel refuses namespaces")
    program = (
        "import errno, socket\n"
        "def f(x):\n"
        "    try:\n        socket.create_connection(('127.0.0.1', 9), 1)\n"
        "    except OSError as error:\n        return error.errno\n"
    )
    # Even the loopback device is down: no route, rather than a refused connection.
    assert passes_tests(program, ["assert f(1) in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)"])


def test_other_files_cannot_be_changed() -> None:
    if not isolated():
        pytest.skip("this kernel refuses namespaces")
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o777)
    try:
        assert not passes_tests(f"open('{place}/a', 'w')", TESTS)
        assert list(place.iterdir()) == []
    finally:
        place.rmdir()


def test_sets_have_the_same_order_every_time() -> None:
    command = [sys.executable, "-c", "print(hash('a'))"]
    seeded = subprocess.check_output(command, env={"PYTHONHASHSEED": "0"}, text=True).strip()
    assert passes_tests("x = hash('a')", [f"assert x == {seeded}"])

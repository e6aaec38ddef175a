"""Recording that is killed, stopped, out of room or doubled goes on and ends at the same tree.

Nothing here waits for a time: a process is struck when a number of files is there.
"""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hierrouter.routes.load import load_outcomes
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.nodes import read_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPTED = Path(__file__).parents[2] / "configs" / "scripted.yaml"
COMMAND = (sys.executable, "-m", "hierrouter.cli.main")
SETTINGS = (
    *("--config", SCRIPTED),
    *("--set", "data.queries_per_task=15", "--set", "pool.queries_per_unit=3"),
)
QUERIES = 6 * 15
UNITS = 30 * 3 * 2
"""Thirty units of three queries, three models, two depths: so many files of nodes."""
DEADLINE = 120


def start(*arguments: str | Path, **more) -> subprocess.Popen[str]:
    """Starts `hierrouter` with these arguments."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], **pipes, **more)


@dataclass(frozen=True)
class Recording:
    """The queries, a tree recorded undisturbed, and the command that records another."""

    queries: Path
    undisturbed: Path

    def begin(self, out: Path, **more) -> subprocess.Popen[str]:
        return start("collect", *SETTINGS, "--queries", self.queries, "--out", out, **more)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("recording")
    made = Recording(folder / "queries", folder / "undisturbed")
    _, said = (sampling := start("sample", *SETTINGS, "--out", made.queries)).communicate()
    assert sampling.returncode == 0, said
    _, said = (collecting := made.begin(made.undisturbed)).communicate()
    assert collecting.returncode == 0, said
    assert len(files(made.undisturbed)) == UNITS
    return made


def files(tree: Path) -> list[Path]:
    """The committed files of nodes."""
    return sorted((tree / "nodes").glob("[!.]*.parquet"))


def nodes(tree: Path) -> list[tuple]:
    """What was recorded, twice if it was recorded twice; every file is read whole."""
    return sorted(
        (node.query_id, node.models, node.role, node.key, node.reply)
        for path in files(tree)
        for node in read_nodes(path)
    )


def strike(process: subprocess.Popen[str], tree: Path, count: int, number: int) -> bool:
    """Sends a signal as soon as `count` files of nodes are there.

    Returns:
        Whether it still ran then.
    """
    until = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < until:
        if len(files(tree)) >= count:
            process.send_signal(number)
            return True
    assert process.poll() is not None, "nothing was recorded"
    return False


def same(tree: Path, recording: Recording) -> None:
    """That a tree holds what the undisturbed one does, and nothing else lies about."""
    assert nodes(tree) == nodes(recording.undisturbed)
    assert [path.name for path in files(tree)] == [
        path.name for path in files(recording.undisturbed)
    ]
    assert [path for path in tree.rglob(".tmp-*") if path.name != ".tmp-lock"] == []
    assert len(load_outcomes(tree, "accuracy")) == QUERIES


def test_killed_and_stopped_again_and_again_it_ends_at_the_same_tree(
    recording: Recording, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    draw = random.Random(0)
    struck = 0
    for turn in range(5):
        kind = signal.SIGINT if turn % 4 == 1 else signal.SIGKILL
        before = {path: path.stat().st_mtime_ns for path in files(tree)}
        process = recording.begin(tree)
        hit = strike(process, tree, len(before) + draw.randrange(1, 32), kind)
        _, said = process.communicate()
        nodes(tree)
        # What was committed before is still there, untouched.
        assert before.items() <= {path: path.stat().st_mtime_ns for path in files(tree)}.items()
        if not hit or process.returncode == 0:
            break
        struck += 1
        if kind is signal.SIGINT:
            assert process.returncode == 130
            assert said.splitlines()[-1].startswith("stopped; what was finished is kept")
            assert "Traceback" not in said
            assert [path for path in tree.rglob(".tmp-*") if path.name != ".tmp-lock"] == []
        else:
            assert process.returncode == -signal.SIGKILL
    assert struck >= 3
    _, said = (last := recording.begin(tree)).communicate()
    assert last.returncode == 0, said
    same(tree, recording)


def test_killed_before_the_first_node_it_begins_anew(recording: Recording, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    process = recording.begin(tree)
    until = time.monotonic() + DEADLINE
    while not (tree / "tree.json").exists() and time.monotonic() < until:
        assert process.poll() is None
    process.kill()
    process.communicate()
    # The worst moment: the folder is ours, the queries are not in it yet.
    (tree / "queries.parquet").unlink(missing_ok=True)
    _, said = (last := recording.begin(tree)).communicate()
    assert last.returncode == 0, said
    same(tree, recording)


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A very small file system at `folder`; what it yields gives it room."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=384k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `mount` here")
    if done.returncode:
        pytest.skip("mounting a small file system needs root")

    def widen() -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)

    try:
        yield widen
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_with_room_the_same_command_completes(
    recording: Recording, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with full_disk(disk) as widen:
        tree = disk / "tree"
        _, said = (failed := recording.begin(tree)).communicate()
        assert failed.returncode == 1
        assert said.splitlines()[-1].startswith(f"error: cannot write {tree}")
        assert said.count("error: ") == 1
        assert "Traceback" not in said
        earlier = {path: path.read_bytes() for path in files(tree)}
        assert 0 < len(earlier) < UNITS
        assert set(nodes(tree)) < set(nodes(recording.undisturbed))
        assert [path for path in tree.rglob(".tmp-*") if path.name != ".tmp-lock"] == []
        widen()
        _, said = (done := recording.begin(tree)).communicate()
        assert done.returncode == 0, said
        assert {path: path.read_bytes() for path in earlier} == earlier
        same(tree, recording)


def test_files_that_may_not_grow_are_one_line_too(recording: Recording, tmp_path: Path) -> None:
    """Needs no root: files are bounded so that the queries cannot be written."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))

    tree = tmp_path / "tree"
    process = recording.begin(tree, preexec_fn=small_files)
    _, said = process.communicate()
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert line.startswith(f"error: cannot write {tree / 'queries.parquet'}: ")
    assert line.endswith("make room or name another folder, then run the same command again")
    _, said = (done := recording.begin(tree)).communicate()
    assert done.returncode == 0, said
    same(tree, recording)


def test_two_at_once_on_one_folder_the_second_is_refused(
    recording: Recording, tmp_path: Path
) -> None:
    tree = shutil.copytree(recording.undisturbed, tmp_path / "tree")
    with sole_writer(tree):  # In this process; the other one must notice.
        _, refused = (second := recording.begin(tree)).communicate()
    assert second.returncode == 1
    assert refused == (
        f"error: another process is recording into {tree}; wait for it, or name another folder\n"
    )
    _, said = (third := recording.begin(tree)).communicate()
    assert third.returncode == 0, said
    same(tree, recording)

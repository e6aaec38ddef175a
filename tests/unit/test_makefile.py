"""What `make` calls and says, with a program that plays ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
MAKEFILE = Path(__file__).parents[2] / "Makefile"

SAMPLES_AND = """#!/bin/sh
if [ "$1" = sample ]; then echo "$*" >sampled; exit 0; fi
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder where all is installed; the log holds what an earlier recording said."""
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / ".installed").touch()
    (tmp_path / "runs" / "record").mkdir(parents=True)
    (tmp_path / "runs" / "record" / "log").write_text("recording 9 of 9 nodes of 3 queries\n")
    return tmp_path


def study_record(folder: Path, collecting: str) -> subprocess.CompletedProcess[str]:
    """Runs it, with a program that does this when it is to collect."""
    return made(folder, SAMPLES_AND + collecting, "study-record")


def made(folder: Path, program: str, *wanted: str) -> subprocess.CompletedProcess[str]:
    """Runs `make` where this is installed as our program."""
    path = folder / ".venv" / "bin" / "hierrouter"
    path.write_text(program)
    path.chmod(0o755)
    # These tests may be run by `make`, whose variables are not meant for this one.
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "PYTHON", "CONFIG")
    return subprocess.run(
        ["make", *wanted],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in inherited},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_start_that_fails_is_told_with_its_reason(folder: Path) -> None:
    done = study_record(folder, "echo taking; echo other weights of model a >&2; exit 2\n")
    assert done.returncode != 0
    assert "recording into studies/small_pool failed: other weights of model a" in done.stderr
    assert "recording into" not in done.stdout
    sampled = (folder / "sampled").read_text()
    assert "--tree studies/small_pool" in sampled  # from where the tree's own questions came


def test_nothing_that_is_missing_is_no_failure(folder: Path) -> None:
    done = study_record(folder, "echo all there\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is missing in studies/small_pool" in done.stdout


def test_a_recording_that_has_begun_goes_on_alone(folder: Path) -> None:
    os.mkfifo(folder / "gate")
    begins = "echo recording 3 of 9 nodes; read line <gate; echo $line >ended; echo >gate\n"
    done = study_record(folder, begins)
    assert done.returncode == 0, done.stderr
    (pid,) = re.findall(r"stop: kill (\d+)", done.stdout)
    os.kill(int(pid), 0)  # it lives
    (folder / "gate").write_text("by itself\n")
    (folder / "gate").read_text()  # it has written
    assert (folder / "ended").read_text() == "by itself\n"


@pytest.mark.parametrize("written", [None, "configs/small_pool.yaml", "./configs/small_pool.yaml"])
def test_the_study_is_known_however_its_config_is_written(folder: Path, written) -> None:
    absolute = f"{folder}/configs/small_pool.yaml"
    for config in [written, absolute]:
        done = made(folder, '#!/bin/sh\necho "$*"\n', "run", *([f"CONFIG={config}"] * bool(config)))
        assert "--out runs/small_pool --tree studies/small_pool --live 12" in done.stdout


def test_another_config_runs_by_itself_even_where_the_folder_has_a_space(folder: Path) -> None:
    spaced = folder.rename(folder.with_name("two words"))
    done = made(spaced, '#!/bin/sh\necho "$*"\n', "run", "CONFIG=configs/other.yaml")
    assert done.stdout == "run --config configs/other.yaml --out runs/other\n"

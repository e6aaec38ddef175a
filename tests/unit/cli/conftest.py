"""The command line in this process, and one small finished experiment."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hierrouter.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = Path(__file__).parents[3] / "configs" / "scripted.yaml"
SMALL = (
    *("--set", "data.queries_per_task=20", "--set", "data.tasks=[arithmetic, history]"),
    *("--set", "training.iterations=2", "--set", "training.rollouts=8"),
    *("--set", "training.steps=4", "--set", "evaluation.bootstrap=100"),
)


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error that an expected failure ends in."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert lines[-1] == errors[0], self.err
        assert "Traceback" not in self.err
        return errors[0]


def call(*arguments: str | Path) -> int:
    """Runs `hierrouter` with these arguments in this process; its exit code."""
    before, sys.argv = sys.argv, ["hierrouter", *map(str, arguments)]
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def hierrouter(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = call(*arguments)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return run


@dataclass(frozen=True)
class Experiment:
    """Folders of every stage up to evaluating, and how they were made."""

    folder: Path
    config: tuple[str, ...] = ("--config", str(CONFIG), *SMALL)

    def __getattr__(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    made = Experiment(tmp_path_factory.mktemp("finished"))
    tree, router = ("--tree", made.tree), ("--router", made.router)
    for stage in (
        ("sample", "--out", made.queries),
        ("collect", "--queries", made.queries, "--out", made.tree),
        ("train", *tree, "--out", made.router),
        ("evaluate", *tree, *router, "--out", made.evaluation),
    ):
        assert call(*stage, *made.config) == 0
    return made


@pytest.fixture
def experiment(finished: Experiment, tmp_path: Path) -> Experiment:
    """A copy of the finished experiment, to do damage to."""
    shutil.copytree(finished.folder, tmp_path / "mine")
    return Experiment(tmp_path / "mine")

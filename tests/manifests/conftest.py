"""`hierrouter` on the command line, in this process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from hierrouter.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def hierrouter(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command; its exit code, and what it says on standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        before, sys.argv = sys.argv, ["hierrouter", *map(str, arguments)]
        try:
            main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        else:
            code = 0
        finally:
            sys.argv = before
        return code, capsys.readouterr().err

    return run

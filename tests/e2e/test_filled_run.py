"""`hierrouter run` on a pool with too many routes: direct answers, then what episodes visit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hierrouter.cli.main import main
from hierrouter.learning.router import Router
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "scripted_lazy.yaml"
SMALL = (
    *("--set", "data.queries_per_task=8", "--set", "training.iterations=2"),
    *("--set", "training.rollouts=16", "--set", "training.steps=8"),
    *("--set", "training.moves=paper", "--set", "evaluation.bootstrap=100"),
)


def test_run_fills_the_tree_once_and_keeps_it(
    tmp_path: Path,
    migrated: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")

    def command(*arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        given = [*map(str, arguments), "--config", str(CONFIG), *SMALL]
        monkeypatch.setattr(sys, "argv", ["hierrouter", *given])
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = int(ending.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = command("run", "--out", "run")
    assert code == 0, said
    assert "recording 480 of 480 nodes of 48 queries" in said  # ten direct answers each
    assert "Left out: random" in said
    tree = tmp_path / "run" / "tree"
    nodes = len(RouteTree(tree).nodes)
    assert 480 < nodes < 48 * 12_220 / 100
    assert verify_tree(tree) == []
    metrics = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text("utf-8"))
    assert all(route.count(":") == 3 for route in metrics["policies"]["router"]["routes"])
    assert Router.load(tmp_path / "run" / "router").info.hops == 4

    code, said = command("run", "--out", "run")
    assert code == 0, said
    assert "router: the one in run/router is kept" in said
    assert "evaluation: the one in run/evaluation is kept" in said
    assert len(RouteTree(tree).nodes) == nodes

    # Another seed wants other routes, and there is no money for them; the error is one line.
    others = ("--set", "training.seed=7")
    code, said = command("train", "--tree", tree, "--out", "other", "--max-dollars", "0", *others)
    assert code == 1
    assert said.splitlines()[-1].startswith("error: stopped, since the next call might exceed")
    assert len(RouteTree(tree).nodes) == nodes

"""Imports point downwards only; every import statement of every module is looked at."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hierrouter"

BASE = {
    *("catalogue", "config", "configfile", "errors", "files", "hub", "interrupts", "mirror"),
    "progress",
}
"""Modules beside the layers; they know each other only."""

SIBLINGS = {"data", "pool", "quality"}
BELOW: dict[str, set[str]] = {layer: {layer} | BASE for layer in SIBLINGS}
BELOW["routes"] = {"routes"} | SIBLINGS | BASE
BELOW["learning"] = {"learning"} | BELOW["routes"]
BELOW["evaluation"] = {"evaluation"} | BELOW["learning"]
BELOW["tracking"] = {"tracking"} | BELOW["evaluation"]
BELOW["serving"] = {"serving"} | BELOW["tracking"]
BELOW["cli"] = {"cli"} | BELOW["serving"]
BELOW["stages"] = {"stages"} | BELOW["serving"]
BELOW |= dict.fromkeys(BASE, BASE)
"""What each layer may import of hierrouter."""

PLATFORMS = {"kfp": set[str](), "mlflow": {"tracking"}, "kserve": {"serving"}}
"""Where the platforms' own packages may be imported (kfp: only outside this package)."""


def imported(source: str, module: str) -> set[str]:
    """Absolute names that a module imports anywhere: in functions and for typing as well.

    Args:
        source: the module's text.
        module: its dotted name; a package's ends in `.__init__`.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = [node.module] if node.module else []
            if node.level:
                parts = module.split(".")[: -node.level] + parts
            found |= {".".join([*parts, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def violations(source: str, module: str) -> list[str]:
    """What a module imports against the arrows, in words."""
    layer = module.split(".")[1]
    allowed = BASE if layer == "__init__" else BELOW.get(layer)
    if allowed is None:
        return [f"{module}: {layer} is in no layer; name it in this test"]
    wrong = []
    for name in sorted(imported(source, module)):
        top, _, rest = name.partition(".")
        if top == "hierrouter" and rest:
            target = rest.split(".")[0]
            if target not in allowed and target in BELOW:
                wrong.append(f"{module} imports {name}: {layer} may not know {target}")
        elif top in PLATFORMS and layer not in PLATFORMS[top]:
            wrong.append(f"{module} imports {name}: not allowed in {layer}")
    return wrong


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    name = ".".join(["hierrouter", *path.relative_to(PACKAGE).with_suffix("").parts])
    assert violations(path.read_text(encoding="utf-8"), name) == []


def test_every_folder_is_a_layer() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(BELOW)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hierrouter.pool.x", "from hierrouter.routes.tree import RouteTree"),
        ("hierrouter.pool.x", "import hierrouter.quality.score"),
        ("hierrouter.pool.x", "from hierrouter import data"),
        ("hierrouter.pool.x", "from ..data import sample"),
        ("hierrouter.pool.__init__", "from ..data import sample"),
        ("hierrouter.data.x", "def late():\n    from hierrouter.evaluation import evaluate"),
        (
            "hierrouter.quality.x",
            "if TYPE_CHECKING:\n    import hierrouter.pool.backend",
        ),
        ("hierrouter.routes.x", "import importlib\nimportlib.import_module('hierrouter.learning')"),
        ("hierrouter.learning.x", "from hierrouter.evaluation import report"),
        ("hierrouter.evaluation.x", "import mlflow"),
        ("hierrouter.evaluation.x", "from hierrouter.tracking.register import register_router"),
        ("hierrouter.tracking.x", "from hierrouter.cli.main import main"),
        ("hierrouter.tracking.x", "import kserve"),
        ("hierrouter.serving.x", "from hierrouter.cli import main"),
        ("hierrouter.cli.x", "def late():\n    import mlflow.pyfunc"),
        ("hierrouter.cli.x", "from kfp import dsl"),
        ("hierrouter.files", "from hierrouter.data import sample"),
        ("hierrouter.__init__", "from hierrouter.learning.router import Router"),
        ("hierrouter.newcomer.x", ""),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hierrouter.routes.x", "from hierrouter.pool.backend import Backend"),
        ("hierrouter.tracking.x", "def late():\n    import mlflow"),
        ("hierrouter.serving.x", "import kserve"),
        ("hierrouter.cli.x", "from hierrouter.tracking.register import register_router"),
        ("hierrouter.pool.x", "from .backend import Backend"),
        ("hierrouter.pool.__init__", "from .backend import Backend"),
        ("hierrouter.cli.x", "from hierrouter import __version__"),
        ("hierrouter.pool.x", "import numpy as np"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert violations(source, module) == []

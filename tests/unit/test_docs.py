"""What the documentation names exists: commands, their options' files, paths of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from hierrouter.cli.main import app
from hierrouter.configfile import load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PACKAGE = ROOT / "src" / "hierrouter"

MADE_BY_US = ("runs/", "mlflow.db", ".venv", "queries/", "tree/", "router/", "evaluation/")
MADE_BY_US += ("nodes/", "embeddings/", "mirror/", "serving/")
"""What a run makes, relative to the repository or to a run's folder."""
FOLDERS = ("src/", "tests/", "configs/", "docs/", "benchmarks/", ".ci/")
PACKAGES = tuple(f"{p.name}/" for p in PACKAGE.iterdir() if p.is_dir() and p.name[0] != "_")
"""The library's own folders, which pages name without `src/hierrouter/`."""
PATH = re.compile(
    r"(?<![\w./:~-])(?:[\w.-]+/)+(?:[\w.*-]*[\w*])?|(?<![\w./-])[\w-]+\.(?:py|yaml|md)\b"
)


def said(path: Path) -> str:
    """A page's text, or the comments of a configuration."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return "\n".join(re.findall(r"#.*", text))
    return text


def names(command: object) -> dict[str, Any]:
    """Commands by name, as the command line itself knows them; of a group, its own commands."""
    return {name: names(inner) for name, inner in getattr(command, "commands", {}).items()}


def unknown_commands(text: str) -> list[str]:
    """The `hierrouter …` of code in a page that do not exist."""
    wrong = []
    for words in re.findall(r"(?:`|^|bin/)hierrouter ([a-z][^`\n]*)", text, re.MULTILINE):
        here = names(get_command(app))
        for word in words.split():
            if not here:
                break
            if word not in here:
                wrong.append(f"hierrouter {words}")
                break
            here = here[word]
    return wrong


def unknown_paths(text: str) -> list[str]:
    """The paths in a page that lead nowhere."""
    wrong = []
    text = re.sub(r"https?://\S+", "", text)
    for name in PATH.findall(text):
        if name.startswith(MADE_BY_US):
            places = [PACKAGE / name] if (PACKAGE / name.split("/")[0]).is_dir() else []
            if not places or not name.endswith(".py"):
                continue  # a run's folder, even where the library has one of that name
        elif name.startswith((*FOLDERS, *PACKAGES)):
            places = [ROOT / name, PACKAGE / name]
        elif "/" not in name and name.endswith((".py", ".md", ".yaml")):
            # Named beside the folder that it is in.
            shelves = ("src", "configs", "docs", "benchmarks", "tests")
            places = [ROOT / name, *(file for s in shelves for file in (ROOT / s).rglob(name))]
        else:
            continue
        if not any(list(place.parent.glob(place.name)) or place.exists() for place in places):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda path: path.name)
def test_every_command_and_path_that_is_named_exists(page: Path) -> None:
    assert unknown_commands(said(page)) == []
    assert unknown_paths(said(page)) == []


def test_the_search_finds_what_does_not_exist() -> None:
    """Else the test above could pass by finding nothing."""
    assert unknown_commands("`hierrouter dream --config x`") == ["hierrouter dream --config x"]
    assert unknown_commands("see\nhierrouter tree prune A\n`hierrouter tree info A`") == [
        "hierrouter tree prune A"
    ]
    assert (
        unknown_commands("`hierrouter run`, .venv/bin/hierrouter ask Q; hierrouter is good") == []
    )
    text = "`configs/no_pool.yaml`, `pool/none.py`, src/hierrouter/mirrors/*.yaml, `gone.yaml`"
    assert unknown_paths(text) == ["configs/no_pool.yaml", "pool/none.py", "gone.yaml"]
    assert unknown_paths("runs/x/router, openai/gsm8k, and/or, https://a.b/docs/x.md") == []
    assert unknown_paths("evaluation/metrics.json of a run, `evaluation/measure.py`") == []
    assert unknown_paths("`evaluation/gone.py`") == ["evaluation/gone.py"]


@pytest.mark.parametrize("page", ["own_tasks.md", "own_models.md"])
def test_what_a_page_configures_is_allowed(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert blocks
    model = "pool:\n  models:\n    - {name: one, model: org/one, base_rate: 0.001}\n"
    for block in blocks:
        config = tmp_path / "config.yaml"
        if block.startswith("data:"):
            config.write_text(block + model)
        else:  # entries of pool.models, with their heading or without
            config.write_text(block if block.startswith("pool:") else f"pool:\n  models:\n{block}")
        overrides = ["data.own.prices.file=f", "data.own.prices.metric=number"]
        assert load_config(config, overrides).pool.models


def test_no_placeholder_is_left() -> None:
    assert [page.name for page in PAGES if re.search(r"@[A-Z]+@", page.read_text("utf-8"))] == []

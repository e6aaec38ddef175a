"""`hierrouter ask` as a process: what it says, and how it ends when it is told to."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import TYPE_CHECKING

from tests.routers import arbitrary_router
from tests.serving.conftest import HIERROUTER, ROOT
from tests.upstream import Upstream

from hierrouter.config import Endpoint
from hierrouter.configfile import load_config
from hierrouter.serving.open import with_endpoints

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = "Topic: history. Marker: jade. What is 12 plus 30?"


def ask(router: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(HIERROUTER), "ask", QUESTION, "--router", str(router), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_replies_are_told_apart(paper_router) -> None:
    asked = ask(paper_router, "--replies")
    route = re.search(r"path (\w+):(\w+), ", asked.stderr)
    assert route
    begin, analysis, answer = re.split(r"^--- (?:\w+), (?:\w+)$\n", asked.stdout, flags=re.M)
    headings = re.findall(r"^--- (\w+), (\w+)$", asked.stdout, flags=re.M)
    assert headings == [(route[1], "analyze"), (route[2], "solve")]
    assert (begin, analysis[-2:]) == ("", "\n\n")
    assert ask(paper_router).stdout == answer


def test_an_alpha_out_of_range_is_noted_and_told_as_it_was_used(router_folder, tmp_path) -> None:
    asked = ask(router_folder, "--alpha", "7")
    assert "trained for alpha 0 to 1; 7 is out of that\n" in asked.stderr
    assert "alpha 7\n" in asked.stderr
    pool = load_config(ROOT / "configs" / "scripted.yaml", []).pool
    arbitrary_router(pool, policy="mlp").save(tmp_path / "mlp", [], "A router for tests.")
    asked = ask(tmp_path / "mlp", "--alpha", "7")
    assert "7 is out of that, and 1 is used\n" in asked.stderr
    assert "alpha 1\n" in asked.stderr


def test_a_name_in_mlflow_that_is_none_is_told_as_such() -> None:
    command = [str(HIERROUTER), "ask", QUESTION, "--router", "models:hierrouter"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert asked.returncode == 2
    assert "name models:/NAME@ALIAS or models:/NAME/VERSION" in asked.stderr


def test_told_to_stop_it_says_that_there_is_no_answer(tmp_path) -> None:
    with Upstream() as upstream:
        pool = load_config(ROOT / "configs" / "scripted.yaml", []).pool
        names = [spec.name for spec in pool.models]
        upstream.behaviour.update(dict.fromkeys(names, "hang"))
        endpoints = {name: Endpoint(url=upstream.url) for name in names}
        router = arbitrary_router(with_endpoints(pool, endpoints))
        router.save(tmp_path / "router", [], "A router for tests.")
        command = [str(HIERROUTER), "ask", QUESTION, "--router", str(tmp_path / "router")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert upstream.under_way.acquire(timeout=120)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    *servers, last = said.splitlines()
    assert last == "stopped before the answer was there"
    assert all("is answered for by" in line for line in servers)

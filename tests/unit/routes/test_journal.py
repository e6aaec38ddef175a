"""What a tree tells of its making, to whomever it is passed on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from hierrouter.routes.journal import command_line

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["/home/ann/bin/hierrouter", "collect"], "hierrouter collect"),
        (["hierrouter", "--out", "/home/ann/tree"], "hierrouter --out tree"),
        (["hierrouter", "--out=/home/ann/my tree"], "hierrouter '--out=my tree'"),
        (["hierrouter", "--out", "runs/tree"], "hierrouter --out runs/tree"),
        (["hierrouter", "--out", "s3://bucket/tree"], "hierrouter --out s3://bucket/tree"),
        (["hierrouter", "--set", "pool.hops=3"], "hierrouter --set pool.hops=3"),
        (["hierrouter", "--set", "data.mirror=/home/x"], "hierrouter --set data.mirror=x"),
    ],
)
def test_a_command_tells_no_place_of_its_machine(given: list[str], told: str) -> None:
    assert command_line(given) == told


def test_the_committed_study_tells_none() -> None:
    entries = json.loads((ROOT / "studies" / "small_pool" / "recordings.json").read_text())
    assert entries
    for entry in entries:
        assert entry["command"] == command_line(shlex.split(entry["command"]))

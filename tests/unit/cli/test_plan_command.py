"""`hierrouter plan` on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def sums(out: str, row: str) -> list[float]:
    """The numbers of one of the last rows: nodes, recorded, generated, tokens, hours, …"""
    line = next(line for line in out.splitlines() if line.split()[:1] == [row])
    return [float(number.replace(",", "")) for number in line.split()[1:]]


def test_without_a_tree_the_plan_is_rough_and_says_so(hierrouter, finished) -> None:
    result = hierrouter("plan", *finished.config, "--accelerators", "2")
    assert result.code == 0
    # 40 queries of 15 nodes; scripted models take no time.
    nodes, recorded, _, tokens_in, tokens_out, hours, dollars, megabytes = sums(result.out, "all")
    assert (nodes, recorded, hours) == (600, 0, 0)
    assert min(tokens_in, tokens_out, dollars, megabytes) > 0
    assert "left for one accelerator: 0 s" in result.out
    assert "for 2: 0 s, the longest of 2 shards" in result.out
    assert "rough: by token limits and model sizes" in result.out
    assert "not counted: embedding, scoring" in result.out


def test_a_finished_tree_has_nothing_left(hierrouter, finished) -> None:
    result = hierrouter("plan", *finished.config, "--tree", finished.tree)
    assert result.code == 0
    assert sums(result.out, "all") == sums(result.out, "recorded")
    assert sums(result.out, "left") == [0] * 8
    assert sums(result.out, "all")[:2] == [600, 600]
    assert re.search(r"estimated from 600 recorded nodes \(scripted cpu none\)", result.out)
    info = hierrouter("tree", "info", finished.tree).out
    # Nodes that share a generation are paid for once: no more than what their routes cost.
    assert sums(result.out, "all")[6] <= float(re.search(r"\$([\d.]+)", info)[1])


def test_a_mean_of_several_machines_is_told(hierrouter, finished) -> None:
    study = ("plan", "--config", ROOT / "configs" / "small_pool.yaml")
    study = (*study, "--tree", ROOT / "studies" / "small_pool")
    journal = json.loads((ROOT / "studies" / "small_pool" / "recordings.json").read_text())
    machines = {entry["machine"] for entry in journal}
    assert len(machines) > 1
    told = "machines recorded the tree (`hierrouter tree info` names them): hours are a mean"
    assert f"{len(machines)} {told}" in hierrouter(*study).out
    # Of another kind of machine, hours are not from this tree.
    assert told not in hierrouter(*study, "--on", "cuda").out
    assert told not in hierrouter("plan", *finished.config, "--tree", finished.tree).out


def test_hours_of_servers_that_overlap_are_told(hierrouter, finished) -> None:
    def planned(*hosts: str) -> str:
        changes = [
            change
            for number, host in enumerate(hosts)
            for change in (
                f"pool.models.{number}.backend=openai",
                f"pool.models.{number}.model=served-{number}",
                f"pool.models.{number}.scripted=null",
                f"pool.models.{number}.endpoint={{url: http://{host}/v1}}",
            )
        ]
        return hierrouter(
            "plan", *finished.config, *(part for each in changes for part in ("--set", each))
        ).out

    assert "servers are asked side by side" in planned("one", "two")
    assert "servers are asked side by side" not in planned("one", "one")


def test_another_machine_takes_another_time_for_the_same_work(hierrouter) -> None:
    plan = ("plan", "--config", ROOT / "configs" / "small_pool.yaml")
    tree = ("--tree", ROOT / "studies" / "small_pool")
    rows = {}
    for on in ("cpu", "openvino", "cuda"):
        result = hierrouter(*plan, *tree, "--on", on)
        assert "hours by model sizes" in result.out
        rows[on] = sums(result.out, "left")
    assert rows["cpu"][5] > rows["openvino"][5] > rows["cuda"][5] > 0
    assert rows["cpu"][:5] == rows["openvino"][:5] == rows["cuda"][:5]
    assert hierrouter(*plan, "--on", "gpu").code == 2


def test_a_part_of_the_queries_of_a_file(hierrouter, finished) -> None:
    part = ("--per-task", "3", "--direct")
    for queries in (finished.queries, finished.queries / "queries.parquet"):
        result = hierrouter("plan", *finished.config, "--queries", queries, *part)
        assert sums(result.out, "all")[:2] == [2 * 3 * 3, 0]


def test_a_plan_leaves_the_tree_as_it_is(hierrouter, experiment) -> None:
    def state() -> dict[str, int]:
        files = [path for path in experiment.tree.rglob("*") if path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = state()
    assert hierrouter("plan", *experiment.config, "--tree", experiment.tree).code == 0
    assert state() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--tree", "{nowhere}"), 1, "nowhere holds no route tree"),
        (("--queries", "{nowhere}"), 1, "does not exist; make it with `hierrouter sample`"),
        (
            ("--tree", "{tree}", "--set", "pool.models.0.instruction=Be brief."),
            2,
            "other instruction of model small",
        ),
        (
            ("--tree", "{tree}", "--set", "pool.prompts.solve=Now."),
            2,
            "recorded with other pool.prompts",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(
    hierrouter, finished, tmp_path, arguments, code: int, said: str
) -> None:
    places = {"nowhere": tmp_path / "nowhere", "tree": finished.tree}
    result = hierrouter("plan", *finished.config, *(each.format(**places) for each in arguments))
    assert result.code == code
    assert said in result.line
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_tree_is_named(hierrouter, experiment) -> None:
    path = sorted((experiment.tree / "nodes").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-10])
    result = hierrouter("plan", *experiment.config, "--tree", experiment.tree)
    assert result.code == 1
    assert path.name in result.line
    assert path.exists()
    (experiment.tree / "tree.json").write_text(json.dumps([]))
    assert (
        "cannot be read back"
        in hierrouter("plan", *experiment.config, "--tree", experiment.tree).line
    )

"""Merging shards, compacting, verifying."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hierrouter.config import Prompts
from hierrouter.errors import ConfigError, DamagedFileError
from hierrouter.files import sha256_file
from hierrouter.routes.calls import Part, Shard
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.nodes import NodeKey, read_nodes, write_nodes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RETIRED, RouteTree, read_retired
from hierrouter.routes.upkeep import compact_tree, merge_trees
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from pathlib import Path


def contents(tree: Path, pattern: str = "nodes/*.parquet") -> dict[str, str]:
    return {path.name: sha256_file(path) for path in tree.glob(pattern)}


@pytest.fixture
def shards(world, queries) -> list[Path]:
    """The world's tree, recorded in three shards."""
    return [
        collect_routes(
            world.pool(), queries, world.folder / f"shard{index}", Part(shard=Shard(index, 3))
        )
        for index in range(3)
    ]


# Merging.


def test_merged_shards_equal_the_whole(world, shards, tree) -> None:
    merged = merge_trees(shards, world.folder / "merged")
    assert contents(merged) == contents(tree)
    assert RouteTree(merged).digest() == RouteTree(tree).digest()
    assert read_scores(merged)[1] == read_scores(tree)[1]
    assert (load_outcomes(merged, "accuracy").embeddings).tolist() == (
        load_outcomes(tree, "accuracy").embeddings
    ).tolist()
    assert verify_tree(merged, keys=True) == []


def test_shards_are_added_as_they_finish_and_nothing_twice(world, shards, capfd) -> None:
    merged = merge_trees(shards[:1], world.folder / "merged")
    some = contents(merged)
    merge_trees(shards, merged)
    assert contents(merged).items() > some.items()
    before = {path: path.stat().st_mtime_ns for path in (merged / "nodes").iterdir()}
    capfd.readouterr()
    merge_trees(shards, merged)
    assert {path: path.stat().st_mtime_ns for path in (merged / "nodes").iterdir()} == before
    assert "shard0: 0 nodes and 0 files of embeddings added" in capfd.readouterr().err


def test_merging_says_how_far_it_is(world, shards, capfd) -> None:
    merge_trees(shards, world.folder / "merged")
    said = capfd.readouterr().err
    counts = [int(count) for count in re.findall(r"merging: (\d+) nodes in", said)]
    assert len(counts) == len(shards)
    assert sum(counts) == 120


def test_a_merged_tree_goes_on_being_recorded(world, queries, shards) -> None:
    merged = merge_trees(shards[1:], world.folder / "merged")
    had = len(RouteTree(merged).nodes)
    collect_routes(world.pool(), queries, merged)
    assert had < len(RouteTree(merged).nodes) == 120
    assert verify_tree(merged) == []


def test_only_nodes_that_are_missing_are_taken_from_a_file(world, queries, tree) -> None:
    part = collect_routes(world.pool(), queries, world.folder / "part", Part(per_task=2))
    replies = {place: node.reply for place, node in RouteTree(tree).nodes.items()}
    merge_trees([tree], part)
    assert {place: node.reply for place, node in RouteTree(part).nodes.items()} == replies
    assert sum(len(read_nodes(path)) for path in (part / "nodes").iterdir()) == 120


def test_earlier_queries_of_all_trees_are_kept(world, queries) -> None:
    trees = []
    for count in (5, 6):
        tree = world.folder / f"had{count}"
        collect_routes(world.pool(), world.sample(count, name=f"sample{count}"), tree)
        trees.append(collect_routes(world.pool(), queries, tree))
    known = [{query.query_id for query in read_retired(tree)} for tree in trees]
    assert known[0] < known[1]
    merged = merge_trees(trees, world.folder / "merged")
    ids = [query.query_id for query in read_retired(merged)]
    assert len(ids) == len(set(ids))
    assert set(ids) == known[1]
    assert verify_tree(merged, keys=True) == []
    before = contents(merged, RETIRED), (merged / RETIRED).stat().st_mtime_ns
    merge_trees(trees, merged)
    assert (contents(merged, RETIRED), (merged / RETIRED).stat().st_mtime_ns) == before


def test_trees_that_do_not_belong_together_are_refused(world, queries, tree) -> None:
    prompts = Prompts(solve="Answer.")
    other = collect_routes(world.pool(prompts=prompts), queries, world.folder / "other")
    elsewhere = collect_routes(
        world.pool(), world.sample(5, name="more"), world.folder / "elsewhere"
    )
    for wrong, said in (
        (other, r"other pool\.prompts"),
        (elsewhere, "elsewhere holds other queries"),
    ):
        with pytest.raises(ConfigError, match=said):
            merge_trees([tree, wrong], world.folder / "merged")
    assert not (world.folder / "merged" / "nodes").exists()


def test_what_was_built_on_another_reply_is_left_out_and_made_anew(
    world, queries, tree, capfd
) -> None:
    """Two machines may reply differently to one prompt; an answer belongs to its analysis."""
    first = collect_routes(world.pool(), queries, world.folder / "first")
    for path in (first / "nodes").glob("*hop1*"):
        path.unlink()
    altered = next(p for p in RouteTree(first).nodes if p.role == "analyze")
    rewrite(first, altered, reply="Plan: another one.")
    merge_trees([tree], first)
    assert "3 nodes left out, as they were built on another reply" in capfd.readouterr().err
    nodes = RouteTree(first).nodes
    assert nodes[altered].reply == "Plan: another one."
    assert not [p for p in nodes if p[0] == altered[0] and p.models[:-1] == altered.models]
    collect_routes(world.pool(), queries, first)
    assert verify_tree(first, keys=True) == []


# Compacting.


def test_compacting_changes_files_and_nothing_else(world, tree) -> None:
    opened = RouteTree(tree)
    digest, scores = opened.digest(), read_scores(tree)[1]
    vectors = load_outcomes(tree, "accuracy").embeddings.tolist()
    assert len(opened.nodes.files()) > 1
    compact_tree(tree)
    assert len(RouteTree(tree).nodes.files()) == 1
    assert len(list((tree / "embeddings").glob("*/*.parquet"))) == 1
    assert RouteTree(tree).digest() == digest
    assert read_scores(tree)[1] == scores
    assert load_outcomes(tree, "accuracy").embeddings.tolist() == vectors
    assert verify_tree(tree, keys=True) == []


def test_an_interrupted_compacting_leaves_a_node_twice_at_most(world, queries, tree) -> None:
    before = {path.name: path.read_bytes() for path in (tree / "nodes").iterdir()}
    compact_tree(tree)
    for name, content in before.items():  # as if it had ended before it removed them
        (tree / "nodes" / name).write_bytes(content)
    assert len(RouteTree(tree).nodes) == 120
    assert verify_tree(tree) == [
        "120 nodes stand in two files; the first counts, `hierrouter tree compact` leaves one"
    ]
    compact_tree(tree)
    assert verify_tree(tree) == []
    assert sum(len(read_nodes(path)) for path in (tree / "nodes").iterdir()) == 120


def test_a_damaged_file_of_embeddings_is_named_and_nothing_is_joined(world, queries, tree) -> None:
    collect_routes(world.pool(), world.sample(6, name="bigger"), tree)
    parts = sorted((tree / "embeddings").glob("*/*.parquet"))
    assert len(parts) == 2
    parts[1].write_bytes(parts[1].read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match="cannot be read back"):
        compact_tree(tree)
    assert sorted((tree / "embeddings").glob("*/*.parquet")) == parts


# Verifying.


def rewrite(tree: Path, place: NodeKey, **fields: object) -> None:
    """Replaces a node in its file."""
    for path in (tree / "nodes").glob("*.parquet"):
        nodes = read_nodes(path)
        if any(node.place == place for node in nodes):
            write_nodes(path, [replace(n, **fields) if n.place == place else n for n in nodes])


def test_a_whole_tree_has_no_fault(tree) -> None:
    assert verify_tree(tree, keys=True) == []


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"query_id": "x/none"}, "1 node(s) of a query that the tree does not have: x/none A sol"),
        ({"models": ("Z",)}, "1 node(s) of a model that the tree does not have (Z): "),
        ({"models": ("Z", "A")}, "1 node(s) without the analysis it was built on: "),
        ({"tokens_out": 10_000}, "1 node(s) longer than its limit: "),
        ({"reply": "never said"}, "are of other nodes than are there now; run `hierrouter tree"),
        ({"key": "0" * 64}, "1 node(s) not made from the prompt that stands there now: "),
    ],
)
def test_a_fault_is_named(tree: Path, fields: dict[str, object], fault: str) -> None:
    place = next(p for p in RouteTree(tree).nodes if p.models == ("A",) and p.role == "solve")
    rewrite(tree, place, **fields)
    assert any(fault in line for line in verify_tree(tree, keys=True))


def test_two_replies_of_one_generation_are_a_fault(tree: Path) -> None:
    places = [p for p in RouteTree(tree).nodes if p.models == ("A",) and p.role == "solve"]
    rewrite(tree, places[0], key="k")
    rewrite(tree, places[1], key="k", reply="something else")
    assert any(
        "1 node(s) another reply than another node of the same generation" in line
        for line in verify_tree(tree)
    )


def test_a_lost_analysis_and_damaged_files_are_faults(world, tree: Path) -> None:
    for path in (tree / "nodes").glob("*hop0*"):
        write_nodes(path, [node for node in read_nodes(path) if node.role != "analyze"])
    assert "72 node(s) without the analysis it was built on" in verify_tree(tree)[0]
    vectors = next((tree / "embeddings").glob("*/*.parquet"))
    vectors.write_bytes(vectors.read_bytes()[:-9])
    assert any(f"{vectors} cannot be read back" in line for line in verify_tree(tree))
    nodes = next((tree / "nodes").glob("*.parquet"))
    nodes.write_bytes(nodes.read_bytes()[:-9])
    (fault,) = verify_tree(tree)
    assert f"{nodes} cannot be read back" in fault


def test_merge_keeps_models_that_only_one_tree_has(world, queries) -> None:
    first, second = world.pool(world.model("A")), world.pool(world.model("A"), world.model("B"))
    one = collect_routes(first, queries, world.folder / "one")
    two = collect_routes(second, queries, world.folder / "two")
    merged = merge_trees([two, one], world.folder / "merged")
    made = json.loads((merged / "tree.json").read_text())["made"]
    assert set(made["models"]) == {"A", "B"}
    assert verify_tree(merged) == []


def test_merge_keeps_members_and_references_of_every_tree(world, queries) -> None:
    first = world.pool(world.model("A"))
    second = world.pool(world.model("A"), world.model("B"), references=[world.model("R", 1.0)])
    one = collect_routes(first, queries, world.folder / "one")
    two = collect_routes(second, queries, world.folder / "two")
    whole, merged = RouteTree(two), RouteTree(merge_trees([one, two], world.folder / "merged"))
    for part in ("models", "references"):
        assert merged.info["pool"][part] == whole.info["pool"][part]
    assert merged.info["provenance"].keys() == {"A", "B", "R"}
    assert read_scores(merged.folder)[1] == read_scores(two)[1]
    assert load_outcomes(merged.folder, "accuracy").references == ("R",)

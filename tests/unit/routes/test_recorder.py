"""Shards, parts, budgets, and what is kept when a call fails."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hierrouter.config import Prompts, TokenLimits
from hierrouter.data.queries import read_queries
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import write_json
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.routes import journal
from hierrouter.routes.asking import Generation, Lane, side_by_side
from hierrouter.routes.calls import Part, Shard, in_parts, planned_calls, unit_numbers
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.journal import Recording, read_journal
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import merge_trees

if TYPE_CHECKING:
    from hierrouter.pool.backend import Completion


def replies(tree: Path) -> dict[Any, str]:
    return {place: node.reply for place, node in RouteTree(tree).nodes.items()}


# Shards.


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_share_out_every_call_once_and_whole_queries(world, queries, count) -> None:
    sampled, pool = read_queries(queries), world.pool()
    shares = [
        [call.place for call in planned_calls(sampled, pool, Part(shard=Shard(i, count)))]
        for i in range(count)
    ]
    whole = [call.place for call in planned_calls(sampled, pool)]
    assert Counter(place for share in shares for place in share) == Counter(whole)
    owners = [{place.query_id for place in share} for share in shares]
    assert sum(len(owner) for owner in owners) == len(sampled)


def test_shards_recorded_apart_have_the_files_of_the_whole(world, queries, tree) -> None:
    """Batches are planned before sharding, so each is made of the same calls."""
    whole = {path.name: path.read_bytes() for path in (tree / "nodes").iterdir()}
    parts: dict[str, bytes] = {}
    for index in range(2):
        folder = world.folder / f"shard{index}"
        collect_routes(world.pool(), queries, folder, Part(shard=Shard(index, 2)))
        mine = {path.name: path.read_bytes() for path in (folder / "nodes").iterdir()}
        assert mine
        assert not mine.keys() & parts.keys()
        parts |= mine
    assert parts == whole


@pytest.mark.parametrize("text", ["2/2", "a/b", "1", "-1/2", "0/0", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text) -> None:
    with pytest.raises(ConfigError, match="give I/N with I from 0 to N - 1"):
        Shard.parse(text)


def test_a_shard_is_read() -> None:
    assert Shard.parse("3/8") == Shard(3, 8)


# Parts.


def test_parts_finish_direct_answers_of_all_before_other_nodes(world, queries) -> None:
    sampled = read_queries(queries)
    parts = list(in_parts(sampled, Part(), 3))
    assert [(part.per_task, part.direct) for part in parts] == [
        (3, True),
        (4, True),
        (3, False),
        (4, False),
    ]
    assert [part.per_task for part in in_parts(sampled, Part(per_task=2, direct=True), 1)] == [1, 2]
    assert {c.place for c in planned_calls(sampled, world.pool(), parts[-1])} == {
        c.place for c in planned_calls(sampled, world.pool())
    }


def test_recorded_in_parts_or_at_once_the_tree_is_the_same(world, queries, tree) -> None:
    other = world.folder / "parts"
    collect_routes(world.pool(), queries, other, part_size=1)
    assert replies(other) == replies(tree)
    assert read_scores(other)[1] == read_scores(tree)[1]


def test_a_unit_takes_the_first_queries_of_every_task_first(world, queries) -> None:
    sampled = read_queries(queries)
    numbers = unit_numbers(sampled, 4)
    rank: Counter[str] = Counter()
    for query in sampled:
        assert numbers[query.query_id] == rank[query.task] // 2
        rank[query.task] += 1


# What is paid for is kept.


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The prompts that models answered, with a failure after the eleventh."""
    answered: list[str] = []
    complete = ScriptedBackend._complete

    def counted(self, prompt, limit):
        if len(answered) == 11:
            answered.append("")
            raise HierRouterError("the line went dead")
        answered.append(prompt)
        return complete(self, prompt, limit)

    def one_by_one(self, prompts, limits, on_reply=None):
        made = []
        for position, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            made.append(self._complete(prompt, limit))
            if on_reply is not None:
                on_reply(position, made[-1])
        return made

    monkeypatch.setattr(ScriptedBackend, "_complete", counted)
    monkeypatch.setattr(ScriptedBackend, "generate", one_by_one)
    return answered


def test_replies_before_a_failure_are_kept_and_never_asked_again(world, queries, calls) -> None:
    with pytest.raises(HierRouterError, match="went dead"):
        world.record(world.pool(), queries)
    kept = replies(world.tree)
    assert len({node.key for node in RouteTree(world.tree).nodes.values()}) == 11
    world.record(world.pool(), queries)
    assert len(RouteTree(world.tree).nodes) == 120
    assert replies(world.tree).items() >= kept.items()
    # 120 nodes of 72 generations, each asked for once, and the mark of the one that failed.
    assert len(calls) == 73


def test_a_lane_that_cannot_be_closed_keeps_no_other_from_closing(world) -> None:
    closed: list[str] = []

    def told(position: int, completion: Completion) -> None:
        raise KeyboardInterrupt  # the second of them drops calls under way

    def lane(name: str) -> Lane:
        try:
            yield Generation(ScriptedBackend(world.model(name), Prompts()), ["hi"], [5], told)
        finally:
            closed.append(name)
            raise HierRouterError(f"{name} cannot be closed")

    lanes = [lane(name) for name in "ABC"]
    with pytest.raises(HierRouterError, match="cannot be closed"):
        side_by_side(lanes)
    assert sorted(closed) == ["A", "B", "C"]


# Budgets.


def spent(tree: Path) -> float:
    """What was paid: nodes that share a generation were paid for once."""
    scores = read_scores(tree)[1]
    return sum({node.key: scores[at].cost for at, node in RouteTree(tree).nodes.items()}.values())


def test_a_budget_is_never_exceeded_and_hardly_left(world, queries) -> None:
    limits = TokenLimits(solve=12, analyze=12)
    pool = world.pool(*(world.model(name, 0.5, limits=limits) for name in "ABC"))
    whole = world.record(pool, queries)
    budget = spent(whole) / 4
    folder, nodes, paid = world.folder / "budget", 0, 0.0
    for _ in range(5):
        collect_routes(pool, queries, folder, max_dollars=budget)
        before, nodes, paid = paid, len(RouteTree(folder).nodes), spent(folder)
        assert paid - before <= budget + 1e-12
        if nodes == 120:
            break
        # What is left could not have paid for the longest call.
        assert paid - before > budget - 0.001 * 70 / 1000
    assert nodes == 120
    assert replies(folder) == replies(whole)


def test_no_money_is_no_call_and_that_is_said(world, queries, capfd) -> None:
    collect_routes(world.pool(), queries, world.tree, max_dollars=0)
    assert replies(world.tree) == {}
    said = capfd.readouterr().err
    assert "--max-dollars; 120 nodes are left" in said
    assert "these calls cost $0.0000 of $0" in said


def test_free_models_need_no_budget(world, queries) -> None:
    free = world.pool(world.model("A", 0.9, 0.0), world.model("B", 0.5, 0.0))
    collect_routes(free, queries, world.tree, max_dollars=0)
    assert len(RouteTree(world.tree).nodes) == 8 * 8


# The journal.


def test_each_recording_notes_what_made_it(world, queries, calls) -> None:
    with pytest.raises(HierRouterError, match="went dead"):
        world.record(world.pool(), queries)
    world.record(world.pool(), queries)
    world.record(world.pool(), queries)
    entries = read_journal(world.tree)
    assert len(entries) == 2
    assert sum(entry["nodes"] for entry in entries) == 120
    assert all(entry["seconds"] >= 0 and "cores" in entry["machine"] for entry in entries)
    assert all(entry["versions"]["hierrouter"] for entry in entries)
    (world.tree / "recordings.json").write_text("[")
    assert read_journal(world.tree) == []


def test_a_journal_that_cannot_be_read_now_is_not_written_anew(world, queries, monkeypatch) -> None:
    tree = world.record(world.pool(), queries)
    before = (tree / "recordings.json").read_bytes()
    read = Path.read_text

    def stale(self, *args, **options):
        if self.name == "recordings.json":
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", stale)
    run = Recording(tree)
    run.add(1)
    with pytest.raises(HierRouterError, match=r"recordings.json cannot be read now \(Stale"):
        run.write()
    assert (tree / "recordings.json").read_bytes() == before


def test_a_run_has_one_entry_however_many_parts_it_records(world, queries) -> None:
    collect_routes(world.pool(), queries, world.tree, part_size=1)
    (entry,) = read_journal(world.tree)
    assert entry["nodes"] == 120


def test_a_kill_leaves_an_entry_of_what_was_committed_before(world, queries, monkeypatch) -> None:
    monkeypatch.setattr(journal, "NOTE_EVERY", 0.0)
    told: list[tuple[int, int]] = []
    commit = RouteTree.commit

    def looking(self, name, nodes):
        # What lies there before a commit is what a kill now would leave.
        told.append((len(self.nodes), sum(each["nodes"] for each in read_journal(self.folder))))
        commit(self, name, nodes)

    monkeypatch.setattr(RouteTree, "commit", looking)
    world.record(world.pool(), queries)
    assert len(told) > 10
    assert all(nodes == noted for nodes, noted in told)
    assert [entry["nodes"] for entry in read_journal(world.tree)] == [120]


def test_merged_again_a_run_that_went_on_counts_once(world, queries) -> None:
    tree, merged = world.record(world.pool(), queries), world.folder / "merged"
    (whole,) = read_journal(tree)
    for nodes in (50, 120, 50):
        write_json(tree / "recordings.json", [{**whole, "nodes": nodes}])
        merge_trees([tree], merged)
    assert read_journal(merged) == [whole]


def test_merged_trees_keep_each_entry_once(world, queries) -> None:
    shards = [
        collect_routes(
            world.pool(), queries, world.folder / f"s{index}", Part(shard=Shard(index, 2))
        )
        for index in range(2)
    ]
    for _ in range(2):
        merged = merge_trees(shards, world.folder / "merged")
        assert sum(entry["nodes"] for entry in read_journal(merged)) == 120
        assert len(read_journal(merged)) == 2

"""Recording: what is generated, once, and what a tree takes and refuses."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hierrouter.config import DataConfig, EncoderConfig, Prompts, ScriptedSkills, TokenLimits
from hierrouter.data.queries import read_queries, write_queries
from hierrouter.data.sample import sample_queries
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.nodes import read_nodes
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import merge_trees
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from pathlib import Path


def places(tree: Path) -> list[tuple]:
    """Every recorded place, as often as it is recorded."""
    return [node.place for path in (tree / "nodes").glob("*.parquet") for node in read_nodes(path)]


def test_the_full_tree_of_every_query_is_recorded_once(tree: Path) -> None:
    recorded = places(tree)
    assert len(recorded) == len(set(recorded)) == 8 * 15
    assert set(Counter(place.query_id for place in recorded).values()) == {15}


def test_three_hops_and_a_reference(world, queries) -> None:
    pool = world.pool(world.model("A"), world.model("B"), hops=3, references=[world.model("R")])
    recorded = Counter(place.query_id for place in places(world.record(pool, queries)))
    # 2 + 4 analyses, 2 + 4 + 8 answers, one answer of the reference.
    assert set(recorded.values()) == {6 + 14 + 1}
    answers = [node for node in RouteTree(world.tree).nodes.values() if "R" in node.models]
    assert {(node.models, node.role) for node in answers} == {(("R",), "solve")}


def test_one_hop_has_only_direct_answers(world, queries) -> None:
    recorded = places(world.record(world.pool(hops=1), queries))
    assert {place.role for place in recorded} == {"solve"}
    assert len(recorded) == 8 * 3


def test_a_second_call_generates_and_writes_no_node(world, queries, tree, capfd) -> None:
    before = world.states()
    capfd.readouterr()
    world.record(world.pool(), queries)
    assert world.states() == before
    assert "all 120 nodes of 8 queries are there" in capfd.readouterr().err


def test_equal_prompts_to_one_model_are_generated_once(tree: Path) -> None:
    nodes = RouteTree(tree).nodes.values()
    # No scripted model here reads a marker, so all analyses of a query read alike, and a model
    # that answers after any of them is asked the same: 3 + 3 + 3 generations instead of 15.
    assert len({node.reply for node in nodes if node.role == "analyze"}) == 1
    assert len({node.key for node in nodes}) == 8 * 9
    called = {node.key: (node.query_id, node.models[-1], node.role) for node in nodes}
    assert all(called[node.key] == (node.query_id, node.models[-1], node.role) for node in nodes)


def test_a_unit_is_of_whole_queries_and_one_model(world, tree) -> None:
    files = [read_nodes(path) for path in (tree / "nodes").glob("*.parquet")]
    # Three units, three models, at each of two depths.
    assert len(files) == 3 * 3 * 2
    for nodes in files:
        assert len({node.models[-1] for node in nodes}) == 1
        assert len({node.query_id for node in nodes}) <= 3
        per_query = Counter(node.query_id for node in nodes)
        assert set(per_query.values()) == {2 if len(nodes[0].models) == 1 else 3}


def test_units_are_the_same_after_an_interruption(world, queries, tree) -> None:
    before = {path.name: read_nodes(path) for path in (tree / "nodes").glob("*.parquet")}
    for path in sorted((tree / "nodes").glob("*.parquet"))[::2]:
        path.unlink()
    world.record(world.pool(), queries)
    assert {path.name: read_nodes(path) for path in (tree / "nodes").glob("*.parquet")} == before


def test_what_a_kill_left_half_written_is_neither_read_nor_kept(world, queries, tree) -> None:
    before = world.states()
    leftovers = [tree / "nodes" / ".tmp-abc.parquet", tree / ".tmp-xyz.json"]
    leftovers += [next((tree / "embeddings").iterdir()) / ".tmp-e.parquet"]
    for leftover in leftovers:
        leftover.write_bytes(b"PAR1 half")
    assert len(RouteTree(tree).nodes) == 120
    world.record(world.pool(), queries)
    assert not [leftover for leftover in leftovers if leftover.exists()]
    assert world.states() == before


@pytest.mark.parametrize("damage", [None, b"PAR1 half"])
def test_a_tree_without_its_questions_takes_them_from_their_source(tree, damage) -> None:
    whole = (tree / "queries.parquet").read_bytes()
    (tree / "queries.parquet").unlink()
    if damage is not None:
        (tree / "queries.parquet").write_bytes(damage)
    assert len(RouteTree(tree).queries) == 8
    assert (tree / "queries.parquet").read_bytes() == whole


def test_questions_that_cannot_be_had_again_are_asked_for(world, queries, tree) -> None:
    (tree / "queries.parquet").unlink()
    info = json.loads((tree / "tree.json").read_text())
    for change, reason in (
        ({"data": {}}, "does not say how its queries were sampled"),
        ({"query_digest": "0" * 64}, "its source gives other questions now"),
    ):
        (tree / "tree.json").write_text(json.dumps(info | change))
        with pytest.raises(DamagedFileError, match=f"{reason}; collect again with the queries"):
            RouteTree(tree)
    (tree / "tree.json").write_text(json.dumps(info))
    nodes = world.states()
    world.record(world.pool(), queries)
    assert len(RouteTree(tree).queries) == 8
    assert world.states() == nodes


# What a tree takes.


def other_rates(world):
    return world.pool(world.model("A", 0.9, 7.0), world.model("B"), world.model("C", 0.1))


def other_batches(world):
    return world.pool(batch_tokens=99, queries_per_unit=5)


def other_encoder(world):
    return world.pool(encoder=EncoderConfig(model="hashing", dimensions=8))


@pytest.mark.parametrize("change", [other_rates, other_batches, other_encoder])
def test_a_tree_takes_other_rates_batches_and_encoders(world, queries, tree, change) -> None:
    before = world.states()
    world.record(change(world), queries)
    assert world.states() == before


def test_a_further_model_adds_its_nodes_only(world, queries, tree) -> None:
    before = world.states()
    pool = world.pool()
    bigger = world.pool(*pool.models, world.model("D", 0.7))
    world.record(bigger, queries)
    after = world.states()
    assert after.items() >= before.items()
    recorded = places(tree)
    # Four models: 4 analyses and 4 + 16 answers.
    assert len(recorded) == len(set(recorded)) == 8 * 24
    new = [node for name in after.keys() - before.keys() for node in read_nodes(_at(tree, name))]
    assert len(new) == 8 * 9
    assert all("D" in node.models for node in new)


def test_a_pool_may_shrink_and_grow_again_without_generating(world, queries, tree) -> None:
    before = world.states()
    world.record(world.pool(world.model("A", 0.9), world.model("B", 0.5)), queries)
    world.record(world.pool(), queries)
    assert world.states() == before


def test_further_queries_add_their_nodes_only(world, queries, tree) -> None:
    before = world.states()
    world.record(world.pool(), world.sample(6, name="more"))
    recorded = places(tree)
    assert world.states().items() >= before.items()
    assert len(recorded) == len(set(recorded)) == 12 * 15


def _at(tree: Path, name: str) -> Path:
    return tree / "nodes" / name


# What a tree refuses, and that it is left as it was.


def other_prompts(world):
    return world.pool(prompts=Prompts(solve="Solve it.")), "other pool.prompts"


def other_instruction(world):
    return world.pool(world.model("A", 0.9, instruction="Be brief.")), "other instruction of model"


def other_limits(world):
    return world.pool(world.model("A", 0.9, limits=TokenLimits(solve=9))), "other limits of model A"


def other_weights(world):
    skills = ScriptedSkills(solve_otherwise=0.2)
    return world.pool(world.model("A", scripted=skills)), "other weights of model A"


@pytest.mark.parametrize("change", [other_prompts, other_instruction, other_limits, other_weights])
def test_a_tree_refuses_another_pool_and_names_what_differs(world, queries, tree, change) -> None:
    pool, said = change(world)
    before, described = world.states("**/*.parquet"), (tree / "tree.json").read_text()
    with pytest.raises(ConfigError, match=said) as refusal:
        world.record(pool, queries)
    assert str(tree) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert world.states("**/*.parquet") == before
    assert (tree / "tree.json").read_text() == described


@pytest.mark.parametrize(
    "fields",
    [{"prompt": "Topic: x. Marker: jade. What is 1 plus 1?"}, {"metadata": {"kind": "text"}}],
)
def test_another_text_of_a_known_query_is_refused(world, queries, tree, fields) -> None:
    name = read_queries(queries)[0].query_id
    with pytest.raises(ConfigError, match=rf"another text for query {name}"):
        world.record(world.pool(), world.altered(queries, **fields))
    assert len(RouteTree(tree).nodes) == 120


def test_another_text_is_refused_though_the_query_had_left_the_sample(world, queries, tree) -> None:
    first, *others = read_queries(queries)
    fewer = world.folder / "fewer" / "queries.parquet"
    write_queries(fewer, others)
    world.record(world.pool(), fewer)
    assert len(RouteTree(tree).queries) == 7
    with pytest.raises(ConfigError, match=rf"another text for query {first.query_id}"):
        world.record(world.pool(), world.altered(queries, prompt="What is 1 plus 1?"))
    before = world.states()
    world.record(world.pool(), queries)
    assert world.states() == before
    assert len(RouteTree(tree).queries) == 8


def test_another_split_or_reference_of_a_known_query_is_no_other_text(world, queries, tree) -> None:
    before = world.states()
    world.record(world.pool(), world.altered(queries, reference=("0",), fold=1))
    assert world.states() == before
    assert RouteTree(tree).queries[0].reference == ("0",)


def test_a_foreign_folder_is_refused_and_left_alone(world, queries) -> None:
    world.tree.mkdir()
    (world.tree / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds no tree\.json of ours"):
        world.record(world.pool(), queries)
    assert [path.name for path in world.tree.iterdir()] == ["thesis.tex"]


def test_a_pool_without_a_model_of_the_tree_is_refused(world, queries, tree) -> None:
    other = world.pool(world.model("D"), world.model("E"))
    with pytest.raises(ConfigError, match=r"recorded with other models \(A, B, C\)"):
        world.record(other, queries)
    apart = collect_routes(other, queries, world.folder / "apart")
    with pytest.raises(ConfigError, match=r"recorded with other models \(A, B, C\)"):
        merge_trees([tree, apart], world.folder / "merged")


@pytest.mark.parametrize("with_queries", [True, False])
def test_a_newer_format_is_refused(world, queries, tree, with_queries: bool) -> None:
    info = json.loads((tree / "tree.json").read_text())
    (tree / "tree.json").write_text(json.dumps({**info, "format_version": 2}))
    if not with_queries:
        (tree / "queries.parquet").unlink()
    for use in (lambda: world.record(world.pool(), queries), lambda: RouteTree(tree)):
        with pytest.raises(HierRouterError, match="tree format 2, this version reads 1"):
            use()


# Damage.


def test_a_truncated_file_of_nodes_is_made_anew_and_no_other(world, queries, tree) -> None:
    before = {path: path.read_bytes() for path in sorted((tree / "nodes").glob("*.parquet"))}
    held = {path: read_nodes(path) for path in before}
    broken, other = sorted(before)[0], sorted(before)[-1]
    for path in (broken, other):
        path.write_bytes(before[path][:-30])
    # What stands on the lost analyses is written anew, too, with what it held: test below.
    lost = {node.query_id for node in held[broken]}
    whole = {
        name: state
        for name, state in world.states().items()
        if name not in (broken.name, other.name)
        and not ("hop1" in name and lost & {node.query_id for node in held[tree / "nodes" / name]})
    }
    assert 0 < len(whole) < len(before) - 2
    # Reading sets nothing aside: read again, a lost part must not pass for one that never was.
    for _ in range(2):
        with pytest.raises(DamagedFileError, match=rf"{broken.name}.*1 more"):
            RouteTree(tree)
    with pytest.raises(DamagedFileError, match=rf"{broken.name}.*1 more") as failure:
        world.record(world.pool(), queries)
    assert "\n" not in str(failure.value)
    assert broken.with_suffix(".damaged").exists()
    world.record(world.pool(), queries)
    assert world.states().items() >= whole.items()
    present = [node for path in (tree / "nodes").glob("*.parquet") for node in read_nodes(path)]
    assert {node.place: node for node in present} == {
        node.place: node for nodes in held.values() for node in nodes
    }
    assert len(present) == sum(map(len, held.values()))


@pytest.mark.parametrize("same", [True, False])
def test_what_stands_on_a_lost_analysis_is_made_anew_where_that_says_otherwise(
    world, queries, tree, monkeypatch, same
) -> None:
    before = {place: node.reply for place, node in RouteTree(tree).nodes.items()}
    lost = next(
        path
        for path in sorted((tree / "nodes").iterdir())
        if any(node.role == "analyze" for node in read_nodes(path))
    )
    in_it = read_nodes(lost)
    analyses = {node.place for node in in_it if node.role == "analyze"}
    standing = {
        place
        for place in before
        if place._replace(models=place.models[:1], role="analyze") in analyses and place.models[1:]
    }
    assert len(analyses) * 3 == len(standing)
    os.truncate(lost, 100)
    with pytest.raises(DamagedFileError):
        world.record(world.pool(), queries)
    complete, asked = ScriptedBackend._complete, []

    def otherwise(self, prompt, limit):
        asked.append(prompt)
        made = complete(self, prompt, limit)
        return made if same else replace(made, reply=f"{made.reply} indeed")

    monkeypatch.setattr(ScriptedBackend, "_complete", otherwise)
    world.record(world.pool(), queries)
    after = {place: node.reply for place, node in RouteTree(tree).nodes.items()}
    assert after.keys() == before.keys()
    changed = {place for place in before if before[place] != after[place]}
    assert verify_tree(tree, keys=True) == []
    if same:
        assert not changed
        assert len(asked) == len(in_it)
    else:
        assert standing <= changed


def test_what_stood_on_a_lost_analysis_outlives_a_second_interruption(
    world, queries, monkeypatch
) -> None:
    # Of one model alone: others with the same skills would share its generations.
    pool = world.pool(world.model("A"))
    tree = world.record(pool, queries)
    before = {place: node.reply for place, node in RouteTree(tree).nodes.items()}
    lost = next(
        path
        for path in sorted((tree / "nodes").iterdir())
        if any(node.role == "analyze" for node in read_nodes(path))
    )
    count = len(read_nodes(lost))
    os.truncate(lost, 100)
    with pytest.raises(DamagedFileError):
        world.record(pool, queries)
    complete, asked = ScriptedBackend._complete, []

    def failing(self, prompt, limit):
        asked.append(prompt)
        if len(asked) == 1:
            raise HierRouterError("the line went dead")
        return complete(self, prompt, limit)

    monkeypatch.setattr(ScriptedBackend, "_complete", failing)
    with pytest.raises(HierRouterError, match="went dead"):
        world.record(pool, queries)
    assert len(RouteTree(tree).nodes) < len(before) - count
    world.record(pool, queries)
    assert {place: node.reply for place, node in RouteTree(tree).nodes.items()} == before
    assert len(asked) == count + 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_while_a_unit_is_written_waits_for_it(world, queries, monkeypatch, ending) -> None:
    commit = RouteTree.commit

    def interrupted(self, name, nodes):
        signal.raise_signal(ending)
        commit(self, name, nodes)

    def ended(number, frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(RouteTree, "commit", interrupted)
    before = signal.signal(ending, ended)
    try:
        with pytest.raises(KeyboardInterrupt):
            world.record(world.pool(), queries)
        assert signal.getsignal(ending) is ended
    finally:
        signal.signal(ending, before)
    assert len(RouteTree(world.tree).nodes) == 6  # three queries, an analysis and an answer


def test_a_truncated_tree_json_is_named_and_nothing_is_touched(world, queries, tree) -> None:
    path = tree / "tree.json"
    text = path.read_text()
    before = world.states()
    for broken in (text[:100], "", "[]", "{}", '"tree"'):
        path.write_text(broken)
        with pytest.raises(DamagedFileError, match=r"tree\.json cannot be read back.*restore it"):
            world.record(world.pool(), queries)
    assert world.states() == before
    path.write_text(text)
    world.record(world.pool(), queries)
    assert world.states() == before


def test_truncated_queries_are_restored_from_the_same_queries_only(world, queries, tree) -> None:
    path = tree / "queries.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    described = json.loads((tree / "tree.json").read_text())
    (tree / "tree.json").write_text(json.dumps({**described, "data": {}}))
    with pytest.raises(DamagedFileError, match="these are other queries"):
        world.record(world.pool(), world.sample(5, name="more"))
    before = world.states()
    world.record(world.pool(), queries)
    assert path.read_bytes() == whole
    assert world.states() == before


# One writer.


def test_a_second_writer_is_refused(world, queries, tree) -> None:
    from hierrouter.cli.trees import rescore
    from hierrouter.routes.lock import sole_writer

    with sole_writer(tree):
        for use in (lambda: world.record(world.pool(), queries), lambda: rescore(tree, None)):
            with pytest.raises(HierRouterError, match="another process is recording into"):
                use()
    world.record(world.pool(), queries)


# Members with the same weights.


def test_members_with_the_same_weights_share_generations(world, tiny_model: Path) -> None:
    """Two members of one model, asked tersely and at length, and a copy of the terse one."""
    config = DataConfig(source="scripted", tasks=["x"], queries_per_task=3, train_share=0.5)
    queries = sample_queries(config, world.folder / "queries")

    def member(name: str, instruction: str):
        limits = TokenLimits(solve=3, analyze=2)
        fields = {"model": str(tiny_model), "backend": "auto", "scripted": None}
        return world.model(name, limits=limits, instruction=instruction, **fields)

    first, second = member("terse", ""), member("long", "Think.")
    short = Prompts(max_context_tokens=1500)  # the tiny model has a token a letter
    world.record(world.pool(first, second, prompts=short), queries)
    # The copy comes later: what it would say is there already.
    pool = world.pool(first, second, member("copy", ""), prompts=short)
    tree = RouteTree(world.record(pool, queries))
    for query in tree.queries:
        nodes = {
            place[1:]: node for place, node in tree.nodes.items() if place[0] == query.query_id
        }
        assert len(nodes) == 15
        # One analysis; two answers to the query; two to the query and the analysis.
        assert len({node.key for node in nodes.values()}) == 5
        assert {nodes[(name,), "analyze"].reply for name in ("terse", "long", "copy")} == {
            nodes[("terse",), "analyze"].reply
        }
        assert nodes[("terse",), "solve"].key == nodes[("copy",), "solve"].key
        assert nodes[("terse",), "solve"].key != nodes[("long",), "solve"].key
        assert nodes[("long", "copy"), "solve"].key == nodes[("terse", "terse"), "solve"].key
    per_key = {}
    for node in tree.nodes.values():
        taken = (node.reply, node.latency_s, node.logprob_mean, node.tokens_out)
        assert per_key.setdefault(node.key, taken) == taken


def test_collect_says_where_the_queries_should_come_from(world) -> None:
    with pytest.raises(HierRouterError, match="make it with `hierrouter sample`"):
        collect_routes(world.pool(), world.folder / "nowhere.parquet", world.tree)


def test_going_on_with_a_trees_own_queries_keeps_where_they_came_from(world, queries, tree) -> None:
    described = (tree / "tree.json").read_text()
    world.record(world.pool(), tree)
    assert (tree / "tree.json").read_text() == described


def test_a_tree_without_its_questions_takes_more_of_them(world, queries, tree) -> None:
    before = world.states()
    (tree / "queries.parquet").unlink()
    world.record(world.pool(), world.sample(5, name="more"))
    assert world.states().items() >= before.items()
    assert len(RouteTree(tree).queries) == 10


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch) -> None:
    """Some network volumes have none; filelock says so in its own way."""
    from filelock import FileLock

    from hierrouter.routes.lock import sole_writer

    def refuse(self: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with (
        pytest.raises(HierRouterError, match="its file system has no locks"),
        sole_writer(tmp_path),
    ):
        pass

"""What follows from recorded nodes and is rebuilt from them: scores, embeddings, outcomes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from hierrouter.cli.trees import print_info, rescore
from hierrouter.config import EncoderConfig
from hierrouter.data.queries import digest_queries, read_queries, write_queries
from hierrouter.errors import (
    ConfigError,
    DamagedFileError,
    HierRouterError,
    UnreachableError,
)
from hierrouter.files import sha256_text
from hierrouter.pool.prompts import encoder_text
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.routes import embed
from hierrouter.routes import tree as opening
from hierrouter.routes.calls import Part
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.embed import embeddings_folder, read_embeddings, replies_of
from hierrouter.routes.encoder import HashingEncoder, open_encoder
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.nodes import NodeKey, read_nodes, write_nodes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.store import NodeStore
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import View
    from hierrouter.data.queries import Query


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


# When they are made.


@pytest.fixture
def unread(monkeypatch) -> None:
    """From here on no reply may be read."""

    def refuse(self, group):
        raise AssertionError("a reply was read")

    monkeypatch.setattr(NodeStore, "_decode", refuse)


@pytest.mark.parametrize("part_size", [None, 1])
def test_collecting_what_is_there_reads_no_reply_and_writes_nothing(
    world, queries, tree, unread, part_size
) -> None:
    before = world.states("**/*")
    collect_routes(world.pool(), queries, tree, part_size=part_size)
    assert world.states("**/*") == before


def test_going_on_reads_the_queries_of_a_tree_once(world, queries, tree, monkeypatch) -> None:
    read: list[Path] = []
    digested: list[int] = []

    def reading(path: Path) -> list[Query]:
        read.append(path)
        return read_queries(path)

    def digesting(sample: list[Query]) -> str:
        digested.append(len(sample))
        return digest_queries(sample)

    monkeypatch.setattr(opening, "read_queries", reading)
    monkeypatch.setattr(opening, "digest_queries", digesting)
    world.record(world.pool(), queries)
    assert read == [tree / "queries.parquet"]
    assert digested == [8]


def test_vectors_that_were_removed_are_made_again(world, queries, tree) -> None:
    (part,) = parts(tree)
    whole = read_embeddings(part.parent)
    part.unlink()
    world.record(world.pool(), queries)
    assert read_embeddings(part.parent).keys() == whole.keys()


def test_a_further_view_is_encoded_though_no_node_is_new(world, queries) -> None:
    only = EncoderConfig(model="hashing", dimensions=16, views=["paper"])
    world.record(world.pool(encoder=only), queries)
    world.record(world.pool(), queries)
    assert len(load_outcomes(world.tree, "accuracy", "two_part")) == 8


def test_what_a_model_answered_before_it_failed_can_be_trained_on(
    world, queries, monkeypatch
) -> None:
    complete, answered = ScriptedBackend._complete, []

    def failing(self, prompt, limit):
        # 48 calls of the first hop and some of the second.
        if len(answered) == 60:
            raise UnreachableError("the line went dead")
        answered.append(prompt)
        return complete(self, prompt, limit)

    monkeypatch.setattr(ScriptedBackend, "_complete", failing)
    with pytest.raises(UnreachableError, match="went dead"):
        world.record(world.pool(), queries)
    nodes = RouteTree(world.tree).nodes
    assert 48 < len(nodes) < 120
    assert read_scores(world.tree)[1].keys() == nodes.keys()
    assert len(load_outcomes(world.tree, "accuracy", moves="direct")) == 8


def test_without_a_budget_a_tree_that_was_cut_short_is_scored_and_embedded(
    world, queries, monkeypatch
) -> None:
    commit, committed = RouteTree.commit, []

    def mortal(self, name, nodes):
        if len(committed) > 60:
            raise SystemExit  # from here on nothing is written, as after a kill
        committed.extend(nodes)
        commit(self, name, nodes)

    monkeypatch.setattr(RouteTree, "commit", mortal)
    with pytest.raises(SystemExit):
        world.record(world.pool(), queries)
    monkeypatch.undo()
    with pytest.raises(HierRouterError, match="--max-dollars 0"):
        read_scores(world.tree)
    collect_routes(world.pool(), queries, world.tree, max_dollars=0)
    assert len(RouteTree(world.tree).nodes) < 120
    assert len(load_outcomes(world.tree, "accuracy", moves="direct")) == 8


# Scores.


def test_costs_are_rate_times_tokens_and_answers_are_compared(tree: Path) -> None:
    opened = RouteTree(tree)
    rates = {"A": 0.001, "B": 0.002, "C": 0.004}
    queries = {query.query_id: query for query in opened.queries}
    _, scores = read_scores(tree)
    assert scores.keys() == opened.nodes.keys()
    for place, score in scores.items():
        node = opened.nodes[place]
        tokens = node.tokens_in + node.tokens_out
        assert score.cost == pytest.approx(rates[place.models[-1]] * tokens / 1000)
        if place.role == "analyze":
            assert score.answer is None
            assert set(score.metrics.values()) == {None}
        else:
            stated = re.search(r"Answer: (\d+)", node.reply)
            assert stated is not None
            right = stated[1] == queries[place.query_id].reference[0]
            assert score.metrics["accuracy"] == float(right)
            assert score.answer == stated[1]


def test_other_rates_change_costs_by_collecting_and_by_rescoring(world, queries, tree) -> None:
    before, nodes = read_scores(tree)[1], world.states()
    dearer = world.pool(
        world.model("A", 0.9, 0.003), world.model("B", 0.5, 0.002), world.model("C", 0.1, 0)
    )
    factors = {"A": 3, "B": 1, "C": 0}

    def follow(scores) -> None:
        for place, score in scores.items():
            assert score.cost == pytest.approx(before[place].cost * factors[place.models[-1]])
            assert score.metrics == before[place].metrics

    rescore(tree, dearer)
    follow(read_scores(tree)[1])
    rescore(tree, world.pool())
    assert read_scores(tree)[1] == before
    world.record(dearer, queries)
    follow(read_scores(tree)[1])
    assert world.states() == nodes


def test_rescoring_takes_rates_and_nothing_else_of_a_config(world, tree) -> None:
    pool = RouteTree(tree).info["pool"]
    models = [world.model(name, rate=1.0) for name in "ABCD"]
    rescore(tree, world.pool(*models, hops=3, encoder=EncoderConfig(model="hashing")))
    now = RouteTree(tree).info["pool"]
    assert {spec.pop("base_rate") for spec in now["models"]} == {1.0}
    for spec in pool["models"]:
        del spec["base_rate"]
    assert now == pool
    assert len(load_outcomes(tree, "accuracy")) == 8


def test_rescoring_needs_a_rate_for_every_model(world, tree) -> None:
    with pytest.raises(ConfigError, match="no rate for B, C"):
        rescore(tree, world.pool(world.model("A")))


def test_rescoring_without_a_tree_leaves_no_trace(world) -> None:
    world.tree.mkdir()
    with pytest.raises(HierRouterError, match="holds no route tree"):
        rescore(world.tree, None)
    assert list(world.tree.iterdir()) == []


def test_another_reference_answer_is_scored_anew(world, queries, tree) -> None:
    name = read_queries(queries)[0].query_id
    place = NodeKey(name, ("A",), "solve")
    stated = read_scores(tree)[1][place].answer
    for reference, right in ((stated, 1.0), ("-1", 0.0)):
        world.record(world.pool(), world.altered(queries, reference=(reference,)))
        assert read_scores(tree)[1][place].metrics["accuracy"] == right


def test_truncated_scores_are_said_and_collecting_or_rescoring_mends_them(
    world, queries, tree, capfd
) -> None:
    whole, nodes = read_scores(tree), world.states()
    for mend in (lambda: world.record(world.pool(), queries), lambda: rescore(tree, None)):
        truncate(tree / "scores.parquet")
        with pytest.raises(DamagedFileError, match=r"scores\.parquet cannot.*tree rescore") as line:
            load_outcomes(tree, "accuracy")
        assert "\n" not in str(line.value)
        mend()
        assert read_scores(tree) == whole
    assert "could not be read back; every answer is scored anew" in capfd.readouterr().err
    assert world.states() == nodes


def test_a_reply_that_was_lost_and_came_out_otherwise_is_scored_anew(world, queries, tree) -> None:
    path = next(
        path
        for path in sorted((tree / "nodes").glob("*.parquet"))
        if any(node.role == "solve" for node in read_nodes(path))
    )
    before = tree_info(tree)["tree_digest"]
    nodes = read_nodes(path)
    write_nodes(path, [replace(node, reply="Answer: 1") for node in nodes])
    world.record(world.pool(), queries)
    _, scores = read_scores(tree)
    assert {scores[node.place].answer for node in nodes if node.role == "solve"} == {"1"}
    assert tree_info(tree)["tree_digest"] != before


def test_scores_of_another_version_of_the_metrics_are_refused_and_mended(
    world, queries, tree
) -> None:
    path = tree / "scores.parquet"
    table = pq.read_table(path)
    stamp = json.loads(table.schema.metadata[b"hierrouter"])
    old = json.dumps({**stamp, "scorer_version": -1})
    pq.write_table(table.replace_schema_metadata({b"hierrouter": old}), path)
    with pytest.raises(HierRouterError, match=f"run `hierrouter tree rescore {tree}`"):
        load_outcomes(tree, "accuracy")
    world.record(world.pool(), queries)
    assert read_scores(tree)[0] == stamp


def test_scores_of_other_queries_are_refused(world, queries, tree) -> None:
    """A kill between taking new queries and scoring them."""
    write_queries(tree / "queries.parquet", read_queries(world.altered(queries, reference=("0",))))
    with pytest.raises(HierRouterError, match="scored for other queries"):
        load_outcomes(tree, "accuracy")


# Embeddings.


def parts(tree: Path) -> list[Path]:
    return sorted((tree / "embeddings").glob("*/*.parquet"))


def encoded(tree: Path) -> list[str]:
    """Digests of the encoded texts, as often as they are there."""
    return [
        digest for path in parts(tree) for digest in pq.read_table(path)["text_digest"].to_pylist()
    ]


CONTEXTS = [((), "solve"), *[((name,), role) for name in "ABC" for role in ("analyze", "solve")]]


def test_each_distinct_text_is_encoded_once(tree: Path) -> None:
    opened = RouteTree(tree)
    texts = set()
    for query in opened.queries:
        for call in CONTEXTS:
            replies = replies_of(opened.nodes, query, *call)
            assert replies is not None
            texts |= {encoder_text(query.prompt, replies), query.prompt}
            texts |= {text for _, text in replies}
    digests = encoded(tree)
    assert len(digests) == len(set(digests)) == len(texts)


@pytest.mark.parametrize("view", ["paper", "two_part"])
def test_a_state_is_what_the_encoder_says_of_the_view(tree: Path, view: View) -> None:
    """Vectors are kept as bytes: a step is a 254th of the vector's range."""
    opened = RouteTree(tree)
    outcomes = load_outcomes(tree, "accuracy", view)
    encoder = open_encoder(EncoderConfig(model="hashing", dimensions=16))
    for row, query in enumerate(opened.queries):
        for column, path in enumerate(((), ("A",), ("B",), ("C",))):
            replies = replies_of(opened.nodes, query, path, "analyze")
            assert replies is not None
            if view == "paper":
                (wanted,) = encoder.encode([encoder_text(query.prompt, replies)])
            else:
                newest = replies[-1][1] if replies else ""
                wanted = np.concatenate(encoder.encode([query.prompt, newest]))
            np.testing.assert_allclose(outcomes.embeddings[row, column], wanted, atol=1 / 254)


def test_a_view_that_was_not_encoded_is_named_with_those_that_were(world, queries) -> None:
    only = EncoderConfig(model="hashing", dimensions=16, views=["paper"])
    world.record(world.pool(encoder=only), queries)
    assert len(load_outcomes(world.tree, "accuracy", "paper")) == 8
    with pytest.raises(HierRouterError, match=r"view two_part \(encoded: paper\)"):
        load_outcomes(world.tree, "accuracy", "two_part")


def test_direct_moves_take_queries_with_direct_answers_alone(world, queries, capfd) -> None:
    collect_routes(world.pool(), queries, world.tree, Part(direct=True))
    collect_routes(world.pool(), queries, world.tree, Part(per_task=1))
    direct = load_outcomes(world.tree, "accuracy", moves="direct")
    assert (len(direct), direct.hops, direct.solve_quality.shape) == (8, 1, (8, 1, 3))
    capfd.readouterr()
    assert len(load_outcomes(world.tree, "accuracy")) == 2
    assert "6 of 8 queries left out, not all of their nodes" in capfd.readouterr().err


def test_further_queries_encode_only_their_own_contexts(world, queries, tree) -> None:
    before = world.states("embeddings/*/*.parquet")
    world.record(world.pool(), queries)
    assert world.states("embeddings/*/*.parquet") == before
    world.record(world.pool(), world.sample(6, name="more"))
    assert world.states("embeddings/*/*.parquet").items() > before.items()
    digests = encoded(tree)
    assert max(Counter(digests).values()) == 1


def test_embedding_goes_on_where_it_was_stopped(world, queries, monkeypatch) -> None:
    monkeypatch.setattr(embed, "PART", 8)
    encode, asked = HashingEncoder.encode, []

    def stopped(self, texts):
        if len(asked) == 20:
            raise KeyboardInterrupt
        asked.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(HashingEncoder, "encode", stopped)
    monkeypatch.setattr(embed, "AT_ONCE", 4)
    with pytest.raises(KeyboardInterrupt):
        world.record(world.pool(), queries)
    kept = encoded(world.tree)
    assert sorted(kept) == sorted(map(sha256_text, asked[:16]))
    monkeypatch.setattr(HashingEncoder, "encode", encode)
    world.record(world.pool(), queries)
    assert max(Counter(encoded(world.tree)).values()) == 1
    assert len(load_outcomes(world.tree, "accuracy")) == 8


def test_another_encoder_adds_its_vectors_and_destroys_none(world, queries, tree) -> None:
    before = world.states("embeddings/*/*.parquet")
    world.record(world.pool(encoder=EncoderConfig(model="hashing", dimensions=8)), queries)
    assert load_outcomes(tree, "accuracy").embeddings.shape == (8, 4, 8)
    added = world.states("embeddings/*/*.parquet")
    world.record(world.pool(), queries)
    assert load_outcomes(tree, "accuracy").embeddings.shape == (8, 4, 16)
    assert world.states("embeddings/*/*.parquet") == added
    assert len(list((tree / "embeddings").iterdir())) == 2
    assert before


def test_a_truncated_part_is_said_and_encoded_anew(world, queries, tree, capfd) -> None:
    whole = read_embeddings(embeddings_folder(RouteTree(tree)))
    (part,) = parts(tree)
    truncate(part)
    with pytest.raises(DamagedFileError, match=rf"{part.name} cannot.*hierrouter collect") as line:
        load_outcomes(tree, "accuracy")
    assert "\n" not in str(line.value)
    assert part.exists()
    world.record(world.pool(), queries)
    mended = read_embeddings(embeddings_folder(RouteTree(tree)))
    assert mended.keys() == whole.keys()
    assert all(np.array_equal(mended[digest], whole[digest]) for digest in whole)
    assert "could not be read back; its contexts are encoded anew" in capfd.readouterr().err


# Outcomes.


def test_outcomes_hold_what_the_nodes_say(tree: Path) -> None:
    opened, (_, scores) = RouteTree(tree), read_scores(tree)
    outcomes = load_outcomes(tree, "accuracy")
    assert outcomes.query_ids == tuple(query.query_id for query in opened.queries)
    assert outcomes.models == ("A", "B", "C")
    for row, query in enumerate(opened.queries):
        for column, path in enumerate(((), ("A",), ("B",), ("C",))):
            for model, name in enumerate("ABC"):
                answer = scores[NodeKey(query.query_id, (*path, name), "solve")]
                assert outcomes.solve_cost[row, column, model] == answer.cost
                assert outcomes.solve_quality[row, column, model] == answer.metrics["accuracy"]
                if not path:
                    analysis = scores[NodeKey(query.query_id, (name,), "analyze")]
                    assert outcomes.analyze_cost[row, 0, model] == analysis.cost
    assert not outcomes.analyze_cost[:, 1:].any()
    assert outcomes.train.tolist() == [query.split == "train" for query in opened.queries]


def test_the_same_tree_serves_every_metric(world, tree) -> None:
    before = world.states("**/*.parquet")
    accuracy, f1 = load_outcomes(tree, "accuracy"), load_outcomes(tree, "token_f1")
    assert not np.array_equal(accuracy.solve_quality, f1.solve_quality)
    np.testing.assert_array_equal(accuracy.solve_cost, f1.solve_cost)
    assert world.states("**/*.parquet") == before
    with pytest.raises(HierRouterError, match="unknown metric rouge; there are accuracy"):
        load_outcomes(tree, "rouge")


def test_references_are_measured_beside_the_pool(world, queries) -> None:
    usual = world.pool()
    world.record(world.pool(*usual.models, references=[world.model("R", 1.0)]), queries)
    outcomes = load_outcomes(world.tree, "accuracy")
    assert outcomes.references == ("R",)
    assert outcomes.models == ("A", "B", "C")
    assert outcomes.reference_quality is not None
    assert outcomes.reference_quality.tolist() == [[1.0]] * 8


def test_incomplete_queries_are_left_out_and_that_is_said(world, queries, tree, capfd) -> None:
    """Second hops of one unit, three queries, were not recorded when a kill came."""
    next((tree / "nodes").glob("00000-hop1-*.parquet")).unlink()
    rescore(tree, None)
    whole = {query.query_id for query in read_queries(queries)}
    capfd.readouterr()
    outcomes = load_outcomes(tree, "accuracy")
    assert len(outcomes) == 5
    assert set(outcomes.query_ids) < whole
    assert "3 of 8 queries left out, not all of their nodes are recorded" in capfd.readouterr().err


@pytest.mark.parametrize("models", [("A",), ("B", "C"), ("R",)], ids=":".join)
def test_answers_whose_file_is_lost_are_left_out_though_scores_tell_of_them(
    world, queries, capfd, models
) -> None:
    """As after `collect` found a damaged file and set it aside."""
    pool = world.pool()
    world.record(world.pool(*pool.models, references=[world.model("R", 1.0)]), queries)
    (path, *_) = (
        path
        for path in sorted((world.tree / "nodes").glob("*.parquet"))
        if any((node.models, node.role) == (models, "solve") for node in read_nodes(path))
    )
    lost = {node.query_id for node in read_nodes(path)}
    path.rename(path.with_suffix(".damaged"))
    capfd.readouterr()
    outcomes = load_outcomes(world.tree, "accuracy")
    assert set(outcomes.query_ids) == {each.query_id for each in read_queries(queries)} - lost
    assert f"{len(lost)} of 8 queries left out, not all of their nodes" in capfd.readouterr().err


def test_a_reply_made_again_does_not_take_the_score_of_the_one_before(
    world, queries, tree, capfd
) -> None:
    """A lost file was made again, and a kill came before it was scored."""
    path = next((tree / "nodes").glob("00000-hop1-*.parquet"))
    first, *others = read_nodes(path)
    write_nodes(path, [replace(first, reply="Answer: another"), *others])
    capfd.readouterr()
    assert first.query_id not in load_outcomes(tree, "accuracy").query_ids
    assert "1 of 8 queries left out, not all of their nodes" in capfd.readouterr().err
    world.record(world.pool(), queries)
    assert len(load_outcomes(tree, "accuracy")) == 8


def test_no_complete_query_is_an_error(world, queries, tree) -> None:
    for path in (tree / "nodes").glob("*hop1*.parquet"):
        path.unlink()
    rescore(tree, None)
    with pytest.raises(HierRouterError, match=r"no query has all its nodes.*collect"):
        load_outcomes(tree, "accuracy")


def test_the_digest_is_of_what_was_recorded_whatever_the_files(world, queries, tree) -> None:
    from hierrouter.routes.nodes import write_nodes

    opened = RouteTree(tree)
    before = opened.digest()
    assert tree_info(tree)["tree_digest"] == before
    nodes = list(opened.nodes.values())
    for path in (tree / "nodes").glob("*.parquet"):
        path.unlink()
    write_nodes(tree / "nodes" / "all.parquet", nodes)
    assert RouteTree(tree).digest() == before
    world.record(world.pool(), world.sample(5, name="more"))
    assert RouteTree(tree).digest() != before


def test_tree_info_prints_what_is_there(tree: Path, capsys) -> None:
    print_info(tree)
    printed = capsys.readouterr().out
    assert "8 queries, 120 nodes, L = 2" in printed
    assert "cost of all calls: $0." in printed
    assert "queries with all direct answers: 8, with all nodes: 8" in printed


def test_tree_info_counts_as_paid_what_was_paid(world, queries, capfd) -> None:
    # Analyses of one model in two roles read alike, and so does whoever is called after them.
    twins = world.pool(world.model("A", instruction="Be brief."), world.model("B", 0.2, 0.002))
    collect_routes(twins, queries, world.tree, max_dollars=5)
    said = capfd.readouterr().err
    paid = re.search(r"these calls cost (\$[\d.]+) of \$5", said)
    keys = [node.key for node in RouteTree(world.tree).nodes.values()]
    assert len(set(keys)) < len(keys)
    (world.tree / "recordings.json").unlink()
    print_info(world.tree)
    printed = capfd.readouterr().out
    assert f"cost of all calls: {paid[1]}\n" in printed
    assert f"recorded: {len(keys)} nodes that no journal tells of" in printed


def test_tree_info_tells_complete_queries_and_direct_answers_by_task(
    world, queries, capsys
) -> None:
    collect_routes(world.pool(), queries, world.tree, Part(direct=True))
    path = next((world.tree / "nodes").glob("*.parquet"))
    lost = read_nodes(path)
    write_nodes(path, lost[1:])
    print_info(world.tree)
    printed = capsys.readouterr().out
    assert "queries with all direct answers: 7, with all nodes: 0" in printed
    rows = [line for line in printed.splitlines() if "│ x " in line or "│ y " in line]
    assert len(rows) == 6

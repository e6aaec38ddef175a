"""Filling: what is asked of models, what their calls gave, and what stays in memory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from hierrouter.config import ModelSpec, TokenLimits
from hierrouter.data.queries import read_queries
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.files import sha256_text
from hierrouter.pool.loaded import LoadedBackends
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.pool.transformers_backend import TransformersBackend
from hierrouter.routes import fill
from hierrouter.routes.calls import Call, Part
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.costs import call_cost
from hierrouter.routes.embed import embeddings_folder, read_embeddings
from hierrouter.routes.fill import filling
from hierrouter.routes.journal import read_journal
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIRECT = Part(direct=True)


def calls_of(tree: Path, pool, *paths: tuple[str, str]) -> list[Call]:
    """For every query the calls "A:B" with a role."""
    specs = {spec.name: spec for spec in pool.models}
    return [
        Call(query, tuple(path.split(":")), role, specs[path[-1]])  # type: ignore[arg-type]
        for query in RouteTree(tree).queries
        for path, role in paths
    ]


def test_gains_are_those_of_the_whole_tree(world, queries, tree) -> None:
    pool = world.pool()
    whole = load_outcomes(tree, "accuracy")
    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    with filling(part, "accuracy", "paper") as filler:
        analyses = filler.gains(calls_of(part, pool, ("B", "analyze")))
        answers = filler.gains(calls_of(part, pool, ("B:C", "solve"), ("A", "solve")))
        assert filler.made == 16
    row = whole.contexts.index((1,))
    for number, gain in enumerate(analyses):
        assert gain.cost_usd == whole.analyze_cost[number, 0, 1]
        np.testing.assert_array_equal(gain.state, whole.embeddings[number, row])
    for number in range(8):
        after, direct = answers[2 * number : 2 * number + 2]
        assert after.quality == whole.solve_quality[number, row, 2]
        assert after.cost_usd == whole.solve_cost[number, row, 2]
        assert direct.quality == whole.solve_quality[number, 0, 0]
    # What was filled in is a tree like any other: collecting goes on from there.
    assert set(read_scores(part)[1]) == set(RouteTree(part).nodes)
    assert [entry["nodes"] for entry in read_journal(part)] == [24, 16]
    collect_routes(pool, queries, part)
    assert {place: node.reply for place, node in RouteTree(part).nodes.items()} == {
        place: node.reply for place, node in RouteTree(tree).nodes.items()
    }
    np.testing.assert_array_equal(load_outcomes(part, "accuracy").embeddings, whole.embeddings)


def test_members_with_the_same_weights_share_batches_and_generations(
    world, queries, tiny_model, monkeypatch
) -> None:
    limits = TokenLimits(solve=4, analyze=4)
    fields = {"model": str(tiny_model), "base_rate": 0.001, "limits": limits}
    pool = world.pool(
        *(
            ModelSpec(name=name, backend="transformers", instruction=f"Be {name}.", **fields)
            for name in "AB"
        )
    )
    batches: list[int] = []
    generate = TransformersBackend.generate

    def noting(self, prompts, limits, on_reply=None):
        batches.append(len(prompts))
        return generate(self, prompts, limits, on_reply)

    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    monkeypatch.setattr(TransformersBackend, "generate", noting)
    with filling(part, "accuracy", "paper") as filler:
        gains = filler.gains(calls_of(part, pool, ("A", "analyze"), ("B", "analyze")))
        assert batches == [8]
        assert filler.made == 16
        for one, two in zip(gains[::2], gains[1::2], strict=True):
            np.testing.assert_array_equal(one.state, two.state)
        # Analyses of A and of B read alike; the answers' instructions differ.
        filler.gains(calls_of(part, pool, ("A:A", "solve"), ("B:A", "solve"), ("B:B", "solve")))
        assert batches == [8, 16]


def test_a_budget_counts_what_is_spent_and_keeps_it(world, queries) -> None:
    pool = world.pool()
    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    calls = calls_of(part, pool, ("A", "analyze"), ("B", "analyze"))
    before = len(RouteTree(part).nodes)
    with (
        pytest.raises(HierRouterError, match=r"--max-dollars 0.001 .*the same command goes on"),
        filling(part, "accuracy", "paper", 0.001) as filler,
    ):
        filler.gains(calls)
    assert 0 < filler.spent_usd <= 0.001
    assert len(RouteTree(part).nodes) == before + filler.made
    made = [node for node in RouteTree(part).nodes.values() if node.role == "analyze"]
    rates = {spec.name: spec.rate for spec in pool.models}
    spent = sum(call_cost(rates[n.models[-1]], n.tokens_in, n.tokens_out) for n in made)
    assert spent == pytest.approx(filler.spent_usd)


def test_what_a_step_paid_for_before_it_failed_is_kept(world, queries, monkeypatch) -> None:
    pool = world.pool()
    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    calls = calls_of(part, pool, ("A", "analyze"), ("B", "analyze"))
    complete = ScriptedBackend._complete

    def failing(self, prompt, limit):
        if self._spec.name == "B":
            raise HierRouterError("the line went dead")
        return complete(self, prompt, limit)

    monkeypatch.setattr(ScriptedBackend, "_complete", failing)
    with (
        pytest.raises(HierRouterError, match="went dead"),
        filling(part, "accuracy", "paper") as filler,
    ):
        filler.gains(calls)
    kept = [place for place in RouteTree(part).nodes if place.role == "analyze"]
    assert {place.models for place in kept} == {("A",)}
    assert len(kept) == 8


def test_a_kill_costs_what_was_answered_since_the_last_commit_and_no_step(
    world, queries, monkeypatch
) -> None:
    monkeypatch.setattr(fill, "KEEP_EVERY", 0.0)
    pool = world.pool()
    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    commit, committed = RouteTree.commit, []

    def mortal(self, name, nodes):
        if len(committed) == 5:
            raise SystemExit  # from here on nothing is written, as after a kill
        committed.extend(nodes)
        commit(self, name, nodes)

    monkeypatch.setattr(RouteTree, "commit", mortal)
    with pytest.raises(SystemExit), filling(part, "accuracy", "paper") as filler:
        filler.gains(calls_of(part, pool, ("A", "analyze")))
    monkeypatch.undo()
    assert sum(place.role == "analyze" for place in RouteTree(part).nodes) == 5
    with filling(part, "accuracy", "paper") as filler:
        filler.gains(calls_of(part, pool, ("A", "analyze")))
        assert filler.made == 3


def test_other_weights_fill_no_tree(world, queries, tiny_model) -> None:
    model = world.folder / "model"
    shutil.copytree(tiny_model, model)
    fields = {"model": str(model), "limits": TokenLimits(solve=3, analyze=3)}
    pool = world.pool(ModelSpec(name="A", backend="transformers", base_rate=0.001, **fields))
    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    weights = load_file(model / "model.safetensors")
    save_file({name: each * 2 for name, each in weights.items()}, model / "model.safetensors")
    with (
        pytest.raises(ConfigError, match="recorded with other weights of model A"),
        filling(part, "accuracy", "paper") as filler,
    ):
        filler.gains(calls_of(part, pool, ("A", "analyze")))
    assert all(place.role == "solve" for place in RouteTree(part).nodes)


def test_an_over_long_question_is_found_before_anything_is_generated(world, queries) -> None:
    pool = world.pool()
    part = collect_routes(pool, queries, world.folder / "part", DIRECT)
    before = len(RouteTree(part).nodes)
    first, *others = read_queries(queries)
    long = [replace(first, query_id="x/long", prompt="word " * 3000), *others]
    with filling(part, "accuracy", "paper") as filler:
        filler.queries = {query.query_id: query for query in long}
        with pytest.raises(HierRouterError, match="1 of 8 questions are too long"):
            filler.gains(calls_of(part, pool, ("A", "analyze")))
    assert len(RouteTree(part).nodes) == before


def test_a_reply_that_is_made_again_is_scored_again(world, queries, tree, monkeypatch) -> None:
    """A file was lost, and the scores still tell of what it held."""
    pool = world.pool()
    lost = calls_of(tree, pool, *((f"{name}:A", "solve") for name in "ABC"))
    RouteTree(tree).take_out([call.place for call in lost])
    for path in (tree / "nodes").glob("*.orphans"):
        path.unlink()
    complete = ScriptedBackend._complete

    def wrong(self, prompt, limit):
        return replace(complete(self, prompt, limit), reply="none at all")

    monkeypatch.setattr(ScriptedBackend, "_complete", wrong)
    with filling(tree, "accuracy", "paper") as filler:
        assert {gain.quality for gain in filler.gains(lost)} == {0.0}


# Vectors


def test_vectors_are_given_as_they_will_be_read_and_encoded_once(world, tree, monkeypatch) -> None:
    opened, config = RouteTree(tree), world.pool().encoder
    vectors = Vectors(opened, config)
    # Of words met once, twice and three times, so that no scale holds the vector exactly.
    new = "one new new text text text"
    texts = [new, "another", new]
    first = vectors.of(texts)
    np.testing.assert_array_equal(first[0], first[2])
    assert np.abs(first[0] - first[1]).max() > 0
    vectors.flush()
    stored = read_embeddings(embeddings_folder(opened))
    for text, vector in zip(texts, first, strict=True):
        np.testing.assert_array_equal(stored[sha256_text(text)], vector)

    def refuse(_):
        raise AssertionError("a known text was encoded again")

    monkeypatch.setattr("hierrouter.routes.vectors.open_encoder", refuse)
    np.testing.assert_array_equal(Vectors(opened, config).of(texts), first)


# Loaded models


class Weights:
    """A backend that only remembers whether its weights are there."""

    name, device, dtype = "fake", "cpu", "float32"

    def __init__(self, spec: ModelSpec, events: list[str]) -> None:
        self._name, self._events = spec.name, events

    def close(self) -> None:
        self._events.append(f"free {self._name}")


def test_the_model_not_used_for_longest_makes_room(world) -> None:
    specs = {name: world.model(name, billion_parameters=1.0, rate=None) for name in "ABC"}
    events: list[str] = []
    free = [20e9]

    def use(names: Sequence[str], models: LoadedBackends) -> None:
        for name in names:
            models.use((name, "float32"), specs[name])

    models = LoadedBackends(
        lambda spec: Weights(spec, events),  # type: ignore[arg-type, return-value]
        lambda device: free[0] + 5e9 * len(events),
    )
    use("ABA", models)
    assert events == []
    free[0] = 2e9  # a model of a billion float32 weights takes some 6e9
    use("A", models)
    assert events == []  # it is there already
    use("C", models)
    assert events == ["free B"]
    free[0] = -9e9
    use("B", models)
    assert events == ["free B", "free A", "free C"]
    models.close()
    assert len(events) == 6


def test_models_that_run_elsewhere_need_no_room(world) -> None:
    models = LoadedBackends(
        lambda spec: _elsewhere(spec),
        lambda device: 0.0,
    )
    first = models.use(("A", "auto"), world.model("A"))
    models.use(("B", "auto"), world.model("B"))
    assert models.use(("A", "auto"), world.model("A")) is first


def _elsewhere(spec: ModelSpec):
    backend = Weights(spec, [])
    backend.dtype = "none"

    def refuse() -> None:
        raise AssertionError("nothing had to be freed")

    backend.close = refuse  # type: ignore[method-assign]
    return backend

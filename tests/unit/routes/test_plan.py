"""A plan against what collecting then makes and pays."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hierrouter.config import (
    DataConfig,
    EncoderConfig,
    Endpoint,
    ModelSpec,
    Prompts,
    ScriptedSkills,
    TokenLimits,
)
from hierrouter.data.queries import read_queries
from hierrouter.data.sample import sample_queries
from hierrouter.errors import ConfigError
from hierrouter.files import write_json
from hierrouter.routes.amounts import Amount, Kind
from hierrouter.routes.calls import Part, planned_calls
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.estimate import USED, loading_seconds
from hierrouter.routes.measured import elapsed
from hierrouter.routes.nodes import Node
from hierrouter.routes.plan import plan_recording, stand_ins
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.config import PoolConfig
    from hierrouter.data.queries import Query


def generated(tree: RouteTree) -> dict[str, Node]:
    """The first node of each generation, by its key."""
    first: dict[str, Node] = {}
    for node in tree.nodes.values():
        first.setdefault(node.key, node)
    return first


def paid(tree: RouteTree) -> float:
    """Dollars of every generation, each once."""
    scores = read_scores(tree.folder)[1]
    return sum(scores[node.place].cost for node in generated(tree).values())


def by_kind(tree: RouteTree) -> Counter[Kind]:
    return Counter(
        Kind(len(node.models) - 1, node.role, node.models[-1]) for node in tree.nodes.values()
    )


# What is there.


def test_a_finished_tree_has_nothing_left_and_cost_what_was_paid(world, queries, tree) -> None:
    recorded = RouteTree(tree)
    plan = plan_recording(world.pool(), recorded.queries, tree=recorded)
    assert plan.left == Amount()
    assert {row.kind: row.recorded.nodes for row in plan.rows} == by_kind(recorded)
    once = generated(recorded).values()
    assert plan.recorded.nodes == 120
    assert plan.recorded.generations == len(once) == 72
    assert plan.recorded.tokens_in == sum(node.tokens_in for node in once)
    assert plan.recorded.tokens_out == sum(node.tokens_out for node in once)
    assert plan.recorded.dollars == pytest.approx(paid(recorded), rel=1e-12)
    assert plan.seconds_on(1) == 0


def test_storage_of_a_finished_tree_is_the_size_of_its_files(world) -> None:
    tree = RouteTree(world.record(world.pool(), world.sample(3)))  # two whole units
    plan = plan_recording(world.pool(), tree.queries, tree=tree)
    nodes = sum(path.stat().st_size for path in tree.nodes.files())
    vectors = sum(path.stat().st_size for path in (tree.folder / "embeddings").rglob("*.parquet"))
    assert plan.recorded.bytes == pytest.approx(nodes)
    assert plan.storage(plan.recorded) - plan.recorded.bytes == pytest.approx(vectors)


# What is left.


@pytest.mark.parametrize(
    "first", [Part(per_task=2), Part(per_task=1), Part(per_task=3), Part(per_task=4, direct=True)]
)
def test_what_is_left_is_what_collecting_then_makes(world, first) -> None:
    queries = world.sample(6)
    collect_routes(world.pool(), queries, world.tree, first)
    early = RouteTree(world.tree)
    plan = plan_recording(world.pool(), early.queries, tree=early)
    before, paid_before = by_kind(early), paid(early)
    assert {row.kind: row.recorded.nodes for row in plan.rows if row.recorded.nodes} == before
    world.record(world.pool(), queries)
    late = RouteTree(world.tree)
    assert {row.kind: row.recorded.nodes + row.left.nodes for row in plan.rows} == by_kind(late)
    assert plan.left.nodes == len(late.nodes) - len(early.nodes)
    assert plan.recorded.dollars == pytest.approx(paid_before, rel=1e-12)
    if not first.direct:
        # That all analyses of a query read alike, so that answers after them are shared, shows in
        # what is recorded.
        fresh = generated(late).keys() - generated(early).keys()
        assert plan.left.generations == pytest.approx(len(fresh), rel=1e-12)
        made = [generated(late)[key] for key in fresh]
        assert plan.left.tokens_out == pytest.approx(sum(n.tokens_out for n in made), rel=1e-12)
        assert plan.left.tokens_in == pytest.approx(sum(n.tokens_in for n in made), rel=0.02)
        assert plan.left.dollars == pytest.approx(paid(late) - paid_before, rel=0.02)


def test_a_part_is_planned_as_it_is_recorded(world, queries) -> None:
    pool = world.pool(references=[world.model("R", rate=0.008)])
    sample = read_queries(queries)
    for number, part in enumerate(
        [Part(), Part(direct=True), Part(per_task=3), Part(per_task=1, direct=True)]
    ):
        tree = RouteTree(collect_routes(pool, queries, world.folder / f"tree{number}", part))
        plan = plan_recording(pool, sample, part)
        assert {row.kind: row.left.nodes for row in plan.rows} == by_kind(tree)
        assert plan.queries == len({node.query_id for node in tree.nodes.values()})
        assert [row for row in plan.rows if row.kind == Kind(0, "solve", "R")]
        # Planned from the whole tree, nothing of the part is left.
        assert plan_recording(pool, sample, part, tree).left.nodes == 0


def test_interrupted_within_a_unit_the_rest_is_left(world, queries, tree) -> None:
    before = RouteTree(tree)
    for path in sorted((tree / "nodes").iterdir())[::3]:
        path.unlink()
    after = RouteTree(tree)
    plan = plan_recording(world.pool(), after.queries, tree=after)
    assert plan.recorded.nodes == len(after.nodes)
    assert plan.left.nodes == len(before.nodes) - len(after.nodes) > 0


def test_without_a_sample_so_many_queries_as_the_config_says_are_planned(world) -> None:
    data = DataConfig(source="scripted", tasks=["x", "y"], queries_per_task=4)
    plan = plan_recording(world.pool(), stand_ins(data))
    assert (plan.queries, plan.left.nodes) == (8, 120)
    assert plan.measured_nodes == 0


# Where lengths come from.


def test_longer_questions_take_more_tokens(world, queries) -> None:
    one, two = (
        replace(query, task="x", prompt="x" * length)
        for query, length in zip(read_queries(queries), (100, 500), strict=False)
    )
    short, long, both = (
        plan_recording(world.pool(), sample).left.tokens_in for sample in ([one], [two], [one, two])
    )
    assert both == pytest.approx(short + long)
    # 400 characters more in each of 15 prompts, four to a token.
    assert long - short == pytest.approx(15 * 100)


def test_lengths_are_of_the_nearest_kind_that_is_recorded(world) -> None:
    limits = TokenLimits(solve=50, analyze=40, solve_by_task={"y": 30})
    pool = world.pool(world.model("A", limits=limits), world.model("B", limits=limits))
    queries = world.sample(6)
    collect_routes(pool, queries, world.tree, Part(per_task=2, direct=True))
    tree = RouteTree(world.tree)
    rows = {row.kind: row for row in plan_recording(pool, tree.queries, tree=tree).rows}
    direct, analysis, second = (
        rows[Kind(hop, role, "A")] for hop, role in ((0, "solve"), (0, "analyze"), (1, "solve"))
    )
    assert [row.basis for row in (direct, analysis, second)] == ["recorded", "limits", "relatives"]
    # Every scripted answer has six words.
    assert direct.left.tokens_out == pytest.approx(6 * 8)
    assert second.left.tokens_out == pytest.approx(6 * 24)
    assert analysis.left.tokens_out == pytest.approx(12 * USED * 40)
    # A second hop reads the question and an analysis.
    reads = direct.left.tokens_in / direct.left.generations
    assert second.left.tokens_in / 24 > reads + USED * 40
    nothing = {row.kind: row for row in plan_recording(pool, tree.queries).rows}
    assert nothing[direct.kind].left.tokens_out == pytest.approx(6 * USED * (50 + 30))
    assert {row.basis for row in nothing.values()} == {"limits"}


def test_a_prompt_is_never_planned_longer_than_a_message_may_be(world, queries) -> None:
    pool = world.pool(hops=1, prompts=Prompts(max_context_tokens=30))
    long = [replace(query, prompt="x" * 4000) for query in read_queries(queries)]
    plan = plan_recording(pool, long)
    assert plan.left.tokens_in / plan.left.generations <= 30 + 25


# Members with the same weights.


def member(world, folder: Path, name: str, instruction: str = "", **more: Any) -> ModelSpec:
    """A real but tiny model."""
    fields = {
        "model": str(folder),
        "backend": "transformers",
        "scripted": None,
        "limits": TokenLimits(solve=3, analyze=2),
        "instruction": instruction,
    }
    return world.model(name, **{**fields, **more})


def test_members_with_the_same_weights_share_generations(world, tiny_model) -> None:
    config = DataConfig(source="scripted", tasks=["x"], queries_per_task=3, train_share=0.5)
    queries = sample_queries(config, world.folder / "queries")
    short = Prompts(max_context_tokens=1500)  # the tiny model has a token a letter
    terse, long, copy = (
        member(world, tiny_model, name, instruction)
        for name, instruction in (("terse", ""), ("long", "Think."), ("copy", ""))
    )
    three = world.pool(terse, long, copy, prompts=short)
    planned = plan_recording(three, read_queries(queries))
    # One analysis; two answers to the query; two to the query and the analysis.
    assert (planned.left.nodes, planned.left.generations) == (3 * 15, 3 * 5)
    by_row = {row.kind: row.left.generations for row in planned.rows}
    assert by_row[Kind(0, "analyze", "terse")] == 3
    assert by_row[Kind(0, "analyze", "long")] == by_row[Kind(1, "solve", "copy")] == 0
    # Other limits cut replies elsewhere, so they are other replies.
    longer = member(world, tiny_model, "copy", limits=TokenLimits(solve=3, analyze=4))
    other = plan_recording(world.pool(terse, long, longer, prompts=short), read_queries(queries))
    assert other.left.generations == 3 * (2 + 2 + 2 * 2)
    two = world.pool(terse, long, prompts=short)
    tree = RouteTree(world.record(two, queries))
    # The copy comes later: what it would say is there already, and costs nothing.
    later = plan_recording(three, tree.queries, tree=tree)
    assert later.recorded.generations == len(generated(tree)) == 3 * 5
    assert later.left.nodes == 3 * 15 - len(tree.nodes)
    assert (later.left.generations, later.left.dollars, later.seconds_on(1)) == (0, 0, 0)


# Time.


@pytest.fixture
def untimed(world, queries) -> tuple[PoolConfig, list[Query]]:
    """Eight queries in units of 3, 3 and 2, and one model that is never loaded."""
    spec = ModelSpec(name="M", model="none/such", backend="transformers", billion_parameters=2.0)
    return world.pool(spec), [replace(query, prompt="x" * 100) for query in read_queries(queries)]


def test_units_are_shared_out_and_the_longest_shard_decides(untimed) -> None:
    pool, queries = untimed
    plan = plan_recording(pool, queries)
    each, load = plan.left.seconds / 8, 2 * loading_seconds(pool.models[0])
    assert each > 0
    # One model, loaded once for each of two depths.
    assert plan.seconds_on(1) == pytest.approx(8 * each + load)
    assert plan.seconds_on(2) == pytest.approx(5 * each + load)
    assert plan.seconds_on(3) == plan.seconds_on(8) == pytest.approx(3 * each + load)
    direct = plan_recording(pool, queries, Part(direct=True))
    assert direct.seconds_on(1) == pytest.approx(direct.left.seconds + load / 2)


def test_time_grows_with_size_and_scripted_models_take_none(world, untimed) -> None:
    pool, queries = untimed
    twice = pool.models[0].model_copy(update={"billion_parameters": 4.0})
    small, large = (plan_recording(p, queries) for p in (pool, world.pool(twice)))
    assert large.left.seconds == pytest.approx(2 * small.left.seconds)
    assert plan_recording(world.pool(), queries).seconds_on(1) == 0


def served(name: str, host: str, model: str = "", **more: Any) -> ModelSpec:
    endpoint = Endpoint(url=f"http://{host}/v1", concurrency=1)
    fields = {"model": model or name, "backend": "openai", "endpoint": endpoint}
    return ModelSpec(name=name, **{"billion_parameters": 2.0, **fields, **more})


def test_servers_are_asked_side_by_side_and_what_runs_here_before_them(world, untimed) -> None:
    pool, queries = untimed

    def plan(*models: ModelSpec, **more: Any) -> tuple[float, dict[Kind, float], int]:
        made = plan_recording(world.pool(*models, **more), queries)
        return made.seconds_on(1), {row.kind: row.left.seconds for row in made.rows}, made.servers

    def at_hop(seconds: dict[Kind, float], hop: int, *models: str) -> float:
        return sum(
            taken for kind, taken in seconds.items() if kind.hop == hop and kind[2] in models
        )

    large = served("large", "three", billion_parameters=7.0)
    apart = served("a", "one"), served("b", "two"), large
    took, seconds, servers = plan(*apart)
    assert servers == 3
    # The slowest of each hop.
    assert took == pytest.approx(at_hop(seconds, 0, "large") + at_hop(seconds, 1, "large"))
    assert took < sum(seconds.values())
    # What runs here comes before, and is loaded at each hop.
    local = pool.models[0]
    took, seconds, servers = plan(local, *apart)
    here = sum(at_hop(seconds, hop, "M") for hop in (0, 1)) + 2 * loading_seconds(local)
    slowest = at_hop(seconds, 0, "large") + at_hop(seconds, 1, "large")
    assert (took, servers) == (pytest.approx(here + slowest), 3)
    # At one address, or with the same weights, one waits for the other.
    one, two, copy = served("a", "one"), served("b", "one"), served("c", "two", model="a")
    took, seconds, servers = plan(one, two, copy)
    assert (took, servers) == (pytest.approx(sum(seconds.values())), 1)
    # A reference is asked at the first hop only.
    took, seconds, _ = plan(one, references=[large])
    slowest = max(at_hop(seconds, 0, "large"), at_hop(seconds, 0, "a"))
    assert took == pytest.approx(slowest + at_hop(seconds, 1, "a"))


def node(query: Query, latency: float, key: str, **more: Any) -> Node:
    fields = {
        "query_id": query.query_id,
        "models": ("M",),
        "role": "solve",
        "reply": "Answer: 7",
        "tokens_in": 50,
        "tokens_out": 20,
        "finish_reason": "stop",
        "latency_s": latency,
        "logprob_mean": -0.1,
        "logprob_min": -0.2,
        "dtype": "int8",
        "backend": "openvino",
        "device": "cpu",
        "key": key,
    }
    return Node(**{**fields, **more})


@pytest.mark.parametrize(
    ("backend", "latencies", "seconds"),
    [
        # From handing over all prompts to each reply's end.
        ("openvino", [1.0, 2.0, 6.0], 6.0),
        # Each reply from where it joined a batch, beside one does not know how many.
        ("transformers", [2.0, 2.0, 3.0], None),
        # Each call by itself, two at a time.
        ("openai", [1.0, 1.0, 2.0, 2.0], 3.0),
        ("openai", [1.0, 1.0, 5.0], 3.5),
        ("scripted", [0.0, 0.0], 0.0),
    ],
)
def test_what_a_call_of_a_backend_took(queries, backend, latencies, seconds) -> None:
    query = read_queries(queries)[0]
    nodes = [
        node(query, latency, str(number), backend=backend)
        for number, latency in enumerate(latencies)
    ]
    endpoint = Endpoint(url="http://localhost/v1", concurrency=2)
    spec = ModelSpec(name="M", model="m", backend="openai", endpoint=endpoint, base_rate=1)
    assert elapsed(nodes, spec) == seconds


def test_hours_are_those_of_recorded_latencies(world, queries, tiny_model) -> None:
    pool = world.pool(member(world, tiny_model, "M"), hops=1)
    sample = [replace(query, prompt="x" * 200) for query in read_queries(queries)]
    tree = RouteTree.create_or_open(world.tree, pool, sample, {})
    units = [[sample[0], sample[4], sample[1]], [sample[5], sample[2], sample[6]]]
    # A node that shares its generation with another took no time again.
    tree.commit("00000-hop0", [node(q, 2.0 * at, f"a{at}") for at, q in enumerate(units[0], 1)])
    shared = [
        node(units[1][0], 99.0, "a3"),
        node(units[1][1], 3.0, "b"),
        node(units[1][2], 3.0, "c"),
    ]
    tree.commit("00001-hop0", shared)
    plan = plan_recording(pool, sample, tree=RouteTree(world.tree))
    # 6 s and 3 s for five generations of the same length; two queries are left.
    assert plan.recorded.generations == 6  # in another query, so it is counted there
    assert plan.left.seconds == pytest.approx(2 * 9 / 5)
    assert plan.made_on == ["openvino cpu int8"]
    assert (plan.measured_nodes, plan.hours_from) == (6, "latencies")


def test_what_was_filled_in_one_step_took_as_long_as_its_last_reply(
    world, queries, tiny_model
) -> None:
    pool = world.pool(member(world, tiny_model, "M"), hops=1)
    sample = [replace(query, prompt="x" * 200) for query in read_queries(queries)]
    tree = RouteTree.create_or_open(world.tree, pool, sample, {})
    made = [node(query, 2.0 * at, f"a{at}") for at, query in enumerate(sample[:7], 1)]
    # Two files of one step, and of several units.
    tree.commit("fill-00000000-00000000", made[:4])
    tree.commit("fill-00000000-00000004", made[4:])
    plan = plan_recording(pool, sample, tree=RouteTree(world.tree))
    assert plan.left.seconds == pytest.approx(14 / 7)


def test_hours_are_those_of_recordings_where_latencies_do_not_tell(world, queries) -> None:
    spec = ModelSpec(
        name="M",
        model="m",
        backend="openai",
        base_rate=0.001,
        endpoint=Endpoint(url="http://localhost/v1"),
    )
    pool = world.pool(spec, hops=1)
    sample = [replace(query, prompt="x" * 200) for query in read_queries(queries)]
    tree = RouteTree.create_or_open(world.tree, pool, sample, {})
    tree.commit(
        "00000-hop0", [node(q, 1.0, q.query_id, backend="transformers") for q in sample[:4]]
    )
    nothing = plan_recording(pool, sample, tree=RouteTree(world.tree))
    assert nothing.hours_from == "sizes"
    # Half of the nodes were noted, with 3 s for each.
    write_json(world.tree / "recordings.json", [{"nodes": 2, "seconds": 6.0}])
    noted = plan_recording(pool, sample, tree=RouteTree(world.tree))
    assert noted.hours_from == "recordings"
    assert noted.left.seconds == pytest.approx(4 * 3.0)
    assert noted.recorded.seconds == pytest.approx(4 * 3.0)


def test_what_servers_took_side_by_side_counts_once_of_a_recording(world, queries) -> None:
    local = ModelSpec(name="M", model="none/such", backend="transformers", billion_parameters=2.0)
    servers = served("S", "one"), served("T", "two")
    pool = world.pool(local, *servers, hops=1)
    sample = [replace(query, prompt="x" * 200) for query in read_queries(queries)]
    tree = RouteTree.create_or_open(world.tree, world.pool(*servers, hops=1), sample, {})
    for name, backend in (("M", "transformers"), ("S", "openai"), ("T", "openai")):
        made = [node(q, 3.0, f"{name}{q}", models=(name,), backend=backend) for q in sample[:2]]
        tree.commit("00000-hop0", made)
    # Twice 3 s of each server, beside each other, and twice 4 s here.
    write_json(world.tree / "recordings.json", [{"nodes": 6, "seconds": 6.0 + 8.0}])
    plan = plan_recording(pool, sample, tree=RouteTree(world.tree))
    (mine,) = (row for row in plan.rows if row.kind.model == "M")
    assert mine.left.seconds == pytest.approx(6 * 4.0)
    assert plan.seconds_on(1) == pytest.approx(6 * 4.0 + loading_seconds(local) + 6 * 3.0)


# The tree of another pool.


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ({"instruction": "Be brief."}, {}, "other instruction of model A"),
        ({"limits": TokenLimits(solve=3)}, {}, "other limits of model A"),
        ({"scripted": ScriptedSkills(words=7)}, {}, "other weights of model A"),
        (
            {"backend": "transformers", "scripted": None, "model": "another/model"},
            {},
            "other weights of model A .*now another/model",
        ),
        ({}, {"prompts": Prompts(solve="Now.")}, "other pool.prompts"),
    ],
)
def test_the_tree_of_another_pool_is_refused(world, queries, tree, model, more, said) -> None:
    others = world.pool().models[1:]
    pool = world.pool(world.model("A", 0.9, **model), *others, **more)
    with pytest.raises(ConfigError, match=said):
        plan_recording(pool, read_queries(queries), tree=RouteTree(tree))


def test_other_rates_hops_and_a_further_model_are_taken(world, queries, tree) -> None:
    models = [world.model("A", 0.9, rate=0.01), *world.pool().models[1:], world.model("D")]
    pool = world.pool(*models, hops=1, encoder=EncoderConfig(model="hashing", dimensions=32))
    plan = plan_recording(pool, read_queries(queries), tree=RouteTree(tree))
    assert (plan.recorded.nodes, plan.left.nodes) == (8 * 3, 8)
    first = next(row for row in plan.rows if row.kind.model == "A").recorded
    assert first.dollars == pytest.approx(0.01 * (first.tokens_in + first.tokens_out) / 1000)
    assert {call.place for call in planned_calls(read_queries(queries), pool)} >= {
        place for place in RouteTree(tree).nodes if len(place.models) == 1 and place.role == "solve"
    }

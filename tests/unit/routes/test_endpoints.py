"""Recording from endpoints: a played one that fails, and a real `transformers serve`."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.transformers_server import Served

from hierrouter.config import DataConfig, Prompts, TokenLimits
from hierrouter.data.queries import read_queries
from hierrouter.data.sample import sample_queries
from hierrouter.errors import ConfigError, HierRouterError, RefusedError, UnreachableError
from hierrouter.files import folder_at, sha256_text
from hierrouter.pool.openai_backend import OpenAIBackend
from hierrouter.routes.calls import unit_numbers
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.commits import Commits
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.nodes import read_nodes
from hierrouter.routes.store import NodeStore
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hierrouter.config import ModelSpec

NODES = 8 * (2 + 2 + 4)
"""Eight queries, two models, two hops; no two of them are asked the same."""


def member(world, name: str, url: str, **more: Any) -> ModelSpec:
    at = {"url": url, "retries": 0, **more.pop("endpoint", {})}
    fields = {"model": f"org/{name}", "backend": "openai", "scripted": None, **more}
    return world.model(name, endpoint=at, **fields)


def pool(world, url: str, **more: Any):
    return world.pool(*(member(world, name, url, **more) for name in "AB"))


def answer(call) -> None:
    """A reply of its own to every question; its counts are those of letters and one."""
    call.complete(sha256_text(call.said["model"] + call.prompt)[:8], (len(call.prompt), 8))


def asked(endpoint) -> Counter[tuple[str, str]]:
    return Counter((call.said["model"], call.prompt) for call in endpoint.calls)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_was_answered_before_a_failure_is_kept_and_never_asked_again(
    world, queries, endpoint, concurrency
) -> None:
    answered: Counter[tuple[str, str]] = Counter()

    def play(call) -> None:
        if len(answered) == 19:
            call.refuse(503)
            return
        with endpoint.counting:
            answered[call.said["model"], call.prompt] += 1
        answer(call)

    endpoint.play = play
    at = {"concurrency": concurrency}
    with pytest.raises(UnreachableError, match="refused the call"):
        world.record(pool(world, endpoint.url, endpoint=at), queries)
    kept = {place: node.reply for place, node in RouteTree(world.tree).nodes.items()}
    assert len(kept) == sum(answered.values())
    endpoint.play = answer
    before = asked(endpoint)
    world.record(pool(world, endpoint.url, endpoint=at), queries)
    nodes = RouteTree(world.tree).nodes
    assert len(nodes) == NODES
    assert {place: nodes[place].reply for place in kept} == kept
    again = asked(endpoint) - before
    assert len(again) == sum(again.values()) == NODES - len(kept)
    assert not again.keys() & answered.keys()
    for node in nodes.values():
        assert (node.backend, node.device, node.dtype) == ("openai", "endpoint", "unknown")
        assert node.tokens_out == 8
    assert sum(node.tokens_in for node in nodes.values()) == sum(
        len(prompt) for _, prompt in (answered | again)
    )


def test_a_refused_prompt_leaves_out_what_stands_on_it_and_nothing_else(
    world, queries, endpoint, capfd
) -> None:
    victim = read_queries(queries)[0]

    def play(call) -> None:
        if call.said["model"] == "org/A" and victim.prompt in call.prompt:
            call.refuse(400, "maximum context length is 5")
        else:
            answer(call)

    endpoint.play = play
    config = pool(world, endpoint.url)
    with pytest.raises(RefusedError, match=r"^3 calls were refused; .*maximum context length is 5"):
        world.record(config, queries)
    nodes = RouteTree(world.tree).nodes
    # A's answer, A's analysis and both that stand on it, and A's answer after B's analysis.
    assert len(nodes) == NODES - 5
    assert sum(victim.prompt in call.prompt for call in endpoint.calls) == 6
    # All else is scored and encoded, and training leaves the query out.
    assert len(load_outcomes(world.tree, "accuracy").query_ids) == 7
    assert "1 of 8 queries left out" in capfd.readouterr().err
    endpoint.play = answer
    world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == NODES


def test_a_model_that_has_answered_may_refuse_every_call_that_is_left(world, endpoint) -> None:
    queries = world.sample(16)
    victims = [query.prompt for query in read_queries(queries)[7:]]

    def play(call) -> None:
        if any(victim in call.prompt for victim in victims):
            call.refuse(400, "too long")
        else:
            answer(call)

    endpoint.play = play
    config = world.pool(member(world, "A", endpoint.url), member(world, "B", endpoint.url), hops=1)
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"^50 calls were refused"):
            world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == 2 * (32 - 25)


def test_refusals_before_the_money_ends_are_told_and_no_error(
    world, queries, endpoint, said
) -> None:
    victim = read_queries(queries)[0]

    def play(call) -> None:
        if victim.prompt in call.prompt:
            call.refuse(400, "too long {at 5}")
        else:
            call.complete("x", (40, 1))

    endpoint.play = play
    collect_routes(pool(world, endpoint.url), queries, world.tree, max_dollars=0.002)
    told = said.getvalue()
    nodes = len(RouteTree(world.tree).nodes)
    assert 0 < nodes < NODES - 5
    refused = sum(victim.prompt in call.prompt for call in endpoint.calls)
    assert refused == 4  # the answers and analyses of both; nothing can stand on them
    assert "4 calls were refused; neither they" in told
    assert "all others are recorded" not in told
    assert f"{NODES - 8 - nodes} nodes are left" in told


# At full speed.


def test_units_are_asked_together_and_each_is_kept_when_its_last_call_is_done(
    world, queries, endpoint, monkeypatch
) -> None:
    """Eight calls are under way at once, though units have three queries."""
    together, kept = threading.Barrier(8, timeout=60), threading.Event()
    last = read_queries(queries)[-1].prompt
    commit = RouteTree.commit

    def committed(self, name, nodes) -> None:
        commit(self, name, nodes)
        kept.set()

    def play(call) -> None:
        together.wait()
        if last in call.prompt:
            assert kept.wait(60)
        answer(call)

    monkeypatch.setattr(RouteTree, "commit", committed)
    endpoint.play = play
    world.record(world.pool(member(world, "A", endpoint.url), hops=1), queries)
    files = sorted(path.name[:10] for path in (world.tree / "nodes").iterdir())
    assert files == ["00000-hop0", "00001-hop0", "00002-hop0"]
    assert len(RouteTree(world.tree).nodes) == 8


def apart(world, url: str, **more: Any):
    """Two models of two addresses, at which the same server plays both."""
    urls = url, url.replace("127.0.0.1", "localhost")
    members = zip("AB", urls, strict=True)
    return world.pool(*(member(world, name, url, **more) for name, url in members))


def test_models_at_different_addresses_are_asked_side_by_side(world, queries, endpoint) -> None:
    both = threading.Barrier(2, timeout=60)

    def play(call) -> None:
        with endpoint.counting:
            first = len([each for each in endpoint.calls if each.said["model"] == model(call)]) == 1
        if first:
            both.wait()
        answer(call)

    def model(call) -> str:
        return str(call.said["model"])

    endpoint.play = play
    world.record(apart(world, endpoint.url, endpoint={"concurrency": 1}), queries)
    assert len(RouteTree(world.tree).nodes) == len(endpoint.calls) == NODES


def test_side_by_side_or_one_after_another_the_files_are_the_same(world, queries, endpoint) -> None:
    endpoint.play = answer

    def recorded(config, name: str) -> dict[str, list[tuple[Any, str]]]:
        world.tree = world.folder / name
        world.record(config, queries)
        files = sorted((world.tree / "nodes").iterdir())
        return {
            path.name: [(node.place, node.reply) for node in read_nodes(path)] for path in files
        }

    one = recorded(pool(world, endpoint.url, endpoint={"concurrency": 1}), "one")
    assert recorded(apart(world, endpoint.url), "apart") == one


def test_ctrl_c_with_two_servers_takes_what_is_under_way_and_asks_no_more(
    world, queries, endpoint, said
) -> None:
    both = threading.Barrier(2, timeout=60)

    def play(call) -> None:
        if both.wait() == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        said.wait_for("stopping; calls under way are waited for")
        answer(call)

    endpoint.play = play
    config = apart(world, endpoint.url, endpoint={"concurrency": 1})
    with pytest.raises(KeyboardInterrupt):
        world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == len(endpoint.calls) == 2
    endpoint.play = answer
    world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == len(endpoint.calls) == NODES


def test_a_wrong_key_stops_the_other_servers_too(world, queries, endpoint) -> None:
    both = threading.Barrier(2, timeout=60)

    def play(call) -> None:
        if len(endpoint.calls) <= 2:
            both.wait()
        call.refuse(401) if call.said["model"] == "org/A" else answer(call)

    endpoint.play = play
    with pytest.raises(HierRouterError, match="401: no"):
        world.record(apart(world, endpoint.url, endpoint={"concurrency": 1}), queries)
    assert len(endpoint.calls) < 8  # of 16 that B could have answered without A


def test_a_server_that_is_away_holds_up_only_what_needs_it(world, queries, endpoint, said) -> None:
    endpoint.play = lambda c: c.refuse(503) if c.said["model"] == "org/A" else answer(c)
    config = pool(world, endpoint.url)
    with pytest.raises(UnreachableError, match=r"refused the call \(503.*\(40 nodes are left\)$"):
        world.record(config, queries)
    nodes = RouteTree(world.tree).nodes
    assert {(place.models, place.role) for place in nodes} == {
        (("B",), "solve"),
        (("B",), "analyze"),
        (("B", "B"), "solve"),
    }
    assert len(nodes) == 3 * 8
    assert "A is left for now; what others can do goes on" in said.getvalue()
    endpoint.play = answer
    before = asked(endpoint)
    world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == NODES
    assert not (asked(endpoint) - before).keys() & {key for key in before if key[0] == "org/B"}


def test_a_server_that_answered_and_then_talks_nonsense_holds_up_only_what_needs_it(
    world, queries, endpoint, said
) -> None:
    good = Counter[str]()

    def play(call) -> None:
        model = call.said["model"]
        if model == "org/A" and good[model] == 5:
            call.answer("<html>Back soon</html>", kind="text/html")
        else:
            good[model] += 1
            answer(call)

    endpoint.play = play
    config = pool(world, endpoint.url, endpoint={"concurrency": 1})
    with pytest.raises(UnreachableError, match=r"no chat completion .*\(32 nodes are left\)$"):
        world.record(config, queries)
    # Three analyses and two answers of A, what B makes without it, and what it makes of the three.
    assert len(RouteTree(world.tree).nodes) == 3 + 2 + 3 * 8 + 3
    assert "A is left for now; what others can do goes on" in said.getvalue()
    endpoint.play = answer
    world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == NODES


# A store that fails.


@pytest.fixture
def store(monkeypatch, tmp_path) -> list[str]:
    """An object store; puts of files of nodes fail while there are reasons, the first each time."""
    from fsspec.implementations.memory import MemoryFileSystem

    reasons: list[str] = []
    put = MemoryFileSystem.put_file

    def failing(self, source, target, **more) -> None:
        if "/nodes/" in target and reasons:
            raise OSError(reasons.pop(0))
        put(self, source, target, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "home"))
    return reasons


@pytest.mark.parametrize("made", [pool, apart])
def test_replies_that_the_store_does_not_take_are_not_paid_for_again(
    world, queries, endpoint, store, said, made
) -> None:
    endpoint.play = answer
    config = made(world, endpoint.url)
    world.tree = folder_at(f"memory://trees/{made.__name__}")
    store.append("the store is away")
    with pytest.raises(UnreachableError, match="the store is away"):
        world.record(config, queries)
    assert "replies could not be added to the tree and are kept in" in said.getvalue()
    kept = list((world.folder / "home" / "unsaved").rglob("*.parquet"))
    assert sum(len(read_nodes(path)) for path in kept) + len(RouteTree(world.tree).nodes) == len(
        endpoint.calls
    )
    world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == NODES
    assert set(asked(endpoint).values()) == {1}
    assert not list((world.folder / "home" / "unsaved").rglob("*.parquet"))


def test_a_server_that_counts_far_more_than_estimated_exceeds_no_budget_but_by_its_first_calls(
    world, queries, endpoint
) -> None:
    endpoint.play = lambda call: call.complete("x", (4000, 1))
    config = pool(world, endpoint.url)
    collect_routes(config, queries, world.tree, max_dollars=0.05)
    nodes = RouteTree(world.tree).nodes
    cost = sum(0.001 * (node.tokens_in + node.tokens_out) / 1000 for node in nodes.values())
    assert len(nodes) == 12
    assert cost == pytest.approx(12 * 4.001e-3)


def test_members_of_one_served_model_share_what_its_first_calls_show(
    world, queries, endpoint
) -> None:
    endpoint.play = lambda call: call.complete("x", (4000, 1))
    steps = member(world, "B", endpoint.url, model="org/A", instruction="Think.")
    config = world.pool(member(world, "A", endpoint.url), steps)
    collect_routes(config, queries, world.tree, max_dollars=0.05)
    assert {place.models for place in RouteTree(world.tree).nodes} >= {("A",), ("B",)}
    assert len(endpoint.calls) == 12  # of 4.001e-3 dollars


@pytest.mark.parametrize("made", [pool, apart])
def test_a_budget_holds_for_all_servers_together(world, queries, endpoint, made) -> None:
    endpoint.play = lambda call: call.complete("x", (40, 8))
    config = made(world, endpoint.url, limits=TokenLimits(solve=8, analyze=8))

    def spent() -> float:
        nodes = RouteTree(world.tree).nodes.values()
        return sum(0.001 * (node.tokens_in + node.tokens_out) / 1000 for node in nodes)

    collect_routes(config, queries, world.tree, max_dollars=0.001)
    assert 0.0008 < spent() <= 0.001
    assert len(RouteTree(world.tree).nodes) == len(endpoint.calls)
    collect_routes(config, queries, world.tree, max_dollars=1.0)
    assert len(RouteTree(world.tree).nodes) == NODES
    assert set(asked(endpoint).values()) == {1}


def test_a_server_that_moves_is_the_same_model_and_a_new_revision_is_not(
    world, queries, endpoint
) -> None:
    endpoint.play = answer
    world.record(pool(world, endpoint.url), queries)
    count = len(endpoint.calls)
    assert count == NODES
    moved = {"served_name": "renamed", "concurrency": 2, "api_key_env": "ANY"}
    world.record(pool(world, "http://moved.invalid/v1", endpoint=moved), queries)
    assert len(endpoint.calls) == count
    with pytest.raises(ConfigError, match="recorded with other weights of model A"):
        world.record(pool(world, endpoint.url, revision="2"), queries)
    assert len(endpoint.calls) == count


# The real thing.


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()  # without one it cannot list its models
    server = Served(tiny_model, home)
    try:
        yield server
    finally:
        server.stop()


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asking = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asking) as answered:
        return json.load(answered)


def test_transformers_serve_is_recorded_as_the_same_model_here_is(
    world, tiny_model: Path, served: Served
) -> None:
    """Replies, their ends and their counts are those of the same weights in this process."""
    assert get(served.url.replace("/v1", "/health")) == {"status": "ok"}
    config = DataConfig(source="scripted", tasks=["x"], queries_per_task=3, train_share=0.5)
    queries = sample_queries(config, world.folder / "queries")
    both = {"model": str(tiny_model), "limits": TokenLimits(solve=3, analyze=2)}

    def of(first: ModelSpec, second: ModelSpec) -> Any:
        return world.pool(first, second, prompts=Prompts(max_context_tokens=1500))

    def at(url: str) -> Any:
        return of(
            member(world, "terse", url, **both),
            member(world, "long", url, instruction="Think.", **both),
        )

    nodes = RouteTree(world.record(at(served.url), queries)).nodes
    assert len(nodes) == 3 * 8
    # Nothing is asked again: nobody could answer.
    world.record(at("http://nowhere.invalid/v1"), queries)

    world.tree = world.folder / "local"
    here = {"backend": "transformers", "dtype": "float32", "scripted": None, **both}
    local = of(world.model("terse", **here), world.model("long", instruction="Think.", **here))
    expected = RouteTree(world.record(local, queries)).nodes
    for place, node in nodes.items():
        same = expected[place]
        assert (node.reply, node.finish_reason) == (same.reply, same.finish_reason)
        assert (node.tokens_in, node.tokens_out) == (same.tokens_in, same.tokens_out)


def test_counts_are_those_that_transformers_serve_reports(
    world, tiny_model: Path, served: Served
) -> None:
    spec = member(world, "tiny", served.url, model=str(tiny_model))
    backend = OpenAIBackend(spec)
    (made,) = backend.generate(["How many?"], [4])
    assert backend.listed_models() == []  # it lists what lies in its cache, not what it runs
    backend.close()
    body = {"model": str(tiny_model), "max_tokens": 4, "temperature": 0}
    message = {"role": "user", "content": "How many?"}
    told = get(f"{served.url}/chat/completions", {**body, "messages": [message]})
    usage = told["usage"]
    assert (made.tokens_in, made.tokens_out) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert made.reply == told["choices"][0]["message"]["content"].strip()


def test_another_model_than_the_served_one_is_refused_with_the_remedy(world, served) -> None:
    backend = OpenAIBackend(member(world, "other", served.url, model="org/other"))
    with pytest.raises(HierRouterError, match=r"pinned to .*; set endpoint\.served_name to what"):
        backend.generate(["hi"], [3])
    backend.close()


# What was answered is kept, whatever else fails.


@pytest.fixture
def partly(world, queries, endpoint):
    """A pool that refuses a call of each of three units, and how many nodes it then has."""
    sampled = read_queries(queries)
    numbers = unit_numbers(sampled, 3)
    victims = {numbers[query.query_id]: query.prompt for query in sampled}.values()
    endpoint.play = lambda c: (
        c.refuse(400, "too long") if any(each in c.prompt for each in victims) else answer(c)
    )
    assert len(victims) == 3
    return world.pool(member(world, "A", endpoint.url), hops=1), len(sampled) - len(victims)


def test_ctrl_c_while_answers_are_committed_loses_none(world, queries, partly, monkeypatch) -> None:
    config, answered = partly
    commit = RouteTree.commit
    committed: list[int] = []

    def interrupted(self, name, nodes) -> None:
        commit(self, name, nodes)
        committed.append(len(nodes))
        if len(committed) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RouteTree, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.record(config, queries)
    assert len(committed) == 3
    assert sum(committed) == len(RouteTree(world.tree).nodes) == answered


def test_a_unit_that_fails_in_any_way_loses_no_other(world, queries, partly, monkeypatch) -> None:
    config, answered = partly
    add = Commits.add
    lost: list[int] = []

    def odd(self, name, nodes) -> bool:
        if lost:
            return add(self, name, nodes)
        lost.append(len(nodes))
        raise ArithmeticError("odd")

    monkeypatch.setattr(Commits, "add", odd)
    with pytest.raises(ArithmeticError, match="odd"):
        world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == answered - lost[0]


@pytest.mark.parametrize("kind", ["no room", "odd"])
def test_replies_that_cannot_even_be_put_are_not_paid_for_again(
    world, queries, endpoint, store, said, monkeypatch, kind
) -> None:
    """Whatever keeps a unit from its store: temporary files without a folder, an error of ours."""
    world.tree = folder_at(f"memory://trees/{kind}")
    config = pool(world, endpoint.url)
    put, write = NodeStore.append, tempfile.tempdir

    def fail(self, name, nodes) -> None:
        if kind == "odd":
            raise ArithmeticError("odd")
        monkeypatch.setattr(tempfile, "tempdir", str(world.folder / "none"))
        put(self, name, nodes)

    endpoint.play = answer
    monkeypatch.setattr(NodeStore, "append", fail)
    with pytest.raises(HierRouterError, match=r"did not take .*odd|cannot keep a copy of"):
        world.record(config, queries)
    assert "replies could not be added to the tree and are kept in" in said.getvalue()
    monkeypatch.setattr(NodeStore, "append", put)
    monkeypatch.setattr(tempfile, "tempdir", write)
    world.record(config, queries)
    assert len(RouteTree(world.tree).nodes) == NODES
    assert set(asked(endpoint).values()) == {1}

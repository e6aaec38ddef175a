"""Playing and training on a tree that is filled when episodes get there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hierrouter.config import DataConfig, PoolConfig, TrainingConfig
from hierrouter.data.queries import read_queries
from hierrouter.data.sample import sample_queries
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.learning.actions import SOLVE
from hierrouter.learning.contexts import FilledContexts, RecordedContexts
from hierrouter.learning.environment import Game, RouteEnv, TreeVecEnv
from hierrouter.learning.train import is_trained, train_router
from hierrouter.pool.scripted import ScriptedBackend
from hierrouter.routes.calls import Part
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.fill import Filler, filling
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNIT = 0.01
DIRECT = Part(direct=True)


def scripted_pool(models: int = 3, hops: int = 3) -> PoolConfig:
    skills = [
        {"solve_otherwise": 0.1 + 0.8 * k / models, "words": 6, "reads_marker": "jade"}
        for k in range(models)
    ]
    specs = [
        {
            "name": f"m{k}",
            "model": "x",
            "backend": "scripted",
            "base_rate": 0.001 * (k + 1),
            "scripted": skill,
        }
        for k, skill in enumerate(skills)
    ]
    encoder = {"model": "hashing", "dimensions": 16}
    return PoolConfig.model_validate({"models": specs, "hops": hops, "encoder": encoder})


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Records a tree of some scripted queries: all of it, or its direct answers."""

    def recorded(part: Part = DIRECT, name: str = "tree", count: int = 6, **pool: Any) -> Path:
        data = DataConfig(source="scripted", tasks=["x", "y"], queries_per_task=count)
        queries = sample_queries(data, tmp_path / f"queries{count}")
        return collect_routes(scripted_pool(**pool), queries, tmp_path / name, part)

    return recorded


def filled(filler: Filler, tree: Path) -> FilledContexts:
    return FilledContexts(filler, load_outcomes(tree, "accuracy", moves="direct"), same, UNIT, 1)


def same(queries: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Both: a context without its query would be told from the recorded one."""
    return np.concatenate([queries, contexts], axis=-1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Each batch that a model was given: its name and the prompts."""
    batches: list[tuple[str, list[str]]] = []
    generate = ScriptedBackend.generate

    def noting(self, prompts, limits, on_reply=None):
        batches.append((self._spec.name, list(prompts)))
        return generate(self, prompts, limits, on_reply)

    monkeypatch.setattr(ScriptedBackend, "generate", noting)
    return batches


def steps_of(game: Game, slots: int, steps: int, seed: int = 3):
    """What an environment says while random allowed actions are taken."""
    env = TreeVecEnv(game, slots, seed)
    choose = np.random.default_rng(7)
    yield env.reset(), env.action_masks(), None, None, None
    for _ in range(steps):
        masks = env.action_masks()
        actions = np.where(masks, choose.random(masks.shape), -1).argmax(axis=1)
        seen, reward, ended, infos = env.step(actions)
        yield seen, env.action_masks(), reward, ended, infos


# The environment


@pytest.mark.parametrize("moves", ["paper", "early_exit"])
@pytest.mark.parametrize("part", [Part(), DIRECT], ids=["recorded", "filled"])
def test_filled_on_demand_the_game_is_the_recorded_one(record, moves, part) -> None:
    outcomes = load_outcomes(record(Part(), "whole"), "accuracy")
    dense = Game(RecordedContexts(outcomes, outcomes.states(same), UNIT), moves, 0.1, 0.5, 0.3)
    tree = record(part)
    with filling(tree, "accuracy", "paper") as filler:
        lazy = Game(filled(filler, tree), moves, 0.1, 0.5, 0.3)
        for one, two in zip(steps_of(dense, 5, 120), steps_of(lazy, 5, 120), strict=True):
            for mine, other in zip(one[:4], two[:4], strict=True):
                np.testing.assert_array_equal(mine, other)
            for mine, other in zip(one[4] or [], two[4] or [], strict=True):
                assert mine.keys() == other.keys()
                for key in mine:
                    np.testing.assert_array_equal(mine[key], other[key])
        assert (filler.made == 0) == (part == Part())


def test_each_model_is_asked_once_a_step_for_what_is_new(record, asked) -> None:
    tree = record()
    asked.clear()
    with filling(tree, "accuracy", "paper") as filler:
        contexts = filled(filler, tree)
        env = TreeVecEnv(Game(contexts, "early_exit", 0.0, 0.5), 40, seed=0)
        env.reset()
        choose = np.random.default_rng(1)
        visited: set[tuple[int, int]] = set()
        generated = 0
        for _ in range(12):
            masks = env.action_masks()
            actions = np.where(masks, choose.random(masks.shape), -1).argmax(axis=1)
            deep = (contexts.depth[env._row] > 0) | (actions % 2 != SOLVE)
            edges = set(zip(env._row[deep].tolist(), actions[deep].tolist(), strict=True))
            new = edges - visited
            visited |= edges
            asked.clear()
            env.step(actions)
            names = [name for name, _ in asked]
            assert len(names) == len(set(names)) <= 3
            # Fewer where what is asked in two contexts reads the same.
            assert sum(len(prompts) for _, prompts in asked) <= len(new)
            generated += sum(len(prompts) for _, prompts in asked)
        assert filler.made == len(visited)
        # One file a step at most, whatever the number of models and episodes.
        assert len(list((tree / "nodes").glob("fill-*"))) <= 12
    assert len(RouteTree(tree).nodes) == 12 * 3 + len(visited)
    assert len(keys_of(tree)) == 12 * 3 + generated
    # Closed, the tree has scores and vectors of all of it.
    assert read_scores(tree)[1].keys() == RouteTree(tree).nodes.keys()


def test_nothing_is_generated_twice_whoever_plays(record, asked) -> None:
    tree = record()

    def play(seed: int, slots: int) -> int:
        """How many prompts playing takes."""
        asked.clear()
        with filling(tree, "accuracy", "paper") as filler:
            for _ in steps_of(Game(filled(filler, tree), "paper", 0.0, 0.5), slots, 20, seed):
                pass
        return sum(len(prompts) for _, prompts in asked)

    generated = [play(seed, slots) for seed, slots in ((0, 4), (1, 7), (0, 4), (1, 7))]
    assert generated[0] > 0 < generated[1]
    assert generated[2:] == [0, 0]
    assert len(keys_of(tree)) == 12 * 3 + sum(generated)


@pytest.mark.filterwarnings("ignore:.*infinity.*")
def test_gymnasium_accepts_it(record) -> None:
    tree = record()
    with filling(tree, "accuracy", "paper") as filler:
        game = Game(filled(filler, tree), "early_exit", 0.0, 0.5)
        dense = load_outcomes(record(Part(), "whole"), "accuracy")
        other = Game(RecordedContexts(dense, dense.states(same), UNIT), "early_exit", 0.0, 0.5)
        assert game.action_space() == other.action_space()
        assert game.observation_space().shape == other.observation_space().shape
        check_env(RouteEnv(game), skip_render_check=True)


def test_two_part_view(record) -> None:
    outcomes = load_outcomes(record(Part(), "whole"), "accuracy", "two_part")
    dense = RecordedContexts(outcomes, outcomes.states(same), UNIT)
    tree = record()
    with filling(tree, "accuracy", "two_part") as filler:
        direct = load_outcomes(tree, "accuracy", "two_part", "direct")
        lazy = FilledContexts(filler, direct, same, UNIT, 1)
        for one, two in zip(
            steps_of(Game(dense, "paper", 0, 0.5), 4, 30),
            steps_of(Game(lazy, "paper", 0, 0.5), 4, 30),
            strict=True,
        ):
            np.testing.assert_array_equal(one[0], two[0])


# Training


def bytes_of(router: Path) -> bytes:
    return (router / "router.safetensors").read_bytes()


def test_on_a_whole_tree_filling_trains_the_same_router(record, recipe, tmp_path: Path) -> None:
    tree = record(Part())
    # A regression would see the hops of the one, and of the other the direct answers alone.
    config = recipe(iterations=3, start="nothing")
    train_router(config, tree, tmp_path / "one")
    train_router(config.model_copy(update={"fill": True}), tree, tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_training_again_generates_nothing_and_gives_the_same_router(
    record, recipe, asked, tmp_path: Path
) -> None:
    tree = record()
    config = recipe(iterations=3, projection=8, fill=True)
    asked.clear()
    train_router(config, tree, tmp_path / "one")
    assert asked
    assert is_trained(config, tree, tmp_path / "one")
    asked.clear()
    train_router(config, tree, tmp_path / "two")
    assert asked == []
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    # Another seed goes elsewhere, and the first router is still this tree's.
    train_router(config.model_copy(update={"seed": 1}), tree, tmp_path / "three")
    assert asked
    assert is_trained(config, tree, tmp_path / "one")
    assert not is_trained(config.model_copy(update={"seed": 1}), tree, tmp_path / "one")


def keys_of(tree: Path) -> set[str]:
    return {node.key for node in RouteTree(tree).nodes.values()}


def test_what_was_committed_before_a_failure_is_used(
    record, recipe, asked, monkeypatch, tmp_path: Path
) -> None:
    config = recipe(iterations=3, projection=8, fill=True)
    tree, undisturbed = record(), record(name="undisturbed")
    asked.clear()
    train_router(config, undisturbed, tmp_path / "one")
    total = sum(len(prompts) for _, prompts in asked)
    complete, left = ScriptedBackend._complete, [total // 2]

    def failing(self, prompt, limit):
        left[0] -= 1
        if left[0] == 0:
            raise HierRouterError("the line went dead")
        return complete(self, prompt, limit)

    monkeypatch.setattr(ScriptedBackend, "_complete", failing)
    with pytest.raises(HierRouterError, match="went dead"):
        train_router(config, tree, tmp_path / "two")
    kept = keys_of(tree)
    assert 0 < len(kept) < len(keys_of(undisturbed))
    asked.clear()
    train_router(config, tree, tmp_path / "two")
    # Only what is missing, each once; the failed batch had to be asked for again.
    prompts = sum(len(prompts) for _, prompts in asked)
    assert prompts == len(keys_of(tree) - kept)
    assert keys_of(tree) == keys_of(undisturbed)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_budget_stops_training_and_the_next_goes_on(record, recipe, asked, tmp_path) -> None:
    config = recipe(iterations=2, projection=8, fill=True)
    tree, unlimited = record(), record(name="unlimited")
    before = len(RouteTree(tree).nodes)
    train_router(config, unlimited, tmp_path / "one")

    def spent(folder: Path) -> float:
        # Nodes that share a generation were paid for once.
        scores, nodes = read_scores(folder)[1], RouteTree(folder).nodes
        return sum({node.key: scores[place].cost for place, node in nodes.items()}.values())

    budget = (spent(unlimited) - spent(tree)) / 2.5
    for _ in range(2):
        held, paid = len(RouteTree(tree).nodes), spent(tree)
        with pytest.raises(HierRouterError, match=r"--max-dollars .*the same command goes on"):
            train_router(config, tree, tmp_path / "two", budget)
        assert len(RouteTree(tree).nodes) > held
        assert 0 < spent(tree) - paid <= budget
    assert not (tmp_path / "two" / "router.json").exists()
    train_router(config, tree, tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert keys_of(tree) == keys_of(unlimited)
    assert before < len(RouteTree(tree).nodes)


def test_ten_models_and_four_hops(record, recipe, tmp_path: Path) -> None:
    tree = record(count=20, models=10, hops=4)
    config = recipe(iterations=4, rollouts=64, projection=8, fill=True)
    train_router(config, tree, tmp_path / "router")
    transitions = 4 * 64 * 8
    nodes = len(RouteTree(tree).nodes) - 40 * 10
    # At most what episodes visited, beside the routes that the projection is fitted on and the
    # validation queries' own; the whole tree has 12,220 nodes a query.
    train = sum(query.split == "train" for query in RouteTree(tree).queries)
    assert 0 < nodes <= transitions + 3 * train + 4 * 6 * train


def test_rows_are_made_for_visited_contexts_only(record) -> None:
    tree = record(count=20, models=10, hops=4)
    with filling(tree, "accuracy", "paper") as filler:
        contexts = filled(filler, tree)
        for _ in steps_of(Game(contexts, "paper", 0.0, 0.5), 30, 40):
            pass
        visited = len(contexts._path)
        assert visited <= 40 + 30 * 40
        assert len(contexts.depth) <= max(2 * visited, 40)
        assert contexts.depth[:visited].max() == 3


# Calls that a model refuses


@pytest.fixture
def served(endpoint: Any, tmp_path: Path) -> Callable[[int], Path]:
    """Records the direct answers of an endpoint's two models, to be filled.

    The endpoint refuses as too long what stands on an analysis of the first so many queries.
    """

    def recorded(refused: int) -> Path:
        data = DataConfig(source="scripted", tasks=["x", "y"], queries_per_task=12)
        folder = sample_queries(data, tmp_path / "queries")
        long = [query.prompt for query in read_queries(folder)[:refused]]

        def play(call: Any) -> None:
            if "pondered" in call.prompt and any(text in call.prompt for text in long):
                call.refuse(400, "longer than the window")
            else:
                call.complete(f"pondered {len(call.prompt)}. Answer: 7")

        endpoint.play = play
        models = [
            {
                **{"name": name, "model": name, "backend": "openai", "base_rate": 0.001},
                "endpoint": {"url": endpoint.url},
            }
            for name in "AB"
        ]
        encoder = {"model": "hashing", "dimensions": 16}
        pool = PoolConfig.model_validate({"models": models, "hops": 3, "encoder": encoder})
        return collect_routes(pool, folder, tmp_path / "tree", DIRECT)

    return recorded


@pytest.mark.parametrize("refused", [6, 24], ids=["some", "all"])
def test_training_ends_though_calls_are_refused(served, recipe, tmp_path, capfd, refused) -> None:
    tree = served(refused)
    config = recipe(iterations=3, projection=8, fill=True)
    train_router(config, tree, tmp_path / "one")
    said = capfd.readouterr().err
    assert "each counts as a wrong answer (" in said
    assert "longer than the window" in said
    long = {query.query_id for query in RouteTree(tree).queries[:refused]}
    deep = {place.query_id for place in RouteTree(tree).nodes if len(place.models) > 1}
    assert deep.isdisjoint(long)
    assert bool(deep) == (refused < 24)
    train_router(config, tree, tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_refused_call_is_a_wrong_answer_at_the_price_of_a_direct_one(served, endpoint) -> None:
    tree = served(1)
    with filling(tree, "accuracy", "paper") as filler:
        contexts = filled(filler, tree)
        root, one, yes = np.array([0]), np.array([1]), np.array([True])
        contexts.reach(root, one, ~yes)
        first = contexts.child[root, one]
        contexts.reach(first, one, yes)
        assert contexts.quality[first, one] == 0.0
        assert contexts.price[first, one] == contexts.price[root, one]
        # So is every answer after an analysis that was refused, and that asks for nothing.
        contexts.reach(first, one, ~yes)
        second = contexts.child[first, one]
        assert contexts.depth[second] == 2
        assert contexts.spent[second] == contexts.spent[first] > 0
        asked = len(endpoint.calls)
        contexts.reach(second, one, yes)
        assert contexts.quality[second].tolist() == [[0.0, 0.0]]
        np.testing.assert_array_equal(contexts.price[second], contexts.price[root])
        # What was refused once is not asked for again in this run.
        filled(filler, tree).reach(root, one, ~yes)
        assert len(endpoint.calls) == asked


# What is refused


def test_filling_makes_no_sense_of_direct_answers() -> None:
    with pytest.raises(ValueError, match="moves: direct makes none"):
        TrainingConfig(fill=True, moves="direct")


def test_a_budget_without_calls_is_refused(record, recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-dollars.*training\.fill=true"):
        train_router(recipe(), record(Part()), tmp_path / "router", 1.0)


def test_a_tree_without_direct_answers_is_refused(record, recipe, tmp_path: Path) -> None:
    tree = record(Part(per_task=0, direct=True))
    with pytest.raises(HierRouterError, match="finish"):
        train_router(recipe(fill=True), tree, tmp_path / "router")

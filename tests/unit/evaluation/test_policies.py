"""Every policy against values worked out by hand or by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from tests.routers import arbitrary_info, arbitrary_policy

from hierrouter.evaluation.policies.arena import Contender
from hierrouter.evaluation.policies.play import play_all as play_every
from hierrouter.evaluation.policies.play import play_contender
from hierrouter.learning.router import Router


def play_all(arena, alpha):
    """One result a policy: with a single training seed there is one."""
    return {name: only for name, (only,) in play_every(arena, alpha).items()}


@pytest.mark.parametrize("moves", ["paper", "early_exit"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_random_is_the_expectation_over_every_draw(make_outcomes, make_arena, moves, hops):
    outcomes = make_outcomes(n=6, models=3, hops=hops)
    arena = make_arena(outcomes, moves)
    test = arena.test

    def play(row, context, hop):
        """Expected quality and cost from here on, by walking through every draw."""
        last = hop == hops - 1
        roles = ["solve"] if last else ["analyze"] if moves == "paper" else ["analyze", "solve"]
        quality = cost = 0.0
        for model in range(3):
            for role in roles:
                if role == "solve":
                    gained = test.solve_quality[row, context, model]
                    paid = test.solve_cost[row, context, model]
                else:
                    gained, paid = play(row, int(test.child[context, model]), hop + 1)
                    paid += test.analyze_cost[row, context, model]
                quality += gained / (3 * len(roles))
                cost += paid / (3 * len(roles))
        return quality, cost

    got = play_all(arena, 0.1)["random"]
    expected = np.array([play(row, 0, 0) for row in range(len(test))])
    np.testing.assert_allclose(got.quality, expected[:, 0])
    np.testing.assert_allclose(got.cost, expected[:, 1])
    assert sum(got.shares().values()) == pytest.approx(1)


@pytest.mark.parametrize(("alpha", "name"), [(0.0, "B"), (0.1, "B"), (1.0, "A")])
def test_best_single_is_chosen_on_train_at_that_alpha(make_direct, make_arena, alpha, name):
    # On train A: quality .5, cost .1; B: quality 1, cost 1. On test A is better at every alpha.
    arena = make_arena(
        make_direct([[1, 1], [0, 1], [1, 0], [1, 0]], [[0.1, 1.0]] * 4, train=2),
    )
    played = play_all(arena, alpha)
    for policy in ("best_single", "best_path", "best_single_per_task", "best_path_per_task"):
        assert played[policy].shares() == {name: 1.0}
        assert played[policy].quality.tolist() == ([1, 1] if name == "A" else [0, 0])


def test_the_cost_unit_scales_what_cost_weighs(make_direct, make_arena):
    outcomes = make_direct([[0, 1], [0, 1]], [[0.1, 1.0]] * 2, train=1)
    assert play_all(make_arena(outcomes, unit=1.0), 1.5)["best_single"].shares() == {"A": 1.0}
    assert play_all(make_arena(outcomes, unit=10.0), 1.5)["best_single"].shares() == {"B": 1.0}


def test_equal_on_train_the_cheaper_is_taken(make_direct, make_arena):
    outcomes = make_direct([[1, 1], [1, 0]], [[1.0, 0.5]] * 2, train=1)
    assert play_all(make_arena(outcomes), 0.0)["best_single"].shares() == {"B": 1.0}


def test_per_task_takes_each_tasks_best_and_falls_back_where_a_task_is_new(make_direct, make_arena):
    outcomes = replace(
        make_direct(
            [[1, 0], [0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0]], [[1.0, 1.0]] * 7, train=4
        ),
        tasks=np.array(["x", "y", "y", "y", "x", "y", "new"]),
    )
    played = play_all(make_arena(outcomes), 0.1)
    best = played["best_single_per_task"]
    assert [best.routes[k] for k in best.taken] == ["A", "B", "B"]  # overall B is best on train
    assert best.quality.tolist() == [1, 0, 0]
    assert best.shares(np.array([True, True, False])) == {"A": 0.5, "B": 0.5}


def test_oracle_takes_the_best_reward_and_among_equals_the_cheapest(make_direct, make_arena):
    outcomes = make_direct(
        [[1, 1], [0, 0], [1, 1], [0, 1], [0.3, 0.8]],
        [[1, 1], [0.3, 0.2], [0.3, 0.2], [0.1, 0.9], [0.2, 1.2]],
        train=1,
    )
    arena = make_arena(outcomes)
    free = play_all(arena, 0.0)["oracle"]
    assert [free.routes[k] for k in free.taken] == ["B", "B", "B", "B"]
    # At alpha .5 the last is a tie of .2 each, but for rounding (.19999999999999998 and
    # .20000000000000007): A is cheaper.
    assert 0.3 - 0.5 * 0.2 < 0.8 - 0.5 * 1.2
    half = play_all(arena, 0.5)["oracle"]
    assert [half.routes[k] for k in half.taken] == ["B", "B", "B", "A"]
    dear = play_all(arena, 2.0)["oracle"]
    assert [dear.routes[k] for k in dear.taken] == ["B", "B", "A", "A"]


@pytest.mark.parametrize("moves", ["paper", "early_exit"])
def test_nothing_beats_the_oracle_over_the_same_routes(make_outcomes, make_arena, moves):
    arena = make_arena(make_outcomes(n=60, models=3), moves)
    for alpha in (0.0, 0.1, 1.0):
        played = play_all(arena, alpha)
        best = played["oracle"].quality - alpha * played["oracle"].cost
        for name in ("router", "random", "best_path", "best_path_per_task", "path:A:B"):
            assert (played[name].quality - alpha * played[name].cost <= best + 1e-9).all()


@pytest.mark.parametrize("moves", ["paper", "early_exit"])
def test_singles_and_paths_are_what_was_recorded(make_outcomes, make_arena, moves):
    outcomes = make_outcomes()
    arena = make_arena(outcomes, moves)
    played = play_all(arena, 0.1)
    test = arena.test
    named = [name for name in played if name.startswith(("single:", "path:"))]
    assert named == ["single:A", "single:B", "path:A:A", "path:A:B", "path:B:A", "path:B:B"]
    np.testing.assert_array_equal(played["single:B"].cost, test.solve_cost[:, 0, 1])
    # Context 2 is the query with B's analysis.
    np.testing.assert_array_equal(played["path:B:A"].quality, test.solve_quality[:, 2, 0])
    np.testing.assert_allclose(
        played["path:B:A"].cost, test.analyze_cost[:, 0, 1] + test.solve_cost[:, 2, 0]
    )


def test_references_stand_beside_the_pool(make_outcomes, make_arena):
    outcomes = make_outcomes(n=3)
    assert "reference:big" not in play_all(make_arena(outcomes), 0.1)
    outcomes = replace(
        outcomes,
        references=("big",),
        reference_quality=np.array([[0.0], [0.0], [1.0]]),
        reference_cost=np.array([[1.0], [1.0], [7.0]]),
    )
    played = play_all(make_arena(outcomes), 0.1)["reference:big"]
    assert (played.quality.tolist(), played.cost.tolist()) == ([1.0], [7.0])
    assert played.shares() == {"big": 1.0}


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_a_router_expects_what_its_heads_say_of_its_first_call(make_outcomes, make_arena, alpha):
    blank = make_outcomes(n=12, models=2, hops=2)
    rng = np.random.default_rng(0)
    outcomes = replace(blank, embeddings=rng.normal(size=(12, 3, 5)).astype(np.float32))
    policy = arbitrary_policy(5, 2, 2, seed=3)
    router = Router(arbitrary_info(("A", "B"), 2, policy, moves="early_exit"), policy)
    contender = Contender("router", (router,), "early_exit", 2)
    (played,) = play_contender(contender, outcomes, alpha)
    query = outcomes.embeddings[:, 0]
    state = policy.state(query, query).astype(float)
    for row, column in enumerate(played.taken):
        path = outcomes.routes("early_exit").paths[column]
        call = 2 * path[0] + (len(path) == 1)  # an answer, or an analysis and what follows
        quality, cost = (state[row] @ head[0, call] for head in (policy.quality, policy.cost))
        assert played.predicted[row] == pytest.approx(quality - alpha * cost, abs=1e-5)
    mlp = arbitrary_policy(5, 2, 2, policy="mlp")
    silent = Router(arbitrary_info(("A", "B"), 2, mlp, moves="early_exit"), mlp)
    told = play_contender(replace(contender, routers=(silent,)), outcomes, alpha)
    assert told[0].predicted is None

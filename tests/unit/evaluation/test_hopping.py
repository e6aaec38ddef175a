"""Whether a second call pays: worlds in which the answer is known in closed form."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hierrouter.config import EvaluationConfig
from hierrouter.evaluation.hopping import Judged, hopping, mixture
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.policies.arena import Played
from hierrouter.evaluation.policies.play import play_always
from hierrouter.evaluation.statistics.crossed import CROSS_FITTED

CONFIG = EvaluationConfig(bootstrap=200)
UNIT = 2.0
"""Dollars in a cost unit: a direct answer costs 1, a second hop 1 more, half a unit."""
WEIGHTS = {"A": "one", "B": "other"}


@pytest.fixture
def world(make_outcomes):
    """Two models; `right` says of a query (by its number among its task's) what each route gets.

    Routes it does not name get what `rest` says. Each call costs a dollar.
    """

    def of(right, rest=lambda k: 0.0, n=80, cost=(1.0, 1.0), models=2):
        blank = make_outcomes(n, models=models, hops=2)
        number = np.arange(n) // 2
        quality = np.empty_like(blank.solve_quality)
        for row, path in enumerate(blank.contexts):
            for column in range(models):
                name = ":".join(blank.models[step] for step in (*path, column))
                quality[:, row, column] = [right.get(name, rest)(k) for k in number]
        dollars = np.tile(np.array(cost), (n, len(blank.contexts), 1))
        # Folds in which every pattern of four occurs alike.
        return replace(
            blank,
            folds=number // 4 % 5,
            solve_quality=quality,
            solve_cost=dollars,
            analyze_cost=np.ones_like(dollars),
        )

    return of


def test_one_query_says_nothing_and_gets_the_whole_range(world):
    outcomes = world({"A:B": quarters(2)}, n=40)
    tasks = outcomes.tasks.astype("<U8")
    tasks[0] = "alone"
    entry = found_in(replace(outcomes, tasks=tasks))["tasks"]["alone"]
    for name in ("at_cost", "quality_gain"):
        assert (entry[name]["low"], entry[name]["high"]) == (-1, 1)
    # Reward goes as far as quality and the dearest route's price do: 2 dollars, one unit.
    assert (entry["gain"]["low"], entry["gain"]["high"]) == pytest.approx((-1.1, 1.1))
    assert (entry["router_share"]["low"], entry["router_share"]["high"]) == (0, 1)


def every(outcomes, column=0):
    """A router that always takes one route, judged on all queries."""
    table = outcomes.routes("early_exit")
    return Judged((play_always("router", table, column),), np.arange(len(outcomes)))


def found_in(outcomes, weights=WEIGHTS, router=None, moves="early_exit"):
    found = hopping(outcomes, moves, weights, UNIT, router or every(outcomes), CONFIG)
    json.dumps(found, allow_nan=False)
    return found


def quarters(count):
    """Right for so many of every four queries."""
    return lambda k: float(k % 4 < count)


def means(entry, *names):
    return [entry[name]["mean"] for name in names]


def entries(found):
    return [found["all"], *found["tasks"].values()]


def test_a_second_hop_that_helps_only_by_its_tokens(world):
    # Two direct answers of four are right; any route of two calls gets three.
    outcomes = world({"A": quarters(2), "B": quarters(2)}, rest=quarters(3))
    for entry in entries(found_in(outcomes)):
        assert (entry["direct"], entry["two_hop"], entry["same"]) == ("A", "A:A", "A:A")
        # A second call costs half a unit, .05 of reward at alpha .1.
        assert means(entry, "gain", "quality_gain", "at_cost", "same_gain") == pytest.approx(
            [0.2, 0.25, 0.25, 0.2]
        )
        assert entry["mixture_gain"] == {"mean": 0, "low": 0, "high": 0}
        assert entry["gain"]["low"] < 0.2 < entry["gain"]["high"]


def test_a_second_hop_that_helps_only_by_the_mixture(world):
    right = {"A": quarters(2), "B": quarters(1), "A:A": quarters(2), "B:B": quarters(1)}
    outcomes = world(right, rest=quarters(4))
    for entry in entries(found_in(outcomes)):
        assert (entry["direct"], entry["two_hop"], entry["same"]) == ("A", "A:B", "A:A")
        assert means(entry, "gain", "quality_gain", "at_cost") == pytest.approx([0.45, 0.5, 0.5])
        assert means(entry, "same_gain", "mixture_gain") == pytest.approx([-0.05, 0.5])


def test_a_second_hop_that_never_helps_only_costs(world):
    outcomes = world({}, rest=quarters(2))
    for entry in entries(found_in(outcomes)):
        assert means(entry, "gain", "same_gain") == pytest.approx([-0.05, -0.05])
        assert means(entry, "quality_gain", "at_cost", "mixture_gain") == [0, 0, 0]


def test_members_of_the_same_weights_are_no_mixture(world):
    right = {"A": quarters(2), "B": quarters(1), "A:A": quarters(2), "B:B": quarters(1)}
    outcomes = world(right, rest=quarters(4))
    for entry in entries(found_in(outcomes, weights={"A": "one", "B": "one"})):
        assert entry["same"] == "A:B"
        # Against a direct answer of B, which solves.
        assert means(entry, "same_gain") == pytest.approx([0.7])
        assert entry["mixture_gain"] is None


def test_each_task_has_its_own_choice_and_all_together_one(world):
    right = {"A": quarters(4), "B": quarters(2)}
    outcomes = world(right, rest=quarters(3))
    swapped = outcomes.tasks == "b"
    outcomes.solve_quality[swapped, 0] = outcomes.solve_quality[swapped, 0][:, ::-1] * 0.5
    found = found_in(outcomes)
    assert {name: entry["direct"] for name, entry in found["tasks"].items()} == {"a": "A", "b": "B"}
    assert found["all"]["direct"] == "A"
    assert found["tasks"]["a"]["quality_gain"]["mean"] == pytest.approx(-0.25)
    assert found["tasks"]["b"]["quality_gain"]["mean"] == pytest.approx(0.25)
    # Over both: 3 of 4, against 1 in a and half of half in b.
    assert found["all"]["quality_gain"]["mean"] == pytest.approx(0.75 - (1 + 0.25) / 2)


def test_at_its_cost_a_second_hop_is_held_to_a_mix_of_cheap_and_dear_answers(world):
    # A costs 1 and knows nothing, B costs 3 and all; A:A costs 2, and there half of each is .5.
    right = {"A": quarters(0), "B": quarters(4), "A:A": quarters(3)}
    entry = found_in(world(right, cost=(1.0, 3.0)))["all"]
    assert (entry["direct"], entry["two_hop"]) == ("B", "A:A")
    assert means(entry, "quality_gain", "at_cost") == pytest.approx([-0.25, 0.25])
    right["A:A"] = quarters(2)
    entry = found_in(world(right, cost=(1.0, 3.0)))["all"]
    assert means(entry, "quality_gain", "at_cost") == pytest.approx([-0.5, 0.0])


@pytest.mark.parametrize(
    ("budget", "shares"),
    [
        (0.5, [0.5, 0, 0]),  # under the cheapest: half of the queries are answered
        (1, [1, 0, 0]),
        (2, [0.5, 0, 0.5]),
        (2.5, [0.25, 0, 0.75]),
        (3, [0, 0, 1]),
        (9, [0, 0, 1]),
    ],
)
def test_a_mix_takes_the_hull(budget, shares):
    # The middle point lies under the line between the others.
    found = mixture(np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.3, 0.8]), budget)
    assert found == pytest.approx(shares)


def test_free_answers_are_mixed_too():
    assert mixture(np.zeros(2), np.array([0.2, 0.4]), 0.0) == pytest.approx([0, 1])


def test_nothing_is_chosen_on_the_queries_that_it_is_judged_on(make_outcomes):
    # Noise: of 9 routes of two calls one always looks better than the best of 3 direct answers.
    gained = []
    for seed in range(60):
        blank = make_outcomes(60, models=3, hops=2, seed=seed, tasks=("t",))
        outcomes = replace(blank, folds=np.arange(60) % 5)
        for entry in entries(found_in(outcomes)):
            gained.append(means(entry, "quality_gain", "at_cost", "mixture_gain"))
    gained = np.array(gained)
    for each in (gained[::2], gained[1::2]):  # one choice for all tasks, and one for each
        assert np.abs(each.mean(axis=0)).max() < 0.04


def test_what_the_router_takes_of_it(world):
    outcomes = world({"A": quarters(2), "B": quarters(2)}, rest=quarters(3))
    table = outcomes.routes("early_exit")
    half = np.where(np.arange(80) // 2 % 2, table.names.index("B:A"), 0)
    rows = np.arange(80)
    mixed = Played("router", table.quality[rows, half], table.cost[rows, half], table.names, half)
    always = play_always("router", table, table.names.index("A:B"))
    for entry in entries(found_in(outcomes, router=Judged((mixed, always), rows))):
        # Two seeds: one takes two calls for half of the queries, the other for all.
        assert means(entry, "router_share") == pytest.approx([0.75])
        # Odd queries are right by B:A where 1, but not 3, and by A where 1: nothing but cost.
        assert means(entry, "router_gain") == pytest.approx([(-0.025 + 0.2) / 2])
        # Student's interval of two seeds goes beyond all there can be.
        assert (entry["router_share"]["low"], entry["router_share"]["high"]) == (0, 1)


def test_intervals_allow_for_choices_made_on_judged_queries(world, monkeypatch):
    outcomes = world({"A": quarters(2), "B": quarters(2)}, rest=lambda k: float(k % 3 < 2))

    def widths():
        return [
            entry["gain"]["high"] - entry["gain"]["low"] for entry in entries(found_in(outcomes))
        ]

    widened = widths()
    monkeypatch.setattr("hierrouter.evaluation.hopping.CROSS_FITTED", 1.0)
    assert widened == pytest.approx([CROSS_FITTED * width for width in widths()])


def test_the_router_is_judged_on_test_queries_against_what_others_chose(world, make_router):
    outcomes = world({"A": quarters(2), "B": quarters(2)}, rest=quarters(3), n=120)
    router = make_router(outcomes, choose=lambda alpha: 2, cost_unit_usd=UNIT, weights=WEIGHTS)
    found = measure(outcomes, router, CONFIG).metrics["hopping"]
    assert (found["all"]["n"], found["all"]["router_n"]) == (120, 40)
    assert means(found["all"], "router_share", "router_gain") == pytest.approx([1, 0.2])
    none = replace(outcomes, train=outcomes.train | (outcomes.tasks == "b"))
    entry = measure(none, router, CONFIG).metrics["hopping"]["tasks"]["b"]
    assert (entry["router_n"], entry["router_share"], entry["router_gain"]) == (0, None, None)
    assert entry["n"] == 60


def test_few_queries_are_said(world):
    short = found_in(world({}, rest=quarters(2)))["note"]
    assert "fewer than 150 queries of a task (a 40, b 40)" in short
    assert found_in(world({}, rest=quarters(2), n=320))["note"] is None


def test_a_task_of_one_query_has_the_whole_range(world):
    outcomes = world({}, rest=quarters(2))
    tasks = outcomes.tasks.copy()
    tasks[3] = "c"
    entry = found_in(replace(outcomes, tasks=tasks))["tasks"]["c"]
    # The dearest route costs 2, one unit.
    assert (entry["gain"]["low"], entry["gain"]["high"]) == (-1.1, 1.1)
    assert (entry["router_share"]["low"], entry["router_share"]["high"]) == (0, 1)


def test_there_is_no_section_where_there_is_no_second_hop_or_nothing_to_choose_on(
    make_outcomes, make_router, world
):
    assert found_in(world({}).first_hop(), moves="direct") is None
    outcomes = world({})
    assert found_in(replace(outcomes, folds=np.zeros(80, dtype=np.int64))) is None
    assert "hopping" not in measure(make_outcomes(30), make_router(make_outcomes()), CONFIG).metrics


def test_with_the_papers_moves_direct_answers_are_still_what_is_compared_with(world):
    outcomes = world({"A": quarters(2), "B": quarters(2)}, rest=quarters(3))
    router = Judged((play_always("r", outcomes.routes("paper"), 0),), np.arange(80))
    entry = found_in(outcomes, moves="paper", router=router)["all"]
    assert (entry["direct"], entry["two_hop"]) == ("A", "A:A")
    assert means(entry, "gain", "router_share") == pytest.approx([0.2, 1.0])

"""Trade-off, comparisons and conduct of a router whose every number can be worked out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierrouter.evaluation.conduct import (
    calibrations,
    conduct,
    family,
    over_grid,
    too_coarse,
)
from hierrouter.evaluation.headroom import gained
from hierrouter.evaluation.policies.arena import Contender, Played
from hierrouter.evaluation.policies.play import play_all
from hierrouter.evaluation.summary import SAVING, Results, shares
from hierrouter.evaluation.tradeoff.curves import curves_of
from hierrouter.evaluation.tradeoff.marks import Marks, marks_of


class Chosen:
    """Takes the columns it is told, whatever alpha."""

    def __init__(self, taken) -> None:
        self.taken = np.array(taken)

    def follow(self, outcomes, alpha):
        return self.taken


def results_of(make_direct, make_arena, *seeds, alphas=(0.0, 0.1), reference=None, marked=False):
    """40 test queries: A is right on the first half and costs 1, B on the second and costs 3."""
    quality = [[1, 0]] * 4 + [[0, 1]] * 4 + [[1, 0]] * 20 + [[0, 1]] * 20
    outcomes = make_direct(quality, [[1.0, 3.0]] * 48, train=8)
    if reference is not None:
        outcomes = replace(
            outcomes,
            references=("big",),
            reference_quality=np.full((48, 1), reference),
            reference_cost=np.full((48, 1), 6.0),
        )
    arena = make_arena(outcomes)
    routers = tuple(Chosen(seed) for seed in seeds)
    arena = replace(arena, contenders=(Contender("router", routers, "early_exit", 1),))
    plays = {alpha: play_all(arena, alpha) for alpha in alphas}
    results = Results(plays, arena.test.tasks, 1.0, 200, 0.95, 0)
    return (results, [marks_of(arena, np.arange(40))]) if marked else results


PERFECT = [0] * 20 + [1] * 20
ALWAYS_A = [0] * 40


def test_areas_are_over_the_costs_of_single_models(make_direct, make_arena) -> None:
    results, marks = results_of(make_direct, make_arena, PERFECT, marked=True)
    found = curves_of(results, ("A", "B"), marks)
    assert found["range"] == [1.0, 3.0]
    # Single models are both right half of the time: mixing them gives .5 everywhere.
    assert found["aiq"]["zero_router"]["mean"] == pytest.approx(0.5)
    # The router has (2, 1): a line from (0, 0), so .5 at 1 and 1 at 2, then flat.
    assert found["aiq"]["router"]["mean"] == pytest.approx((0.75 + 1) / 2)
    assert found["aiq_differences"]["zero_router"]["mean"] == pytest.approx(0.375)
    assert found["hulls"]["router"] == {"relative_cost": [2.0], "quality": [1.0]}
    assert set(found["aiq"]) == {"router", "zero_router", "knn", "ridge"}


def test_a_curve_over_alpha_begins_where_cost_decides(make_direct, make_arena) -> None:
    results, marks = results_of(make_direct, make_arena, PERFECT, marked=True)
    arena = make_arena(make_direct([[1, 0]] * 24 + [[0, 1]] * 24, [[1.0, 3.0]] * 48, train=8))
    frugal = Contender("router", (Chosen(ALWAYS_A),), "early_exit", 1)
    saving = play_all(replace(arena, contenders=(frugal,)), SAVING)
    found = curves_of(replace(results, saving=saving), ("A", "B"), marks)
    # From A alone at cost 1 to all right at 2: a line between, and no query unanswered below.
    alone = float(saving["router"][0].quality.mean())
    expected = ((alone + 1) / 2 + 1) / 2
    assert found["aiq"]["router"]["mean"] == pytest.approx(expected)
    # The points of an alpha that nobody asked for are in no other figure.
    assert found["recovered"] == curves_of(results, ("A", "B"), marks)["recovered"]
    assert set(results.plays) == {0.0, 0.1}


def test_what_is_recovered_is_of_the_way_from_the_cheapest_to_the_reference(
    make_direct, make_arena
) -> None:
    results, marks = results_of(make_direct, make_arena, PERFECT, reference=0.9, marked=True)
    found = curves_of(results, ("A", "B"), marks)["recovered"]["reference:big"]
    assert found["weak"] == "single:A"
    assert found["pgr"] == {"0": pytest.approx(0.5 / 0.4), "0.1": pytest.approx(0.5 / 0.4)}
    at_half = found["thresholds"][0]
    # From (no calls, .5) to (half of the calls, 1): .7 is reached at a fifth of the calls.
    assert (at_half["level"], at_half["calls"]) == (0.5, pytest.approx(0.2))
    assert at_half["relative_cost"] == pytest.approx(1.4)


def test_without_a_reference_the_best_of_the_pool_is_the_mark(make_direct, make_arena) -> None:
    results, marks = results_of(make_direct, make_arena, PERFECT, marked=True)
    # On train both are as good, and the cheapest is the weak one itself.
    assert curves_of(results, ("A", "B"), marks)["recovered"] == {}
    # What is best is told by the training queries: here B, though test queries do not say so.
    on_train = [replace(marks[0], points={"single:A": (1.0, 0.2), "single:B": (3.0, 0.9)})]
    found = curves_of(results, ("A", "B"), on_train)["recovered"]
    assert set(found) == {"single:B"}
    assert "no gap" in found["single:B"]["reason"]
    # And the cheap one is told by them, too.
    turned = [replace(marks[0], points={"single:A": (3.0, 0.9), "single:B": (1.0, 0.2)})]
    assert curves_of(results, ("A", "B"), turned)["recovered"]["single:A"]["weak"] == "single:B"


def test_what_is_mixed_is_chosen_on_the_training_queries(make_direct, make_arena) -> None:
    results, marks = results_of(make_direct, make_arena, PERFECT, marked=True)
    # B looks useless on train: the zero router is then A alone, and has no luck of the test.
    alone = [replace(marks[0], points={"single:A": (1.0, 0.5), "single:B": (3.0, 0.4)})]
    area = curves_of(results, ("A", "B"), alone)["aiq"]["zero_router"]
    own = results.policies(0.0)["single:A"]["quality"]
    assert area == pytest.approx(own)


def test_areas_that_are_chosen_part_by_part_have_no_interval(make_direct, make_arena) -> None:
    results, (mark,) = results_of(make_direct, make_arena, PERFECT, marked=True)
    parts = [replace(mark, rows=np.arange(20)), replace(mark, rows=np.arange(20, 40))]
    found = curves_of(results, ("A", "B"), parts)
    assert found["aiq"]["zero_router"] == {"mean": pytest.approx(0.5), "low": None, "high": None}
    assert found["aiq_differences"]["zero_router"]["low"] is None
    assert found["aiq"]["router"]["low"] is not None


def test_the_interval_of_an_area_holds_the_truth() -> None:
    """Six models, all right half of the time: any luck in choosing would show."""
    rng = np.random.default_rng(3)
    cost, held, studies = np.linspace(0.2, 1, 6), 0, 300
    tasks = np.array(["t"] * 150)
    names = [f"single:{name}" for name in "ABCDEF"]
    for _ in range(studies):
        quality = rng.integers(0, 2, (6, 450)).astype(np.float64)
        test = np.arange(150)
        plays = {
            name: (Played(name, row[:150], np.full(150, price), (name,), np.zeros(150, int)),)
            for name, row, price in zip(names, quality, cost, strict=True)
        }
        plays["router"] = plays[names[0]]
        mark = Marks(
            test,
            {
                name: (price, float(row[150:].mean()))
                for name, row, price in zip(names, quality, cost, strict=True)
            },
        )
        results = Results({0.0: plays}, tasks, 1.0, 400, 0.95, 0)
        area = curves_of(results, tuple("ABCDEF"), [mark])["aiq"]["zero_router"]
        held += area["low"] <= 0.5 <= area["high"]
    assert 0.92 < held / studies < 0.98


def test_predictions_are_held_against_what_came(make_direct, make_arena) -> None:
    results = results_of(make_direct, make_arena, PERFECT)
    found = calibrations(results, 0.1)
    assert set(found) == {"knn", "ridge"}
    (knn,) = results.plays[0.1]["knn"]
    realised = knn.quality - 0.1 * knn.cost
    wrong = abs(knn.predicted.mean() - realised.mean())
    # All queries look alike here: one prediction for all of them, off by the share of luck.
    assert found["knn"]["slope"] is None
    assert found["knn"]["error"] == pytest.approx(wrong)
    assert sum(each["n"] for each in found["knn"]["bins"]) == 40


def test_too_few_resamples_can_call_nothing_better() -> None:
    assert too_coarse(100, 4, 0.95)
    assert not too_coarse(200, 4, 0.95)
    assert too_coarse(2000, 12, 0.99)
    assert not too_coarse(2000, 12, 0.95)


def test_what_there_was_to_gain_is_told_against_the_best_single(make_direct, make_arena) -> None:
    found = gained(results_of(make_direct, make_arena, PERFECT), 0.1)
    assert set(found) == {"best_path_per_task", "oracle"}
    assert found["best_path_per_task"]["mean"] == 0
    # A is best on train by its price; the oracle takes B for the other half: 1 - .2 of reward.
    assert found["oracle"]["mean"] == pytest.approx(0.5 * 0.8)
    assert found["oracle"]["low"] > 0


def test_conduct_tells_routes_seeds_and_regret(make_direct, make_arena) -> None:
    flipped = [1, *PERFECT[1:]]
    (first, _) = conduct(results_of(make_direct, make_arena, PERFECT, flipped))
    assert first["alpha"] == 0.0
    assert first["usage"]["used"] == 2
    assert first["usage"]["top_share"] == pytest.approx(41 / 80)
    assert first["agreement"]["share"] == pytest.approx(39 / 40)
    assert first["regret"]["mean"] == pytest.approx(1 / 80)
    assert first["regret"]["none"] == pytest.approx(39 / 40)
    (alone, _) = conduct(results_of(make_direct, make_arena, ALWAYS_A))
    assert alone["agreement"] is None
    assert alone["usage"]["entropy"] == 0


def test_the_family_is_corrected_and_says_what_it_takes(make_direct, make_arena) -> None:
    results = results_of(make_direct, make_arena, PERFECT)
    found = family(results, 0.0)
    assert set(found) == {"best_single", "best_path_per_task", "knn", "ridge"}
    best = found["best_single"]
    assert best["reward"]["mean"] == pytest.approx(0.5)
    assert best["better"]
    assert not best["worse"]
    assert best["p_holm"] >= best["p"]
    assert best["queries_for_this_difference"] < 40 < best["queries_for_one_point"]
    same = family(results_of(make_direct, make_arena, ALWAYS_A), 0.0, ("single:A",))["single:A"]
    assert same["reward"] == {"mean": 0, "low": 0, "high": 0}
    assert same["queries_for_this_difference"] is None
    assert not same["better"]


def test_what_is_cross_fitted_takes_more_queries(make_direct, make_arena) -> None:
    plain = results_of(make_direct, make_arena, PERFECT)
    found, wide = (
        family(replace(plain, widened=factor), 0.0)["best_single"] for factor in (1.0, 1.2)
    )
    assert wide["seen"] / found["seen"] == pytest.approx(1.2)
    ratio = wide["queries_for_one_point"] / found["queries_for_one_point"]
    assert ratio == pytest.approx(1.44, rel=1e-3)


def test_an_area_is_told_within_what_there_can_be(make_direct, make_arena) -> None:
    # Two seeds that differ: Student's interval of one degree goes far beyond.
    results, marks = results_of(make_direct, make_arena, PERFECT, ALWAYS_A, marked=True)
    found = curves_of(results, ("A", "B"), marks)
    assert (found["aiq"]["router"]["low"], found["aiq"]["router"]["high"]) == (0, 1)
    for told in found["aiq_differences"].values():
        assert -1 <= told["low"] < told["high"] <= 1


def test_more_comparisons_take_more_queries(make_direct, make_arena) -> None:
    results = results_of(make_direct, make_arena, PERFECT)
    alone = family(results, 0.0, ("best_single",))["best_single"]
    among = family(results, 0.0)["best_single"]
    for key in ("queries_for_this_difference", "queries_for_one_point", "seen"):
        assert among[key] > alone[key]
    # Four comparisons: a level of .05 / 4, so (z(.99375) + z(.8))^2 / (z(.975) + z(.8))^2 times.
    ratio = among["queries_for_one_point"] / alone["queries_for_one_point"]
    assert ratio == pytest.approx((2.4977 + 0.8416) ** 2 / (1.96 + 0.8416) ** 2, rel=1e-3)


def test_over_the_grid_is_the_mean_over_alphas(make_direct, make_arena) -> None:
    results = results_of(make_direct, make_arena, PERFECT)
    by_alpha = [results.differences(alpha)["best_single"]["reward"]["mean"] for alpha in (0.0, 0.1)]
    assert over_grid(results)["best_single"]["mean"] == pytest.approx(np.mean(by_alpha))


def test_more_seeds_are_averaged_and_widen_what_is_said(make_direct, make_arena) -> None:
    one = results_of(make_direct, make_arena, PERFECT)
    three = results_of(make_direct, make_arena, PERFECT, ALWAYS_A, PERFECT)
    assert (one.seeds, three.seeds) == (1, 3)
    mean = three.policies(0.0)["router"]["quality"]["mean"]
    assert mean == pytest.approx((1 + 0.5 + 1) / 3)
    narrow, wide = (each.policies(0.0)["router"]["relative_cost"] for each in (one, three))
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]
    assert shares(three.plays[0.0]["router"]) == {
        "A": pytest.approx(2 / 3),
        "B": pytest.approx(1 / 3),
    }


def test_intervals_of_means_stay_within_what_there_can_be(make_direct, make_arena) -> None:
    two = results_of(make_direct, make_arena, PERFECT, ALWAYS_A)
    wide = two.crossed.overall(two.values(0.0, "router"))
    assert wide.ends(0.95)[1, 0] > 1  # Student's tails with one degree of freedom
    router = two.policies(0.0)["router"]
    assert router["quality"]["high"] == router["reward"]["high"] == 1
    assert router["relative_cost"]["low"] >= 0
    assert two.differences(0.0)["best_single"]["quality"]["high"] > 0.5

"""Our pool in the paper's tables, and its findings asked of our data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hierrouter.config import EvaluationConfig
from hierrouter.configfile import load_config
from hierrouter.data.sample import sample_queries
from hierrouter.evaluation.evaluate import METRICS, evaluate_router
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.paper.findings import first_change
from hierrouter.evaluation.paper.results import COST, F1, POOL, ROUTER, TASKS, table
from hierrouter.evaluation.paper.tables import Answers, read_answers, route_change, section
from hierrouter.evaluation.policies.arena import Played
from hierrouter.files import read_json
from hierrouter.learning.train import train_router
from hierrouter.routes.calls import Part
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.nodes import NodeKey
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree

MARKERS = Path(__file__).parents[3] / "configs" / "scripted_markers.yaml"
CONFIG = EvaluationConfig(bootstrap=100)


@pytest.fixture
def measured(make_outcomes, make_router):
    """Thirty queries of two of the paper's tasks and one of our own; ten are for testing."""

    def of(tasks=("mmlu", "gsm8k", "own"), choose=lambda alpha: 0, **facts):
        outcomes = make_outcomes(30, models=2, hops=2, tasks=tasks)
        router = make_router(outcomes, choose, **facts)
        return measure(outcomes, router, CONFIG)

    return of


def answers(f1, cost, accuracy, tokens_out, n=10):
    """The same answer to every query."""
    return Answers(*(np.full(n, float(value)) for value in (f1, cost, accuracy, tokens_out)))


ROWS = {
    "A": answers(0.4, 0.001, 0.5, 4),
    "B": answers(0.1, 0.004, 0.75, 200),
    "router": answers(0.6, 0.002, 0.8, 50),
}


def text(found, side):
    return " ".join(finding[side] for finding in found["findings"])


def test_our_pool_stands_in_the_papers_layout(measured):
    known = measured()
    varied = Answers(np.arange(10) / 10, *(np.ones(10),) * 3)
    found = section({**ROWS, "A": varied}, known)
    json.dumps(found, allow_nan=False)
    assert found["tasks"] == list(TASKS)
    assert list(found["ours"]) == ["A", "B", "router"]
    # Queries 20 to 29 are for testing, every third of them of a task; our own has no column.
    counts = {task: entry["n"] for task, entry in found["ours"]["A"].items()}
    assert counts == {"mmlu": 3, "gsm8k": 3}
    among = known.test.tasks == "mmlu"
    assert found["ours"]["A"]["mmlu"]["f1"] == pytest.approx((np.arange(10) / 10)[among].mean())
    assert found["ours"]["B"]["gsm8k"] == pytest.approx(
        {
            "f1": 0.1,
            "cost": 0.004,
            "accuracy": 0.75,
            "tokens_out": 200,
            "net_reward": 0.1 - 0.005 * 0.004,
            "n": 3,
        }
    )


def test_the_papers_numbers_are_those_of_its_tables():
    theirs = table()
    assert theirs["Phi-3.5-mini"]["mbpp"] == {
        "f1": 0.044,
        "cost": 0.0021,
        "net_reward": pytest.approx(0.044 - 0.005 * 0.0021),
    }
    assert {len(columns) for columns in (*F1.values(), *COST.values())} == {6}
    assert F1.keys() == COST.keys()
    ratios = [F1[ROUTER][k] / max(F1[name][k] for name in POOL) for k in range(6)]
    assert ratios == pytest.approx([1.25, 2.07, 0.66, 1.52, 3.0, 3.33], abs=0.006)


def test_what_the_paper_says_is_held_to_its_own_numbers(measured):
    said = text(section(ROWS, measured()), "paper")
    assert "alpha * C is at most" not in said
    assert "alpha * C is 9.4e-05" in said
    assert "1.25, 2.07, 0.66, 1.52, 3.00, 3.33 times" in said
    assert "1.6 to 2.1 times Qwen2.5-14B" in said
    assert "5,300 to 6,267 tokens" in said
    assert "0.002 to 0.010, are those of right replies of 999 to 199 different words" in said


def test_our_ratios_follow_from_our_rows(measured):
    said = text(section(ROWS, measured()), "ours")
    assert "F1 is 1.50, 1.50 times that of the best single model (mmlu, gsm8k)" in said
    assert "0.50 times B, the dearest of the pool (no reference was recorded)" in said
    assert "alpha * C is at most 2e-05 here" in said  # .005 * .004
    assert "differ by 0.300 to 0.300" in said
    silent = section({"A": ROWS["A"], "B": ROWS["B"]}, measured())
    assert "not scored here" in text(silent, "ours")


def test_f1_that_goes_to_the_short_reply_is_told(measured):
    said = text(section(ROWS, measured()), "ours")
    assert "A F1 0.400, accuracy 0.500, 4 tokens; B F1 0.100, accuracy 0.750, 200 tokens" in said
    assert "A is best by F1 and 25.0 points of accuracy behind B" in said
    both = text(section({**ROWS, "B": answers(0.1, 0.004, 0.4, 200)}, measured()), "ours")
    assert "A is best by both" in both
    none = text(section(ROWS, measured(tasks=("gsm8k", "math"))), "ours")
    assert "None of these three tasks is here" in none


def test_where_alpha_first_changes_the_best_model():
    # B is best; A saves 3 for .3 of quality, C saves 2 for .1.
    cost, quality = {"A": 1.0, "B": 4.0, "C": 2.0}, {"A": 0.4, "B": 0.7, "C": 0.6}
    alpha, *names = first_change(cost, quality)
    assert (alpha, names) == (pytest.approx(0.05), ["B", "C"])
    assert first_change({"A": 1.0, "B": 2.0}, {"A": 0.5, "B": 0.5}) is None


def test_where_alpha_first_changes_is_told_in_dollars(measured):
    # A is best by F1 and cheapest: nothing to change.
    assert "no alpha changes that" in text(section(ROWS, measured()), "ours")
    dear = {**ROWS, "A": answers(0.4, 0.007, 0.5, 4)}
    said = text(section(dear, measured()), "ours")
    assert "first changes at alpha 100 a dollar" in said  # .3 / .003
    assert "20,000 times the paper's" in said
    turning = measured(choose=lambda alpha: int(alpha > 0.3), cost_unit_usd=0.5)
    assert route_change(turning) == (0.2, 0.5)
    assert "between alpha 0.2 and 0.5 of our grid, 0.4 and 1 a dollar" in text(
        section(ROWS, turning), "ours"
    )
    assert route_change(measured()) is None


def test_another_name_for_the_same_route_is_no_change(measured):
    known = measured()
    high = max(known.played)
    played = known.played[high]["router"][0]
    renamed = replace(played, routes=("B", *played.routes), taken=played.taken + 1)
    known.played[high]["router"] = (renamed,)
    assert route_change(known) is None


def test_what_the_paper_lacks_is_shown_on_ours(measured):
    known = measured()
    said = text(section(ROWS, known), "ours")
    gain = 100 * known.metrics["differences"]["best_path_per_task"]["reward"]["mean"]
    assert f"{gain:+.1f} to best_path_per_task" in said
    assert "Over 10 test queries and one training seed" in said


def evaluated(folder, *overrides, part=None):
    """A scripted experiment of a few queries: its tree and metrics."""
    config = load_config(
        MARKERS,
        [
            *("data.queries_per_task=24", "training.moves=paper", "training.iterations=1"),
            *("training.rollouts=8", "training.steps=4", "evaluation.bootstrap=100"),
            *("evaluation.recipes=[]", *overrides),
        ],
    )
    queries = sample_queries(config.data, folder / "queries")
    tree = collect_routes(config.pool, queries, folder / "tree", part or Part())
    router = train_router(config.training, tree, folder / "router")
    out = evaluate_router(config.evaluation, tree, router, folder / "evaluation")
    return tree, read_json(out / METRICS)


@pytest.mark.parametrize("fill", [False, True])
def test_rows_are_read_from_the_scores_of_the_routes_that_were_taken(tmp_path, fill):
    tree, metrics = evaluated(
        tmp_path,
        *("data.tasks=[gsm8k, history]", f"training.fill={str(fill).lower()}"),
        part=Part(direct=fill),
    )
    found = metrics["paper"]
    assert set(found["ours"]) == {*metrics["models"], "router"}
    for row, policy in ((name, f"single:{name}") for name in metrics["models"]):
        same = metrics["policies"][policy]["tasks"]["gsm8k"]
        assert found["ours"][row]["gsm8k"]["accuracy"] == pytest.approx(same["quality"]["mean"])
        assert found["ours"][row]["gsm8k"]["cost"] == pytest.approx(same["cost"]["mean"])
    mine, same = found["ours"]["router"], metrics["policies"]["router"]["tasks"]["gsm8k"]
    assert mine.keys() == {"gsm8k"}
    assert mine["gsm8k"]["accuracy"] == pytest.approx(same["quality"]["mean"])
    assert mine["gsm8k"]["cost"] == pytest.approx(same["cost"]["mean"])
    _, scores = read_scores(tree)
    nodes = RouteTree(tree).nodes
    row = metrics["models"][0]
    known = load_outcomes(tree, "accuracy", moves="direct")
    ids = known.select(~known.train & (known.tasks == "gsm8k")).query_ids
    places = [NodeKey(query, (row,), "solve") for query in ids]
    entry = found["ours"][row]["gsm8k"]
    assert entry["n"] == len(ids)
    assert entry["f1"] == pytest.approx(np.mean([scores[at].metrics["token_f1"] for at in places]))
    assert entry["tokens_out"] == pytest.approx(np.mean([nodes[at].tokens_out for at in places]))


def test_there_is_no_section_without_the_papers_tasks(tmp_path):
    assert "paper" not in evaluated(tmp_path, "data.tasks=[arithmetic, history]")[1]


def test_the_answer_of_a_cascade_is_the_one_that_it_returns(tmp_path):
    tree, _ = evaluated(tmp_path, "data.tasks=[gsm8k, history]")
    known = load_outcomes(tree, "accuracy")
    test = known.select(~known.train)
    a, b, c = test.models[:3]
    names = (a, f"{a}:{b}", f"{a}!{b}", f"{a}!{b}={a}", f"{a}!{b}!{c}={b}")
    taken = np.arange(len(test)) % len(names)
    cost = np.full(len(test), 0.5)
    played = Played("router", np.zeros(len(test)), cost, names, taken)
    found = read_answers(tree, test, {"router": (played,), "router_ppo_paper": (played,)})
    _, scores = read_scores(tree)
    returned = ((a,), (a, b), (b,), (a,), (b,))
    for number, query in enumerate(test.query_ids):
        score = scores[NodeKey(query, returned[taken[number]], "solve")]
        assert found["router"].accuracy[number] == score.metrics["accuracy"]
        assert found["router_ppo_paper"].f1[number] == score.metrics["token_f1"]
    assert (found["router"].cost == 0.5).all()


def test_the_papers_recipe_has_a_row_where_it_was_played(tmp_path):
    _, metrics = evaluated(
        tmp_path, "data.tasks=[gsm8k, history]", "evaluation.recipes=[router_ppo_paper]"
    )
    assert set(metrics["paper"]["ours"]) == {*metrics["models"], "router", "router_ppo_paper"}
    same = metrics["policies"]["router_ppo_paper"]["tasks"]["gsm8k"]
    assert metrics["paper"]["ours"]["router_ppo_paper"]["gsm8k"]["accuracy"] == pytest.approx(
        same["quality"]["mean"]
    )

"""Words, tables and the page."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from hierrouter.config import EvaluationConfig
from hierrouter.evaluation.chart import HEIGHT, WIDTH, chart
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.report import render_report
from hierrouter.evaluation.table import print_table
from hierrouter.evaluation.verdict import FLOOR, compare, shortened, verdict

CONFIG = EvaluationConfig(bootstrap=200)
ORIGIN = {
    "router": {
        "alpha_range": [0.0, 1.0],
        "data_seed": 1,
        "training_seed": 2,
        "query_digest": "q" * 64,
        "tree_digest": "t" * 64,
        "weights_sha256": "w" * 64,
    },
    "versions": {"hierrouter": "0"},
}


@pytest.fixture
def metrics(make_outcomes, make_router):
    outcomes = make_outcomes(n=30, models=3)
    return {**measure(outcomes, make_router(outcomes), CONFIG).metrics, **ORIGIN}


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((0.02, 0.01, 0.03), "is 2.0 points better than x (95% interval +1.0 to +3.0)"),
        ((-0.02, -0.03, -0.01), "is 2.0 points worse than x (95% interval −3.0 to −1.0)"),
        ((0.02, -0.01, 0.03), "cannot be told apart from x (difference +2.0 points"),
        ((0.02, 0.0, 0.03), "cannot be told apart"),
        ((0.0, 0.0, 0.0), "gets exactly the reward of x"),
        ((-0.0001, -0.01, 0.01), "(difference 0.0 points"),
    ],
)
def test_a_difference_is_claimed_only_when_its_interval_excludes_zero(ends, words):
    mean, low, high = ends
    assert words in compare({"mean": mean, "low": low, "high": high}, "x", 0.95)


def test_the_verdict_is_about_both_rivals(make_outcomes, make_router):
    outcomes = make_outcomes(n=3 * FLOOR, models=3)
    metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
    assert verdict(metrics).count("best_") == 2
    assert f"over {FLOOR} test queries" in verdict(metrics)


def test_few_queries_make_no_verdict_however_narrow_the_interval(make_direct, make_router):
    # The router's model is right every time and the others never: an interval without width.
    for test, claimed in ((FLOOR - 1, False), (FLOOR, True)):
        train = [[0, 1]] * 3
        outcomes = make_direct([*train, *[[1, 0]] * test], [[0.1, 0.1]] * (test + 3), train=3)
        metrics = measure(outcomes, make_router(outcomes), CONFIG).metrics
        reward = metrics["differences"]["best_single"]["reward"]
        assert reward["low"] == reward["high"] == 1
        assert ("100.0 points better than best_single" in verdict(metrics)) is claimed
        assert (f"Too few test queries ({test}) to tell" in verdict(metrics)) is not claimed
        assert verdict(metrics) in render_report({**metrics, **ORIGIN})


def test_a_short_table_keeps_the_best_paths(metrics):
    names, left_out = shortened(metrics, most=2)
    rewards = {
        name: entry["reward"]["mean"]
        for name, entry in metrics["policies"].items()
        if name.startswith("path:")
    }
    shown = [name for name in names if name.startswith("path:")]
    assert left_out == 7
    assert [rewards[name] for name in shown] == sorted(rewards.values(), reverse=True)[:2]
    assert names[0] == "router"
    assert names[-1] == "oracle"


def test_the_terminal_shows_policies_tasks_verdict_and_notes(metrics):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(metrics, console)
    text = console.export_text()
    reward = metrics["policies"]["oracle"]["reward"]["mean"]
    for part in (
        "best_path_per_task",
        f"{reward:.3f}",
        "6 more paths and cascades",
        "test queries",
        "Note: ",
    ):
        assert part in text


class Page(HTMLParser):
    """Collects what the page refers to and whether its tags are closed in order."""

    VOID = frozenset({"meta", "line", "rect", "circle", "path", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(metrics):
    text = render_report(metrics)
    page = Page(text)
    assert page.open == []
    assert page.references == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [outside for outside in ("http", "url(", "@import") if outside in text]
    assert len(text) < 200_000
    assert text.index(verdict(metrics)) < text.index("<table")
    for digest in ("q" * 64, "t" * 64, "w" * 64):
        assert digest in text


def test_names_and_texts_are_escaped(make_outcomes, make_router):
    evil = "<script>alert(1)</script>"
    outcomes = make_outcomes(n=30, models=2, tasks=(evil, '"><img src=x>'))
    outcomes = replace(outcomes, models=("A", f"x{evil}"))
    found = {**measure(outcomes, make_router(outcomes), CONFIG).metrics, **ORIGIN}
    text = render_report({**found, "warnings": [evil], "metric": evil})
    assert not {"script", "img"} & set(Page(text).tags)
    assert "&lt;script&gt;" in text


def test_everything_drawn_is_inside_the_picture(metrics):
    drawn = chart(metrics)
    for at in (*drawn.marks, *drawn.labels):
        assert 0 <= at.x <= WIDTH
        assert 0 <= at.y <= HEIGHT
    labelled = sorted(int(k) for label in drawn.labels for k in label.text.split(", "))
    assert labelled == [number for number, _, _ in drawn.legend]
    # Dearer is further right, better is higher up.
    assert [tick.at for tick in drawn.across] == sorted(tick.at for tick in drawn.across)
    assert [tick.at for tick in drawn.up] == sorted((tick.at for tick in drawn.up), reverse=True)


def test_a_far_reference_is_named_instead_of_squeezing_the_picture(make_outcomes, make_router):
    outcomes = replace(
        make_outcomes(n=30),
        references=("near", "far"),
        reference_quality=np.ones((30, 2)),
        reference_cost=np.tile([0.5, 90.0], (30, 1)),
    )
    drawn = chart(measure(outcomes, make_router(outcomes), CONFIG).metrics)
    assert any("reference:near" in mark.title for mark in drawn.marks)
    assert not any("reference:far" in mark.title for mark in drawn.marks)
    assert "reference:far" in drawn.beyond[0]


def test_free_and_equal_models_can_be_drawn(make_direct, make_router):
    outcomes = make_direct([[1, 1]] * 4, [[0.0, 0.0]] * 4, train=2)
    found = measure(outcomes, make_router(outcomes), CONFIG).metrics
    assert "NaN" not in render_report({**found, **ORIGIN})

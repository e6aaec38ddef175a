"""Words, tables and the page."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pytest
from rich.console import Console

from hierrouter.config import EvaluationConfig
from hierrouter.evaluation.measure import measure
from hierrouter.evaluation.report import render_report
from hierrouter.evaluation.report.bars import differences, task_bars
from hierrouter.evaluation.report.examples import Call, Example, Side, _places
from hierrouter.evaluation.report.learning import learning, read_curves
from hierrouter.evaluation.report.plane import _labels, plane
from hierrouter.evaluation.report.sankey import sankey, steps
from hierrouter.evaluation.report.sankey import shortened as cut_name
from hierrouter.evaluation.report.scales import NARROW, WIDE
from hierrouter.evaluation.report.words import fixed, outcome, percent, points
from hierrouter.evaluation.table import print_table
from hierrouter.evaluation.verdict import FLOOR, compare, in_parts, lead, shortened, verdict
from hierrouter.files import write_json

CONFIG = EvaluationConfig(bootstrap=200)
EVIL = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>"
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
    ("ends", "p_holm", "words"),
    [
        ((0.02, 0.01, 0.03), 0.01, "is 2.0 points better than x (95% interval +1.0 to +3.0)"),
        ((-0.02, -0.03, -0.01), 0.01, "is 2.0 points worse than x (95% interval −3.0 to −1.0)"),
        (*((-0.02, -0.03, -0.01), 0.08, "cannot be told apart from x (difference −2.0 points, "),),
        ((-0.02, -0.03, -0.01), 0.08, "−3.0 to −1.0; p 0.08 with all comparisons counted)"),
        ((0.02, -0.01, 0.03), 0.2, "cannot be told apart from x (difference +2.0 points"),
        ((0.02, -0.01, 0.03), 0.2, "−1.0 to +3.0)"),
        ((0.0, 0.0, 0.0), 1.0, "gets exactly the reward of x"),
        ((-0.0001, -0.01, 0.01), 1.0, "(difference 0.0 points"),
    ],
)
def test_a_difference_is_claimed_only_where_it_stands_among_all(ends, p_holm, words):
    mean, low, high = ends
    about = {"reward": {"mean": mean, "low": low, "high": high}, "p_holm": p_holm}
    about |= {"better": p_holm < 0.05 and mean > 0, "worse": p_holm < 0.05 and mean < 0}
    assert words in compare(about, "x", 0.95, 100)


def test_the_first_screen_says_one_thing(metrics):
    """A difference that is certain alone, and not among all, is claimed nowhere on the page."""
    alone = {"mean": -0.067, "low": -0.12, "high": -0.01}
    doubtful = {
        name: {**entry, "reward": alone, "p": 0.02, "p_holm": 0.08, "better": False, "worse": False}
        for name, entry in metrics["family"].items()
    }
    text = render_report({**metrics, "n_test": FLOOR, "family": doubtful})
    first = text[text.index('class="verdict"') : text.index('class="judged"')]
    assert first.count("cannot be told apart") == 2
    assert "no difference is certain" in first
    assert "worse" not in first


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


def test_the_verdict_begins_with_whether_routing_pays(metrics):
    about = metrics["family"]["best_single"]
    for changed, said in (
        ({"better": True, "worse": False}, "Routing pays."),
        ({"better": False, "worse": True}, "Routing does not pay."),
        ({"better": False, "worse": False}, "Routing is not shown to pay."),
    ):
        family = {**metrics["family"], "best_single": {**about, **changed}}
        judged = {**metrics, "n_test": FLOOR, "family": family}
        assert lead(judged) == said
        text = render_report(judged)
        assert text.index(f"<strong>{said}</strong>") < text.index("<table")
        assert said in terminal(judged)
    assert lead({**metrics, "n_test": FLOOR - 1}) is None
    assert "<strong>Routing" not in render_report({**metrics, "n_test": FLOOR - 1})


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ((-0.2, -0.25, -0.15), "40% cheaper (30 to 50% cheaper)"),
        ((0.1, 0.05, 0.15), "20% dearer (10 to 30% dearer)"),
        ((-0.05, -0.15, 0.05), "10% cheaper (10% dearer to 30% cheaper)"),
        ((-0.48, -0.55, -0.4), "96% cheaper (80 to 100% cheaper)"),
        ((0.0, 0.0, 0.0), "as dear"),
        ((0.001, -0.02, 0.03), "as dear (6% dearer to 4% cheaper)"),
        ((-0.02, -0.04, -0.001), "4% cheaper (as dear to 8% cheaper)"),
        ((0.02, 0.001, 0.04), "4% dearer (as dear to 8% dearer)"),
    ],
)
def test_quality_and_cost_are_told_apart(metrics, cost, words):
    ends = ("mean", "low", "high")
    quality = dict(zip(ends, (0.08, 0.05, 0.11), strict=True))
    difference = {"quality": quality, "relative_cost": dict(zip(ends, cost, strict=True))}
    rival = {**metrics["policies"]["best_single"], "relative_cost": {"mean": 0.5}}
    judged = {
        **metrics,
        "differences": {"best_single": difference},
        "policies": {"best_single": rival},
    }
    expected = f"Over best_single: +8.0 points of accuracy (+5.0 to +11.0), {words}."
    assert in_parts(judged) == expected
    free = {"best_single": {**rival, "relative_cost": {"mean": 0.0}}}
    assert in_parts({**judged, "policies": free}) is None


def test_the_terminal_names_both_verdicts_where_there_are_two(metrics):
    assert "Cross-fitted" not in terminal(metrics)
    crossed = {**metrics, "n": 99, "warnings": ["Of the folds."]}
    text = terminal({**metrics, "cross_fitted": crossed, "seeds": 1})
    both = ["Cross-fitted, the recipe: ", "over 99 cross-fitted queries"]
    both += ["Test queries, this router: ", "Too few test queries (10)", "Note: Of the folds."]
    places = [text.index(part) for part in both]
    assert places == sorted(places)
    assert "this router and its siblings: " in terminal(
        {**metrics, "cross_fitted": crossed, "seeds": 3}
    )


def test_a_mean_over_seeds_is_not_called_the_routers_own(metrics):
    crossed = {**metrics, "n": 99}
    alone = render_report({**metrics, "cross_fitted": crossed})
    assert alone.count("router itself, on its own test queries") == 2
    several = render_report({**metrics, "cross_fitted": crossed, "seeds": 3})
    assert "router itself" not in several
    assert several.count("router and its 2 siblings of other seeds, on their own test queries") == 2


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


def terminal(metrics):
    """What is printed, as one line."""
    console = Console(width=1000, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(metrics, console)
    return " ".join(console.export_text().split())


def test_the_terminal_shows_policies_tasks_verdict_and_notes(metrics):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(metrics, console)
    text = console.export_text()
    reward = metrics["policies"]["oracle"]["reward"]["mean"]
    for part in (
        "best_path_per_task",
        f"{reward:.3f}",
        "6 more paths and cascades; the best of each kind by reward are shown",
        "test queries",
        "Note: ",
        "Headroom: over best_single, best_path_per_task ",
    ):
        assert part in text


class Page(HTMLParser):
    """Collects what the page refers to and whether its tags are closed in order."""

    VOID = frozenset({"meta", "line", "rect", "circle", "path", "polyline", "input", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]
        # A mark may have a title inside, or be closed at once.
        if tag not in self.VOID or (tag in ("rect", "path", "polyline") and self.titled()):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def titled(self):
        return not self.get_starttag_text().endswith("/>")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(metrics):
    text = render_report(metrics)
    page = Page(text)
    assert page.open == []
    assert [each for each in page.references if not each.startswith("#")] == []
    assert not {"link", "img", "iframe", "object", "form"} & set(page.tags)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not [outside for outside in ("://", "url(", "@import") if outside in text]
    assert len(text) < 300_000
    assert text.index(verdict(metrics)) < text.index("<table")
    for digest in ("q" * 64, "t" * 64, "w" * 64):
        assert digest in text


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(metrics):
    text = render_report(metrics)
    page = Page(text)
    allowed = dict(each.split(" ", 1) for each in page.policy.split("; "))
    assert allowed.pop("default-src") == allowed.pop("base-uri") == "'none'"
    assert allowed.pop("form-action") == "'none'"
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert not allowed
    # What such a policy would silently refuse.
    assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]


def test_every_id_is_there_once_and_every_reference_leads_somewhere(metrics):
    page = Page(render_report(metrics))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = [each[1:] for each in page.references]
    for name, value in page.attributes:
        if name in ("aria-labelledby", "for", "data-controls"):
            wanted += value.split()
    assert set(wanted) <= set(ids)


def example(text, kind="win"):
    call = Call(text, text, text, 3, 4)
    sides = [Side(policy, text, 1.0, 0.5, [call, call]) for policy in ("router", "best_single")]
    return Example(kind, 1, 9, text, text, text, sides)


def test_names_texts_and_replies_are_escaped(make_outcomes, make_router):
    outcomes = make_outcomes(n=30, models=2, tasks=(EVIL, '"><img src=x>'))
    outcomes = replace(outcomes, models=("A", f"x{EVIL}"))
    found = {**measure(outcomes, make_router(outcomes), CONFIG).metrics, **ORIGIN}
    clean = Page(render_report(found))
    interval = {"mean": 0.0, "low": 0.0, "high": 0.0}
    hops = {"n": 1, "direct": EVIL, "two_hop": EVIL, "same": EVIL, "router_share": interval}
    hops |= dict.fromkeys(("gain", "quality_gain", "at_cost", "same_gain", "mixture_gain"))
    row = {EVIL: {EVIL: {"f1": 0.1, "cost": 0.1, "net_reward": 0.1, "accuracy": 0.1}}}
    text = render_report(
        {
            **{**found, "warnings": [EVIL], "metric": EVIL},
            "hopping": {
                "note": EVIL,
                "tasks": {EVIL: {**hops, "router_gain": interval}},
                "all": None,
            },
            "paper": {
                **{"tasks": [EVIL], "ours": row, "theirs": row},
                "findings": [{"paper": EVIL, "ours": EVIL}],
            },
        },
        {EVIL: [(1.0, 0.5), (2.0, 0.75)]},
        [example(EVIL, kind) for kind in ("win", "loss", "cheap save")],
    )
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == clean.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in text


def test_the_report_is_about_the_cross_fitted_numbers_where_there_are_any(metrics):
    plain = render_report(metrics)
    assert "Cross-fitted" not in plain
    better = {"mean": 0.5, "low": 0.4, "high": 0.6}
    crossed = {
        **{name: metrics[name] for name in ("policies", "over_grid", "by_alpha", "differences")},
        "family": {
            name: {**entry, "reward": better, "better": True}
            for name, entry in metrics["family"].items()
        },
        **{name: metrics[name] for name in ("curves", "tradeoff", "conduct")},
        "n": 99,
        "seeds": 7,
        "warnings": ["Of the folds."],
    }
    text = render_report({**metrics, "cross_fitted": crossed})
    said = "over 99 cross-fitted queries, the router is 50.0 points better than best_single"
    assert said in text
    assert text.index(said) < text.index("Cross-fitted:") < text.index(verdict(metrics))
    # The cautions are those of these numbers, and the page says what their intervals leave out.
    assert "Of the folds." in text
    assert not [each for each in metrics["warnings"] if each in text]
    assert "the intervals are made wider for that" in text


def test_parts_that_are_not_there_are_left_out(metrics):
    text = render_report(metrics)
    for name in ("learning", "hopping", "paper", "examples"):
        assert f'id="{name}"' not in text
        assert f'href="#{name}"' not in text
    assert "When the task is new" not in text
    assert 'id="calibration"' in text  # of knn and ridge
    assert 'id="calibration"' not in render_report({**metrics, "calibration": {}})
    assert 'id="examples"' in render_report(metrics, examples=[example("hello")])


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_everything_drawn_is_inside_the_picture(metrics, width):
    drawn = plane(metrics, width)
    for at in (*drawn.marks, *drawn.labels):
        assert 0 <= at.x <= width
        assert 0 <= at.y <= drawn.height
    for line in drawn.whiskers:
        assert all(0 <= value <= width for value in line)
    labelled = sorted(int(k) for label in drawn.labels for k in label.text.split(", "))
    assert labelled == [each.number for each in drawn.legend]
    assert drawn.legend[0].name == "router"
    # Dearer is further right, better is higher up.
    assert [tick.at for tick in drawn.across] == sorted(tick.at for tick in drawn.across)
    assert [tick.at for tick in drawn.up] == sorted((tick.at for tick in drawn.up), reverse=True)


@pytest.mark.parametrize(("models", "named"), [(15, 15), (16, 2)])
def test_of_many_single_models_those_off_the_hull_have_no_number(
    make_direct, make_router, models, named
):
    # The last is right every time; the others are as good as each other, and the first is cheapest.
    quality, cost = [[k % 2] * (models - 1) + [1] for k in range(8)], [range(1, models + 1)] * 8
    outcomes = replace(
        make_direct(quality, cost, train=4), models=tuple(f"M{k}" for k in range(models))
    )
    drawn = plane(measure(outcomes, make_router(outcomes), CONFIG).metrics, NARROW)
    singles = [each.name for each in drawn.legend if each.kind == "single"]
    assert len(singles) == named
    assert {"single:M0", f"single:M{models - 1}"} <= set(singles)
    assert sum(mark.kind == "single" for mark in drawn.marks) == models
    assert ("single" in drawn.unnamed) is (named < models)
    assert [each.number for each in drawn.legend] == list(range(1, len(drawn.legend) + 1))


def test_numbers_beside_points_do_not_cover_each_other():
    points = {(170.0, 83.0): [3, 5, 8], (165.0, 68.0): [12], (157.0, 83.0): [4, 6]}
    marks = [*points, (201.0, 83.0)]
    labels = _labels(points, marks, WIDE, 400)
    assert len(labels) == 3
    for one, other in combinations(labels, 2):
        reach = 3.5 * (len(one.text) + len(other.text))
        assert abs(one.x - other.x) >= reach or abs(one.y - other.y) >= 10


def test_kinds_of_policies_differ_in_shape_and_not_in_colour_alone(metrics):
    drawn = plane(metrics, WIDE)
    shapes = {}
    for mark in drawn.marks:
        if mark.headline:
            outline = replace(mark, x=0, y=0).shape
            shapes.setdefault(outline, set()).add(mark.kind)
    hollow = {"oracle", "random", "reference", "recipe"}
    for kinds in shapes.values():
        assert len(kinds - hollow) <= 1


def test_a_far_reference_is_named_instead_of_squeezing_the_picture(make_outcomes, make_router):
    outcomes = replace(
        make_outcomes(n=30),
        references=("near", "far"),
        reference_quality=np.ones((30, 2)),
        reference_cost=np.tile([0.5, 90.0], (30, 1)),
    )
    drawn = plane(measure(outcomes, make_router(outcomes), CONFIG).metrics, WIDE)
    assert any("reference:near" in mark.title for mark in drawn.marks)
    assert not any("reference:far" in mark.title for mark in drawn.marks)
    assert "reference:far" in drawn.beyond[0]


def test_free_and_equal_models_can_be_drawn(make_direct, make_router):
    outcomes = make_direct([[1, 1]] * 4, [[0.0, 0.0]] * 4, train=2)
    found = measure(outcomes, make_router(outcomes), CONFIG).metrics
    text = render_report({**found, **ORIGIN})
    assert not [word for word in ("NaN", "nan%", "inf%") if word in text]


def test_bars_and_differences_are_to_scale(metrics):
    bars = task_bars(metrics, ["router"])
    assert list(bars) == list(metrics["n_test_by_task"])
    for (bar,) in bars.values():
        assert bar.mean == pytest.approx(100 * bar.value["mean"], abs=0.06)
    left, right = differences(
        {"a": {"mean": -0.1, "low": -0.2, "high": 0.0}, "b": {"mean": 0.1, "low": 0.0, "high": 0.2}}
    )
    assert (left.zero, left.low, left.high, right.high) == (50, 2, 50, 98)
    assert left.mean + right.mean == 100


def test_a_route_is_read_call_by_call():
    assert steps("A") == [("A", "answers")]
    assert steps("A:B") == [("A", "analyses"), ("B", "answers")]
    assert steps("A:B!C") == [("A", "analyses"), ("B", "is checked"), ("C", "answers")]
    # An analysis by the model whose answer is returned stays one.
    assert steps("B:A!B=A") == [("B", "analyses"), ("A", "answers"), ("B", "is checked")]
    assert steps("A!B=A") == [("A", "answers"), ("B", "is checked")]


def test_where_the_replies_of_a_route_stand() -> None:
    def places(route: str) -> list[tuple[str, ...]]:
        return [(*key.models, key.role) for key, _ in _places("q", route)]

    assert places("A:B") == [("A", "analyze"), ("A", "B", "solve")]
    assert places("A!B=A") == [("A", "solve"), ("B", "solve")]
    assert places("A:B!C") == [("A", "analyze"), ("A", "B", "solve"), ("A", "C", "solve")]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_what_flows_into_a_call_is_what_its_share_says(width):
    routes = {"t": {"A": 0.5, "A:B": 0.25, "B!A": 0.25}, "u": {"A:B": 1.0}}
    drawn = sankey(routes, ["A", "B"], width)
    heights = {node.title: node.height for node in drawn.nodes}
    band = heights["t"]
    assert heights["u"] == band
    assert heights == {
        **{"t": band, "u": band},
        **{"A answers: 25% of all": 0.5 * band, "A analyses: 62% of all": 1.25 * band},
        **{"B is checked: 12% of all": 0.25 * band, "B answers: 62% of all": 1.25 * band},
        **{"A answers: 12% of all": 0.25 * band},
    }
    assert [words for _, words in drawn.headings] == ["task", "first call", "second call"]
    assert len(drawn.links) == 4 + 3
    for node in drawn.nodes:
        assert 0 <= node.x < width
        assert 0 < node.y < node.y + node.height <= drawn.height
    # Nodes of a column do not cover each other.
    for x in {node.x for node in drawn.nodes}:
        column = sorted((node.y, node.height) for node in drawn.nodes if node.x == x)
        assert all(y + height <= after for (y, height), (after, _) in pairwise(column))


def test_long_names_lose_their_middle():
    assert cut_name("qwen-1.5b", 9) == "qwen-1.5b"
    assert cut_name("a-very-long-name-of-a-model", 9) == "a-ve…odel"


def test_learning_curves_are_read_where_they_are(tmp_path):
    entry = {"iteration": 1, "transitions": 100, "metrics": {"rollout_reward": 0.25}}
    later = {"iteration": 2, "transitions": 200, "metrics": {"rollout_reward": 0.5}}
    for name, content in (("good", [entry, later]), ("short", [entry]), ("odd", {"a": 1})):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "learning_curve.json", content)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "learning_curve.json").write_text("[{")
    names = ("good", "short", "odd", "torn", "none")
    curves = read_curves({name: tmp_path / name for name in names})
    assert curves == {"good": [(100.0, 0.25), (200.0, 0.5)]}
    assert learning({}, WIDE) is None
    drawn = learning({"seed 1": curves["good"], "seed 2": curves["good"]}, WIDE)
    one, two = drawn.lines
    assert one.points == two.points
    assert one.style != two.style
    assert abs(one.y - two.y) >= 12


@pytest.mark.parametrize("lines", [1, 8, 9, 100])
def test_names_of_learning_curves_stay_in_the_picture(lines):
    # All end near the bottom, later ones a little higher, and begin far above.
    curves = {f"seed {k}": [(0.0, 1.0), (9.0, k * 1e-6)] for k in range(lines)}
    drawn = learning(curves, NARROW)
    assert len(drawn.lines) == lines
    named = {line.name: line.y for line in drawn.lines if line.named}
    assert list(named) == (list(curves) if lines <= 8 else ["seed 0", f"seed {lines - 1}"])
    heights = list(named.values())[::-1]
    assert heights[0] >= 12
    assert heights[-1] <= drawn.up[0].at + 4
    assert all(after - before >= 12 for before, after in pairwise(heights))


def test_numbers_are_written_plainly():
    assert [fixed(value, 2) for value in (1.234, -0.5, -0.001, None)] == [
        "1.23",
        "−0.50",
        "0.00",
        "–",
    ]
    assert [points(value) for value in (0.048, -0.067, 0.0001, None)] == [
        "+4.8",
        "−6.7",
        "0.0",
        "–",
    ]
    assert [percent(value) for value in (0.0, 0.001, 0.5, 0.999, 1.0)] == [
        *("0%", "<1%", "50%", ">99%", "100%")
    ]
    for low, high, said in ((0.1, 1, "better"), (-1, -0.1, "worse"), (-1, 1, "not told apart")):
        assert outcome({"mean": (low + high) / 2, "low": low, "high": high}) == said

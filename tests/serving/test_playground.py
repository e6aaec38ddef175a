"""The page at /playground, in headless Chromium against the real server."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.serving.browser import CONTROL, SHIFT, Browser, chromium
from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.serving.browser import Page
    from tests.serving.conftest import Server

KEY = "a-key-of-the-playground"
QUESTION = "Topic: history. Some filler. Marker: jade. What is 12 plus 30?"
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script> "
    "<svg onload=\"document.title='owned'\"> [a](javascript:document.title='owned') &amp; </div>"
)
ENDED = "document.getElementById('stop').disabled && !document.getElementById('results').hidden"
READY = "!document.getElementById('controls').disabled"
CONTRAST = """(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.body.querySelectorAll("*")) {
    const says = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const seen = element.checkVisibility() && !element.matches(":disabled, :disabled *, option");
    if (!says || !seen || element.matches("script, style")) continue;
    const [a, b] = [channels(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.textContent.trim()}: ${ratio}`);
  }
  return poor;
})()"""


if chromium() is None and "HIERROUTER_TEST_ALL" not in os.environ:
    pytest.skip("Chromium is not here (apt install chromium)", allow_module_level=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = chromium()
    assert path is not None
    with Browser(path, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Server], upstream: Upstream) -> Server:
    """`small` always works and says what a test wants, `medium` fails as a test wants."""
    ends = [f"{name}={upstream.url}" for name in ("small", "medium")]
    return start_server("--endpoint", ends[0], "--endpoint", ends[1])


@pytest.fixture(scope="module")
def paper_server(
    start_server: Callable[..., Server], paper_router: Path, upstream: Upstream
) -> Server:
    ends = [f"{name}={upstream.url}" for name in ("small", "medium", "large")]
    arguments = [word for end in ends for word in ("--endpoint", end)]
    return start_server(*arguments, router=paper_router)


@pytest.fixture(scope="module")
def locked_server(start_server: Callable[..., Server]) -> Server:
    return start_server(HIERROUTER_API_KEYS=KEY)


@pytest.fixture(autouse=True)
def well(upstream: Upstream) -> None:
    upstream.behaviour.clear()
    upstream.reply.clear()


@pytest.fixture
def visit(browser: Browser) -> Callable[..., Page]:
    def visit(server: Server, width: int = 1280, **media: str) -> Page:
        page = browser.page(f"{server.url}/playground", width, 800, **media)
        page.until(READY)
        return page

    return visit


def ask(page: Page, single: str = "small", models: tuple[str, ...] = ()) -> None:
    """Asks as a person does who sets everything with a keyboard and a mouse."""
    page.run(f"document.getElementById('single').value = {json.dumps(single)}")
    if models:
        page.run("document.getElementById('limits').open = true")
        for name in page.run("[...document.querySelectorAll('[name=model]')].map((b) => b.value)"):
            if name not in models:
                page.click(f"[value={name}]")
    page.click("#question")
    page.run("document.getElementById('question').value = ''")
    page.type(QUESTION)
    page.press("Enter", CONTROL)


def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
    )
    return found


def answer(server: Server, **knobs: Any) -> dict[str, Any]:
    """What the interface itself says to the same question."""
    body = {
        "model": "hierrouter",
        "messages": [{"role": "user", "content": QUESTION}],
        "hierrouter": knobs,
    }
    request = urllib.request.Request(
        f"{server.url}/openai/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        told: dict[str, Any] = json.load(response)
        return told


def test_it_is_one_response_that_needs_no_other(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/playground", timeout=60) as response:
        page, headers = response.read().decode(), response.headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name in ("script-src", "style-src"):
        assert re.fullmatch(r"('sha256-[A-Za-z0-9+/]{43}=' ?)+", policy[name])
    assert len(page.encode()) < 40_000
    assert not re.search(r"\s(src|href|style|on\w+)=|@import|url\(|//\w+\.\w", page)


def test_a_flag_leaves_it_out(start_server: Callable[..., Server], server: Server) -> None:
    without = start_server("--no-playground")
    assert not any("/playground" in line for line in without.lines)
    assert any("playground at /playground" in line for line in server.lines)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{without.url}/playground", timeout=60)


def test_an_answer_appears_with_its_hops_beside_a_single_model(
    visit: Callable[..., Page], server: Server
) -> None:
    told = answer(server)
    page = visit(server)
    ask(page, single="large")
    page.until("!document.getElementById('comparison').hidden")
    hops = told["hierrouter"]["hops"]
    assert texts(page, "#routed .hop .model") == [hop["model"] for hop in hops]
    assert page.text("#routed .answer .text") == told["choices"][0]["message"]["content"]
    assert page.text("#routed-title") == "The router at alpha 0.1"
    first = page.text("#routed .hop")
    best = next(iter(hops[0]["scores"]))
    assert page.text("#routed .chosen .name") == best
    assert f"{hops[0]['tokens_in']} in, {hops[0]['tokens_out']} out" in first
    assert page.run(f"money({hops[0]['cost_usd']})") in first
    single = answer(server, models=["large"], max_hops=1)
    assert page.text("#alone-title") == "large alone"
    assert page.text("#alone .answer .text") == single["choices"][0]["message"]["content"]
    assert page.run(f"money({single['hierrouter']['cost_usd']})") in page.text("#alone .hop")
    ratio = told["hierrouter"]["cost_usd"] / single["hierrouter"]["cost_usd"]
    assert page.run(f"factor({ratio}, 1)").replace("same", "as much as") in page.text("#verdict")
    assert page.complaints() == []


def test_a_second_hop_follows_the_first_and_no_single_model_is_asked(
    visit: Callable[..., Page], paper_server: Server, upstream: Upstream
) -> None:
    upstream.reply.update(dict.fromkeys(("small", "medium", "large"), "said by a model"))
    page = visit(paper_server)
    assert page.run("document.getElementById('single').disabled")
    assert "always makes 2 hops" in page.text("#single-help")
    page.click("#question")
    page.type(QUESTION)
    page.press("Enter", CONTROL)
    page.until(ENDED)
    told = answer(paper_server)["hierrouter"]
    assert texts(page, "#routed .hop .model") == told["route"].split(":")
    assert texts(page, "#routed .hop .role") == ["analyzes", "solves"]
    assert texts(page, "#routed .hop .reply .text") == ["said by a model", ""]
    assert told["route"] in page.text("#routed .totals")
    assert not page.seen("#alone")


def test_which_of_two_answers_is_returned_is_shown(
    visit: Callable[..., Page],
    start_server: Callable[..., Server],
    cascade_router: Path,
    upstream: Upstream,
) -> None:
    server = start_server("--endpoint", f"medium={upstream.url}", router=cascade_router)
    told = answer(server)
    assert told["hierrouter"]["route"] == "small!medium=small"
    page = visit(server)
    ask(page)
    page.until(ENDED)
    hops = "#routed .route > *"
    assert texts(page, f"{hops} .note") == ["Its answer is returned.", ""]
    assert told["choices"][0]["message"]["content"] in texts(page, "#routed .answer")[0]
    # A model that fails after an answer: the answer stays.
    upstream.behaviour["medium"] = "gateway"
    ask(page, models=("small", "medium"))
    page.until(ENDED)
    notes = texts(page, f"{hops} .note")
    assert notes == ["Its answer is returned.", "It failed, or was too slow."]
    assert told["choices"][0]["message"]["content"] in texts(page, "#routed .answer")[0]


def test_replies_are_shown_as_text_and_nothing_in_them_runs(
    visit: Callable[..., Page], paper_server: Server, upstream: Upstream
) -> None:
    upstream.reply.update(dict.fromkeys(("small", "medium", "large"), HOSTILE))
    page = visit(paper_server)
    before = page.run("document.querySelectorAll('*').length")
    ask(page, single="")
    page.until(ENDED)
    assert page.text("#routed .answer .text").strip() == HOSTILE
    assert texts(page, "#routed .reply .text")[0] == HOSTILE
    assert page.run("document.querySelectorAll('#results :is(img, svg, script, a)').length") == 0
    assert page.run("document.querySelectorAll('*').length") > before
    assert page.run("document.title") == "HierRouter playground"
    assert page.complaints() == []


def test_names_and_failures_are_shown_as_text(visit: Callable[..., Page], server: Server) -> None:
    page = visit(server)
    decision = {
        **{"event": "decision", "index": 0, "model": HOSTILE, "role": HOSTILE},
        **{"scores": {HOSTILE: 0.6, "small solve": 0.4}, "fallback": False},
    }
    page.run("document.getElementById('results').hidden = false")
    page.run(f"routed.begin({json.dumps(HOSTILE)}, 1)")
    page.run(f"routed.take({json.dumps({'choices': [], 'hierrouter': decision})})")
    page.run(f"routed.fail({json.dumps(HOSTILE)})")
    for part in ("h2", ".model", ".role", ".choices .name", ":scope > .error"):
        assert texts(page, f"#routed {part}".replace(":scope ", ""))[0] == HOSTILE, part
    assert page.run("document.querySelectorAll('#results :is(img, svg, script, a)').length") == 0
    assert page.run("document.title") == "HierRouter playground"


def test_the_policy_blocks_what_is_foreign(
    visit: Callable[..., Page], server: Server, upstream: Upstream
) -> None:
    page = visit(server)
    foreign = upstream.url.removesuffix("/v1")
    page.run(
        "window.blocked = []; document.addEventListener('securitypolicyviolation',"
        " (e) => { blocked.push(e.effectiveDirective); document.body.dataset.seen = blocked; })"
    )
    page.run(f"import('{foreign}/script.js').catch(() => {{}})")
    page.run(f"fetch('{foreign}/data').catch(() => {{}})")
    page.run(f"new Image().src = '{foreign}/image.png'")
    page.run("document.body.setAttribute('style', 'color: red')")
    page.run(
        "(() => { const script = document.createElement('script');"
        " script.append(document.createTextNode('window.ran = true'));"
        " document.body.append(script); })()"
    )
    wanted = {"script-src-elem", "connect-src", "img-src", "style-src-attr"}
    page.until(f"{json.dumps(sorted(wanted))}.every((name) => blocked.includes(name))")
    assert page.run("window.ran") is None
    with pytest.raises(AssertionError, match="TrustedHTML"):
        page.run("document.body.innerHTML = '<b>markup</b>'")


def test_a_keyboard_is_enough(
    visit: Callable[..., Page], server: Server, upstream: Upstream
) -> None:
    page = visit(server)
    stops = []
    while True:
        page.press("Tab")
        if (name := page.run("document.activeElement.id || document.activeElement.tagName")) in (
            *stops,
            "BODY",
        ):
            break
        stops.append(name)
        style = page.run(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])"
            "(getComputedStyle(document.activeElement))"
        )
        assert style == ["solid", "3px"], name
        label = page.run(
            "(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()"
        )
        assert label, name
    assert stops == ["question", "alpha", "single", "BUTTON", "SUMMARY"]

    page.run("document.activeElement.blur()")
    page.open(f"{server.url}/playground")
    page.until(READY)
    page.press("Tab")
    page.type(QUESTION)
    page.press("Tab")
    for _ in range(3):
        page.press("ArrowRight")
    assert page.text("#alpha-value") == "0.13"
    page.press("Tab")
    page.press("Home")
    assert page.run("document.getElementById('single').value") == "small"
    page.press("Tab")
    page.press("Tab")
    page.press("Enter")
    assert page.run("document.getElementById('limits').open")
    for _ in range(3):
        page.press("Tab")
    page.press("End")
    assert page.run("document.getElementById('max-hops').value") == "1"
    page.press("Tab")
    assert page.run("document.activeElement.value") == "small"
    for _ in range(2):
        page.press("Tab")
        page.press(" ")
    assert texts(page, "[name=model]:checked") == [""]

    upstream.behaviour["small"] = "endless"
    page.press("Enter", CONTROL)
    page.until("document.querySelector('#routed .answer .text').textContent.length > 40")
    assert page.text("#routed-title") == "The router at alpha 0.13"
    assert page.text("#routed .status") == "Hop 1: small solves"
    page.press("Escape")
    page.until(ENDED)
    assert page.text("#routed .status") == page.text("#alone .status") == "Stopped"
    assert all(upstream.given_up.acquire(timeout=30) for _ in range(2))

    upstream.behaviour["small"] = "ok"
    page.press("Tab", SHIFT)
    page.press("Enter", CONTROL)
    page.until("!document.getElementById('comparison').hidden")
    assert page.text("#verdict").startswith("The route cost as much as small alone")


def test_stop_and_a_new_question_end_the_old_one(
    visit: Callable[..., Page], server: Server, upstream: Upstream
) -> None:
    upstream.behaviour["small"] = "endless"
    page = visit(server)
    ask(page, single="", models=("small",))
    page.until("document.querySelector('#routed .answer .text').textContent.length > 40")
    upstream.behaviour["small"] = "ok"
    page.press("Enter", CONTROL)
    page.until(ENDED)
    assert upstream.given_up.acquire(timeout=30)
    assert page.text("#routed .answer .text") == "one two three four"
    assert page.text("#routed .status").startswith("Done")

    upstream.behaviour["small"] = "endless"
    page.press("Enter", CONTROL)
    page.until("document.querySelector('#routed .answer .text').textContent.length > 40")
    page.click("#stop")
    page.until(ENDED)
    assert upstream.given_up.acquire(timeout=30)
    assert page.text("#routed .status") == "Stopped"
    assert page.focused() == "question"


def test_failures_are_told_where_they_happen(
    visit: Callable[..., Page], server: Server, upstream: Upstream
) -> None:
    upstream.behaviour["medium"] = "error"
    page = visit(server)
    ask(page, single="medium", models=("small", "large"))
    page.until(ENDED)
    assert page.text("#alone > .error") == (
        "The server could not answer: model medium broke its answer off"
    )
    assert page.text("#alone .answer .text") == "one two"
    assert page.text("#alone .status") == "The answer is not whole"
    assert page.text("#routed .status").startswith("Done")
    assert not page.seen("#routed > .error")
    assert not page.seen("#comparison")

    page.run("document.getElementById('single').value = 'small'")
    page.click("#max-cost")
    page.type("0.000000001")
    page.press("Enter", CONTROL)
    page.until(f"{ENDED} && !document.querySelector('#routed > .error').hidden")
    assert "hierrouter.max_cost" in page.text("#routed > .error")
    assert page.text("#alone .status").startswith("Done")
    assert not page.seen("#alone > .error")

    for name in ("small", "large"):
        page.click(f"[value={name}]")
    page.run("document.getElementById('max-cost').value = ''")
    page.press("Enter", CONTROL)
    page.until(
        f"{ENDED} && document.querySelector('#routed > .error').textContent.includes('models')"
    )
    assert page.text("#routed > .error").startswith("The server refused this: hierrouter.models")

    page.offline()
    page.press("Enter", CONTROL)
    page.until(f"{ENDED} && !document.querySelector('#alone > .error').hidden")
    for column in ("routed", "alone"):
        assert page.text(f"#{column} > .error").startswith("The server cannot be reached")


def test_a_wrong_setting_that_is_folded_away_is_pointed_at(
    visit: Callable[..., Page], server: Server
) -> None:
    page = visit(server)
    page.run("document.getElementById('limits').open = true")
    page.click("#deadline")
    page.type("-1")
    page.run("document.getElementById('limits').open = false")
    page.click("#question")
    page.type(QUESTION)
    page.press("Enter", CONTROL)
    assert page.run("document.getElementById('limits').open")
    assert page.focused() == "deadline"
    assert not page.seen("#results")


def test_a_hop_that_failed_stays_in_the_picture(visit: Callable[..., Page], server: Server) -> None:
    page = visit(server)
    page.run("document.getElementById('results').hidden = false")
    page.run("routed.begin('The router', 1)")
    for model, fallback in (("medium", False), ("small", True)):
        told = {
            **{"event": "decision", "index": 0, "model": model, "role": "solve"},
            **{"scores": {f"{model} solve": 1.0}, "fallback": fallback},
        }
        page.run(f"routed.take({json.dumps({'choices': [], 'hierrouter': told})})")
    assert texts(page, "#routed .hop .model") == ["medium", "small"]
    assert texts(page, "#routed .hop > .note") == [
        "It failed; the router chose again.",
        "A stand-in: the model of choice fails at present.",
    ]
    assert page.run("document.querySelectorAll('#routed .hop.failed').length") == 1


def test_a_server_with_keys_is_asked_with_one(browser: Browser, locked_server: Server) -> None:
    page = browser.page(f"{locked_server.url}/playground", prefers_color_scheme="dark")
    page.until("document.activeElement.id === 'key'")
    assert page.run("document.getElementById('controls').disabled")
    assert page.run("document.getElementById('key').type") == "password"
    page.type("no-key-of-the-server")
    page.press("Enter")
    page.until("!document.getElementById('key-error').hidden")
    assert page.text("#key-error") == "The server does not know this key."
    page.type(KEY)
    page.press("Enter")
    page.until(READY)
    assert not page.seen("#key-form")
    assert page.focused() == "question"
    ask(page)
    page.until("!document.getElementById('comparison').hidden")

    page.open(f"{locked_server.url}/playground")
    page.until(READY)
    assert page.run("[localStorage.length, document.cookie, location.search]") == [0, "", ""]
    page.run("remember('another-key-than-that')")
    ask(page)
    page.until(ENDED)
    assert page.text("#routed > .error").startswith("The server wants a key")
    assert page.focused() == "key"


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_scrolls_in_one_direction(
    visit: Callable[..., Page], server: Server, upstream: Upstream, width: int
) -> None:
    upstream.reply["small"] = "x" * 500 + " https://example.org/" + "y" * 500
    page = visit(server, width)
    ask(page, single="small", models=("small",))
    page.until("!document.getElementById('comparison').hidden")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("innerWidth") == width
    wide = page.run(
        "[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()"
        f" && e.getBoundingClientRect().right > {width}).map((e) => e.tagName + e.className)"
    )
    assert wide == []
    small = page.run(
        "[...document.querySelectorAll('button, select, textarea, input[type=number]')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44)"
        ".map((e) => e.id)"
    )
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(
    visit: Callable[..., Page], server: Server, upstream: Upstream, scheme: str
) -> None:
    upstream.behaviour["medium"] = "error"
    page = visit(server, prefers_color_scheme=scheme)
    shown = page.run("getComputedStyle(document.body).backgroundColor")
    assert shown == {"light": "rgb(246, 246, 243)", "dark": "rgb(20, 23, 26)"}[scheme]
    ask(page, single="medium", models=("small", "large"))
    page.until(ENDED)
    assert page.seen("#alone > .error")
    assert page.run(CONTRAST) == []
    page.run("document.getElementById('single').value = 'small'")
    page.press("Enter", CONTROL)
    page.until("!document.getElementById('comparison').hidden")
    assert page.run(CONTRAST) == []


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_where_that_is_not_wanted(
    visit: Callable[..., Page], server: Server, upstream: Upstream, motion: str, moves: bool
) -> None:
    upstream.behaviour["small"] = "hang"
    page = visit(server, prefers_reduced_motion=motion)
    ask(page, single="", models=("small",))
    page.until("document.querySelector('.hop.running')")
    assert bool(page.run("document.getAnimations().length")) is moves
    page.press("Escape")
    page.until(ENDED)


def test_numbers_are_said_plainly(visit: Callable[..., Page], server: Server) -> None:
    page = visit(server)
    for expression, said in {
        "money(0)": "$0",
        "money(0.0000310000001)": "$0.000031",
        "money(1.5)": "$1.5",
        "money(undefined)": "unknown",
        "duration(0.3125)": "0.31 ms",
        "duration(61.2)": "61 ms",
        "duration(1234)": "1.23 s",
        "duration(12345)": "12.3 s",
        "duration(125000)": "2 min 5 s",
        "share(0)": "0%",
        "share(0.0004)": "<0.1%",
        "share(0.0153)": "1.5%",
        "share(0.981)": "98%",
        "share(0.999)": ">99%",
        "share(1)": "100%",
        "short(0.6453)": "0.65",
        "short(1234.5)": "1,235",
        "factor(1.001, 1)": "same",
        "factor(1.03, 1)": "103% of",
        "factor(1.05, 1)": "1.1 times",
        "factor(123, 1)": "123 times",
        "verdict({cost: 2, ms: 10}, {cost: 4, ms: 5}, 'A')": (
            "The route cost 50% of what A alone cost, and took 2 times as long."
        ),
        "verdict({cost: 4, ms: 5}, {cost: 4, ms: 10}, 'A')": (
            "The route cost as much as A alone, and took 50% of its time."
        ),
        "verdict({cost: 0, ms: 5}, {cost: 0, ms: 5}, 'A')": (
            "The route and A alone are free, and took as long."
        ),
        "verdict({cost: 1, ms: 500}, {cost: 0, ms: 5}, 'A')": (
            "The route cost $1, and A alone is free, and took 100 times as long."
        ),
    }.items():
        assert page.run(expression) == said, expression

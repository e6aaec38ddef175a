"""A real small model behind the server: in its process, and behind `transformers serve`."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest
from tests.precision import sums_in_bfloat16
from tests.routers import arbitrary_router
from tests.transformers_server import Served

from hierrouter import hub
from hierrouter.config import PoolConfig
from hierrouter.pool.open import open_backend
from hierrouter.pool.weights import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real_model
SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTIONS = ["What is 6 times 7?", "Name a colour.", "Who wrote Hamlet?", "What is the sea?"]
LIMIT = 16


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    spec = pool_of("http://localhost:1/v1", "none").models[0]
    running = Served(prepare(spec).folder, home)
    try:
        yield running
    finally:
        running.stop()


def pool_of(url: str, served_name: str) -> PoolConfig:
    limits = {"solve": LIMIT, "analyze": 8}
    size = {"billion_parameters": 0.135, "limits": limits, "model": SMOL}
    endpoint = {"url": url, "served_name": served_name}
    return PoolConfig.model_validate(
        {
            "hops": 2,
            "encoder": {"model": "hashing", "dimensions": 16},
            "models": [
                {"name": "here", **size},
                {"name": "there", "backend": "openai", "endpoint": endpoint, **size},
            ],
        }
    )


@pytest.fixture(scope="module")
def client(there, start_server, tmp_path_factory) -> openai.OpenAI:
    pool = pool_of(there.url, str(prepare(pool_of("http://x/v1", "x").models[0]).folder))
    folder = tmp_path_factory.mktemp("real") / "router"
    arbitrary_router(pool).save(folder, [], "A router for tests.")
    server = start_server(router=folder, HIERROUTER_HOME=str(hub.home()))
    assert any("loading here (openvino, int8, cpu)" in line for line in server.lines)
    assert any("there is answered for by" in line for line in server.lines)
    return openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key="none", max_retries=0)


def ask(client, question: str, **knobs: Any) -> Any:
    return client.chat.completions.create(
        model="hierrouter",
        messages=[{"role": "user", "content": question}],
        extra_body={"hierrouter": knobs},
    )


def test_many_at_once_get_what_the_recorder_would_get(client) -> None:
    spec = pool_of("http://x/v1", "x").models[0]
    backend = open_backend(spec, PoolConfig.model_validate({"models": [spec]}).prompts, 4096)
    rendered = [backend.render(question) for question in QUESTIONS]
    expected = backend.generate(rendered, [LIMIT] * len(QUESTIONS))
    backend.close()
    with ThreadPoolExecutor(len(QUESTIONS)) as threads:
        answers = list(
            threads.map(lambda q: ask(client, q, models=["here"], max_hops=1), QUESTIONS)
        )
    # Where the processor is fast at bfloat16, sums are as coarse, and who else is in the batch may
    # decide a near-tie: from there on a reply goes another way.
    replies = [answer.choices[0].message.content for answer in answers]
    same = [reply == known.reply for reply, known in zip(replies, expected, strict=True)]
    assert sum(same) >= (len(QUESTIONS) / 2 if sums_in_bfloat16() else len(QUESTIONS))
    for answer, known in zip(answers, expected, strict=True):
        assert answer.choices[0].message.content.split()[:2] == known.reply.split()[:2]
        assert answer.usage.prompt_tokens == known.tokens_in
        assert answer.usage.completion_tokens == known.tokens_out
        assert answer.choices[0].finish_reason == known.finish_reason


@pytest.mark.parametrize("name", ["here", "there"])
def test_a_stream_is_the_plain_answer_in_pieces(client, name) -> None:
    knobs = {"models": [name], "max_hops": 1}
    plain = ask(client, QUESTIONS[2], **knobs)
    chunks = list(
        client.chat.completions.create(
            model="hierrouter",
            messages=[{"role": "user", "content": QUESTIONS[2]}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"hierrouter": knobs},
        )
    )
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert "".join(pieces) == plain.choices[0].message.content
    assert len(pieces) > 3
    assert chunks[-1].usage == plain.usage
    assert plain.usage.completion_tokens == LIMIT
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason == "length"


def test_a_conversation_and_a_stop_reach_a_real_model(client) -> None:
    messages = [
        {"role": "system", "content": "You only ever say the word blue."},
        {"role": "user", "content": "Say it."},
        {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "Again."},
    ]
    knobs = {"hierrouter": {"models": ["here"], "max_hops": 1}}
    asked = {"model": "hierrouter", "messages": messages, "extra_body": knobs}
    whole = client.chat.completions.create(**asked)
    alone = ask(client, "Again.", models=["here"], max_hops=1)
    assert whole.usage.prompt_tokens > alone.usage.prompt_tokens
    text = whole.choices[0].message.content
    stop = text[3:5]
    cut = client.chat.completions.create(**asked, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)].rstrip()
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < whole.usage.completion_tokens


def test_cost_limits_hold_for_real_tokens(client) -> None:
    whole = ask(client, QUESTIONS[0]).model_extra["hierrouter"]["cost_usd"]
    for budget in (1.5 * whole, 3 * whole, 6 * whole):
        answer = ask(client, QUESTIONS[0], max_cost=budget, models=["here"])
        assert answer.model_extra["hierrouter"]["cost_usd"] <= budget
    with pytest.raises(openai.BadRequestError):
        ask(client, QUESTIONS[0], max_cost=0.000001)


def test_a_question_that_is_too_long_is_refused(client) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "word " * 9000, models=["here"])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_while_it_loads_it_ends(tmp_path, number) -> None:
    pool = pool_of("http://localhost:1/v1", "none")
    arbitrary_router(pool).save(tmp_path / "router", [], "A router for tests.")
    command = [sys.executable, "-m", "hierrouter.cli.main", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--router", str(tmp_path / "router")], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "loading here" in line:
            break
    process.send_signal(number)
    said = process.stderr.read()
    assert process.wait(120) == 130
    assert "serving at" not in said
    assert "Traceback" not in said

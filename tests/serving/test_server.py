"""The real server as a process, asked by the clients that people have."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
import pandas as pd
import pytest
from tests.upstream import Upstream

from hierrouter.learning.router import Router
from hierrouter.serving.shapes import (
    ChatCompletion,
    KServeError,
    ModelList,
    ModelTold,
    OpenAIError,
    Predictions,
    RouteTold,
)
from hierrouter.tracking.pyfunc_model import FirstDecision
from hierrouter.tracking.store import connected, tracking_at

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-of-more-than-sixteen"
QUESTION = "Topic: history. Some filler. Marker: jade. What is 12 plus 30?"
ASKED = [{"role": "user", "content": QUESTION}]
NAMES = ("small", "medium", "large")
CHAT = "/openai/v1/chat/completions"
V1, V2 = "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer"


@pytest.fixture(scope="module")
def server(start_server):
    """Over the scripted pool, with a key."""
    telling = (sys.executable, "-m", "tests.serving.telling")
    return start_server(program=telling, HIERROUTER_API_KEYS=KEY)


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def routed(start_server, upstream):
    """A server whose models all run behind the upstream, without keys."""
    pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
    return start_server(*pairs, "--max-requests", "4")


@pytest.fixture(scope="module")
def another(start_server, upstream):
    """The same, for tests after which its models are left alone for a while."""
    return start_server(*(f"--endpoint={name}={upstream.url}" for name in NAMES))


@pytest.fixture
def through(routed, upstream):
    """A client of the first; the upstream behaves well again afterwards."""
    yield openai.OpenAI(base_url=f"{routed.url}/openai/v1", api_key="none", max_retries=0)
    upstream.behaviour.clear()


@pytest.fixture
def fallible(another, upstream):
    """A client of the other."""
    yield openai.OpenAI(base_url=f"{another.url}/openai/v1", api_key="none", max_retries=0)
    upstream.behaviour.clear()


def get(url: str, key: str | None = KEY) -> Any:
    request = urllib.request.Request(url)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def send(server, method: str, path: str, body: bytes = b"", **headers: str):
    """One request by hand: its status, headers and body."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_a_plain_answer_tells_how_it_came_about(client) -> None:
    raw = client.chat.completions.with_raw_response.create(model="hierrouter", messages=ASKED)
    answer = raw.parse()
    told = answer.model_extra["hierrouter"]
    assert re.fullmatch(r".*Answer: \d+", answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert told["route"] == ":".join(hop["model"] for hop in told["hops"])
    assert answer.usage.prompt_tokens == sum(hop["tokens_in"] for hop in told["hops"])
    assert answer.usage.completion_tokens == sum(hop["tokens_out"] for hop in told["hops"])
    assert told["cost_usd"] == pytest.approx(sum(hop["cost_usd"] for hop in told["hops"]))
    assert told["alpha"] == 0.1
    assert not told["degraded"]
    last = told["hops"][-1]
    assert last["role"] == "solve"
    assert sum(last["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert next(iter(last["scores"])) == f"{last['model']} solve"
    assert raw.headers["x-hierrouter-route"] == told["route"]
    assert float(raw.headers["x-hierrouter-cost-usd"]) == pytest.approx(told["cost_usd"])
    assert raw.headers["x-request-id"] in answer.id
    assert answer.system_fingerprint == f"hierrouter-{told['router']['version']}"


def test_a_stream_says_the_same(client) -> None:
    plain = client.chat.completions.create(model="hierrouter", messages=ASKED)
    chunks = list(
        client.chat.completions.create(
            model="hierrouter",
            messages=ASKED,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    told, known = chunks[-1].model_extra["hierrouter"], plain.model_extra["hierrouter"]
    assert told["route"] == known["route"]
    assert [hop["scores"] for hop in told["hops"]] == [hop["scores"] for hop in known["hops"]]
    assert not any("hierrouter" in (chunk.model_extra or {}) for chunk in chunks[:-1])


def test_without_usage_the_last_chunk_tells_the_route(client) -> None:
    chunks = list(client.chat.completions.create(model="hierrouter", messages=ASKED, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra["hierrouter"]["hops"]
    assert all(chunk.usage is None for chunk in chunks)


def test_progress_tells_each_decision_and_hop(client) -> None:
    chunks = client.chat.completions.create(
        model="hierrouter",
        messages=ASKED,
        stream=True,
        extra_body={"hierrouter": {"progress": True}},
    )
    events = [c.model_extra["hierrouter"] for c in chunks if "hierrouter" in (c.model_extra or {})]
    kinds = [event.get("event") for event in events]
    assert kinds == ["decision", "hop"] * (len(events) // 2) + [None]
    assert events[-1]["hops"][0]["model"] == events[0]["model"] == events[1]["model"]


def test_earlier_replies_are_told_only_when_asked_for(start_server, paper_router) -> None:
    server = start_server(router=paper_router)
    client = openai.OpenAI(base_url=f"{server.url}/openai/v1", api_key="none")

    def hops(**knobs):
        answer = client.chat.completions.create(
            model="hierrouter", messages=ASKED, extra_body={"hierrouter": knobs}
        )
        return answer.model_extra["hierrouter"]["hops"]

    first, last = hops()
    assert (first["role"], last["role"]) == ("analyze", "solve")
    assert "reply" not in first
    first, last = hops(replies=True)
    assert first["reply"].startswith("Plan: add the two numbers.")
    assert "reply" not in last
    tensor = {"name": "query", "datatype": "BYTES", "shape": [1], "data": [QUESTION]}
    asked = {"inputs": [tensor], "parameters": {"replies": True}, "outputs": [{"name": "detail"}]}
    _, _, body = server.send("POST", V2.format(model_name="hierrouter"), asked)
    (detail,) = json.loads(body)["outputs"][0]["data"]
    assert json.loads(detail)["hops"][0]["reply"] == first["reply"]


def test_knobs_and_presets_reach_the_policy(client) -> None:
    def told(model="hierrouter", **knobs):
        answer = client.chat.completions.create(
            model=model, messages=ASKED, extra_body={"hierrouter": knobs}
        )
        return answer.model_extra["hierrouter"]

    assert told(models=["medium"], max_hops=1)["route"] == "medium"
    assert told("hierrouter-cheap")["alpha"] == 1.0
    assert told("hierrouter-best")["alpha"] == 0.0
    assert told(max_cost=0.0002)["cost_usd"] <= 0.0002
    with pytest.raises(openai.BadRequestError) as caught:
        told(max_cost=1e-9)
    assert caught.value.code == "max_cost_too_low"
    assert caught.value.param == "hierrouter.max_cost"


def test_stop_max_tokens_and_what_is_not_heeded(client) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="hierrouter", messages=ASKED, stop=["Answer"], temperature=0.9
    )
    answer = raw.parse()
    assert "Answer" not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model_extra["hierrouter"]["unheeded"] == ["temperature"]
    assert raw.headers["x-hierrouter-unheeded"] == "temperature"
    short = client.chat.completions.create(model="hierrouter", messages=ASKED, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.model_extra["hierrouter"]["hops"][-1]["tokens_out"] == 3


@pytest.mark.parametrize(
    ("fields", "error", "parameter"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model"),
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"extra_body": {"hierrouter": {"alpa": 1}}}, openai.BadRequestError, "hierrouter.alpa"),
        ({"extra_body": {"surprise": 1}}, openai.BadRequestError, "surprise"),
    ],
)
def test_refusals_are_openais_errors(client, fields, error, parameter) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "hierrouter", "messages": ASKED, **fields})
    assert caught.value.param == parameter
    assert caught.value.type == "invalid_request_error"


def test_models_are_listed_with_what_there_is_to_choose_from(client) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["hierrouter", "hierrouter-cheap", "hierrouter-best"]
    told = client.models.retrieve("hierrouter-best").model_extra["hierrouter"]
    assert told["models"] == list(NAMES)
    assert told["alpha_range"] == [0.0, 1.0]
    assert (told["alpha"], told["hops"]) == (0.0, 2)


def test_the_description_names_the_fields(server) -> None:
    described = json.loads(get(f"{server.url}/openapi.json"))
    post = described["paths"]["/openai/v1/chat/completions"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert {"model", "messages", "hierrouter", "stream"} <= schema["properties"].keys()
    named = re.findall(r"#/components/schemas/(\w+)", json.dumps(described))
    assert set(named) == described["components"]["schemas"].keys()
    assert {"Knobs", "RouteTold", "HopTold"} <= set(named)


def test_the_description_tells_what_each_route_takes_and_answers(server) -> None:
    described = json.loads(get(f"{server.url}/openapi.json"))
    paths = described["paths"]
    assert not any("explain" in path or "versions" in path for path in paths)
    for path, methods in paths.items():
        for told in methods.values():
            assert "422" not in told["responses"]
            assert ("401" in told["responses"]) == (path not in OPEN), path
            kinds = told["responses"]["200"]["content"].values()
            assert all(kind["schema"] for kind in kinds), path
    said = json.dumps(described)
    for theirs in ("Args:", " handler", "dataplane", "Dict[", "HTTPValidationError"):
        assert theirs not in said
    asking = {"400", "401", "404", "408", "413", "415", "429", "500", "503", "504"}
    for path in (CHAT, V1, V2):
        post = paths[path]["post"]
        assert asking | {"200"} == post["responses"].keys()
        assert post["requestBody"]["content"]["application/json"]["schema"]
    for name in ("query", "alpha", "max_cost", "max_hops", "deadline_ms", "max_tokens"):
        assert f"`{name}`" in paths[V2]["post"]["description"]
    for name in ("answer", "route", "relative_cost", "tokens_out", "detail"):
        assert f"`{name}` (" in paths[V2]["post"]["description"]


def test_answers_are_as_the_description_says(server, client) -> None:
    described = json.loads(get(f"{server.url}/openapi.json"))["components"]["schemas"]
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "hierrouter", "messages": ASKED, "temperature": 1}
    body["hierrouter"] = {"max_cost": 1.0, "replies": True}
    status, _, answer = server.send("POST", CHAT, body, **headers)
    assert (status, ChatCompletion.model_validate_json(answer).object) == (200, "chat.completion")
    last = list(client.chat.completions.create(model="hierrouter", messages=ASKED, stream=True))[-1]
    assert RouteTold.model_validate(last.model_extra["hierrouter"]).hops[-1].first_token_ms > 0
    assert ModelList.model_validate_json(get(f"{server.url}/openai/v1/models")).data
    assert ModelTold.model_validate_json(get(f"{server.url}/openai/v1/models/hierrouter")).id
    for path, name in ((V1, "V1Request"), (V2, "V2Request")):
        asked = path.format(model_name="hierrouter")
        status, _, answer = server.send("POST", asked, described[name]["example"], **headers)
        assert status == 200
        if path == V1:
            assert len(Predictions.model_validate_json(answer).predictions) == 2
        status, _, answer = server.send("POST", asked, {}, **headers)
        assert (status, bool(KServeError.model_validate_json(answer))) == (400, True)
    status, _, answer = server.send("POST", CHAT, {}, **headers)
    assert (status, OpenAIError.model_validate_json(answer).error.param) == (400, "model")


def test_kserves_v1_and_v2_give_the_same_route(server, client) -> None:
    told = client.chat.completions.create(model="hierrouter", messages=ASKED).model_extra
    known = told["hierrouter"]
    body = json.dumps({"instances": [QUESTION, {"query": QUESTION, "models": ["medium"]}]})
    key = {"Authorization": f"Bearer {KEY}", "Content_Type": "application/json"}
    status, _, answer = send(server, "POST", "/v1/models/hierrouter:predict", body.encode(), **key)
    assert status == 200
    first, second = json.loads(answer)["predictions"]
    assert first["route"] == known["route"]
    assert first["detail"]["hops"][0]["scores"] == known["hops"][0]["scores"]
    assert set(second["route"].split(":")) == {"medium"}

    client_code = f"""
import sys, asyncio, json
sys.argv = sys.argv[:1]
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig

async def main():
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    assert await rest.is_server_live({server.url!r})
    assert await rest.is_server_ready({server.url!r})
    headers = {{"Authorization": "Bearer {KEY}"}}
    assert await rest.is_model_ready({server.url!r}, "hierrouter", headers=headers)
    query = InferInput("query", [2], "BYTES", data=[{QUESTION!r}, {QUESTION!r}])
    alpha = InferInput("alpha", [2], "FP64", data=[0.1, 1.0])
    request = InferRequest("hierrouter", [query, alpha])
    answer = await rest.infer({server.url!r}, request, headers=headers, model_name="hierrouter")
    outputs = {{output.name: output.data for output in answer.outputs}}
    print(json.dumps(outputs))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", client_code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)
    assert outputs["route"][0] == known["route"]
    details = [json.loads(detail) for detail in outputs["detail"]]
    assert details[0]["hops"][0]["scores"] == known["hops"][0]["scores"]
    assert [detail["alpha"] for detail in details] == [0.1, 1.0]
    assert outputs["answer"][0].endswith(first["answer"][-10:])


def test_ask_and_the_pyfunc_give_the_same_route(client, router_folder) -> None:
    told = client.chat.completions.create(model="hierrouter", messages=ASKED).model_extra
    known = told["hierrouter"]
    hierrouter = [sys.executable, "-m", "hierrouter.cli.main"]
    command = [*hierrouter, "ask", QUESTION, "--router", str(router_folder)]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"path {known['route']}, cost ${known['cost_usd']:.6f}" in asked.stderr
    model = FirstDecision()
    settings = {"artifacts": {"router": str(router_folder)}, "model_config": {"alpha": 0.1}}
    model.load_context(SimpleNamespace(**settings))
    row = model.predict(None, pd.DataFrame({"prompt": [QUESTION]})).iloc[0]
    first = known["hops"][0]
    assert (row["model"], row["role"]) == (first["model"], first["role"])
    for name, chance in first["scores"].items():
        assert row[name.replace(" ", "/")] == pytest.approx(chance, abs=1e-5)


def all_routes(server) -> list[tuple[str, str]]:
    """Every route that a server has, with the names filled in."""
    server.process.send_signal(signal.SIGUSR1)
    routes = json.loads(server.process.stdout.readline())
    described = json.loads(get(f"{server.url}/openapi.json"))["paths"]
    assert {(method.upper(), path) for path in described for method in described[path]} <= {
        (method, path) for method, path in routes
    }
    names = {"model_name": "hierrouter", "name": "hierrouter", "model_version": "1"}
    filled = [
        (method, re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path))
        for method, path in routes
    ]
    assert ("POST", "/v1/models/hierrouter:predict") in filled
    assert ("POST", "/openai/v1/chat/completions") in filled
    return filled


OPEN = {"/", "/v2/health/live", "/v2/health/ready", "/metrics", "/playground"}


def test_no_route_but_health_and_numbers_answers_without_a_key(server) -> None:
    routes = all_routes(server)
    assert len(routes) > 15
    assert {("GET", "/playground"), ("HEAD", "/playground")} <= set(routes)
    for method, path in routes:
        for key in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            status, headers, body = send(server, method, path, b"", **key)
            if path in OPEN and method in ("GET", "HEAD"):
                assert status == 200, (method, path)
                continue
            assert status == 401, (method, path)
            assert headers["www-authenticate"] == "Bearer"
            assert b"KEY" in body or method == "HEAD"
            assert KEY.encode() not in body


def test_nothing_is_loaded_or_unloaded_also_with_a_key(server) -> None:
    key = {"Authorization": f"Bearer {KEY}", "Content_Type": "application/json"}
    for verb in ("load", "unload"):
        path = f"/v2/repository/models/hierrouter/{verb}"
        status, _, body = send(server, "POST", path, b"{}", **key)
        assert status == 403
        assert b"off" in body
    assert send(server, "GET", "/v2/health/ready")[0] == 200


def test_a_body_that_is_too_long_is_refused_before_it_is_read(server) -> None:
    """50 MB, with its length told and without."""
    key = {"Authorization": f"Bearer {KEY}", "Content_Type": "application/json"}
    path = "/openai/v1/chat/completions"
    status, _, body = send(server, "POST", path, b"", Content_Length="50000000", **key)
    assert status == 413
    assert b"1,000,000" in body
    for where in (path, "/v1/models/hierrouter:predict", "/v2/models/hierrouter/infer"):
        netloc = urlsplit(server.url).netloc
        connection = http.client.HTTPConnection(netloc, timeout=60)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in key.items()}
            pieces = iter([b"x" * 1_000_000] * 50)
            with contextlib.suppress(ConnectionError):
                connection.request("POST", where, pieces, named, encode_chunked=True)
            assert connection.getresponse().status == 413


@pytest.mark.parametrize("piece", [b"x-long: ", b"a: b\r\n" * 1000])
def test_headers_without_end_are_refused_before_any_key_is_looked_at(server, piece) -> None:
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n" + piece)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"x" * 100_000)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")
    assert send(server, "GET", "/v2/health/live")[0] == 200


def test_long_bodies_and_many_requests_on_a_connection_are_no_long_headers(server) -> None:
    body = json.dumps({"instances": ["word " * 60_000]}).encode()
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    named = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with contextlib.closing(connection):
        for _ in range(5):
            connection.request("POST", "/v1/models/hierrouter:predict", body, named)
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 400)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; x=1"]
)
def test_what_any_web_page_may_send_is_not_taken(server, kind) -> None:
    key = {"Authorization": f"Bearer {KEY}", "Content_Type": kind}
    body = json.dumps({"model": "hierrouter", "messages": ASKED}).encode()
    status, _, told = send(server, "POST", "/openai/v1/chat/completions", body, **key)
    assert status == 415
    assert b"application/json" in told


def test_without_keys_it_is_asked_by_a_loopback_name_only(routed) -> None:
    assert send(routed, "GET", "/openai/v1/models")[0] == 200
    status, headers, body = send(routed, "GET", "/openai/v1/models", Host="evil.example:80")
    assert status == 403
    assert b"localhost" in body
    assert not any(name.lower().startswith("access-control") for name in headers)


def test_an_answer_that_a_filter_cut_is_told_as_such(through, upstream) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "filtered"))
    raw = through.chat.completions.with_raw_response.create(model="hierrouter", messages=ASKED)
    told = ChatCompletion.model_validate_json(raw.text)
    assert told.choices[0].finish_reason == "content_filter"


def test_a_model_that_fails_is_replaced_and_the_answer_says_so(fallible, upstream) -> None:
    asked = {"model": "hierrouter", "messages": ASKED}
    answer = fallible.chat.completions.create(**asked)
    wanted = answer.model_extra["hierrouter"]["hops"][0]["model"]
    for behaviour in ("refuse", "garbage"):
        upstream.behaviour[wanted] = behaviour
        answer = fallible.chat.completions.create(**asked, stream=behaviour == "garbage")
        last = list(answer)[-1] if behaviour == "garbage" else answer
        told = last.model_extra["hierrouter"]
        assert wanted not in told["route"].split(":")
        assert told["degraded"]
        assert told["hops"][0]["fallback"]
    upstream.behaviour.clear()
    only = {"hierrouter": {"models": [wanted], "max_hops": 1}}
    answer = fallible.chat.completions.create(**asked, extra_body=only)
    assert not answer.model_extra["hierrouter"]["degraded"]


@pytest.mark.parametrize("behaviour", ["cut", "error"])
def test_an_error_after_the_first_piece_is_an_event(fallible, upstream, behaviour) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, behaviour))
    said = []
    knobs = {"hierrouter": {"max_hops": 1}}
    stream = fallible.chat.completions.create(
        model="hierrouter", messages=ASKED, stream=True, extra_body=knobs
    )
    with pytest.raises(openai.APIError) as caught:
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert caught.value.code == "answer_broken_off"
    assert str(upstream.port) not in str(caught.value)


def test_nobody_answers(fallible, upstream) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "refuse"))
    for _ in range(4):
        with pytest.raises(openai.InternalServerError) as caught:
            fallible.chat.completions.create(model="hierrouter", messages=ASKED)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert caught.value.code == "no_model_available"
        assert "broken inside" not in str(caught.value)
    base = str(fallible.base_url).removesuffix("/openai/v1/")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{base}/v2/health/ready", key=None)
    assert refused.value.code == 503
    assert json.loads(get(f"{base}/v2/health/live", key=None))["live"]


def test_a_deadline_is_kept(through, upstream) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))
    with pytest.raises(openai.InternalServerError) as caught:
        through.chat.completions.create(
            model="hierrouter", messages=ASKED, extra_body={"hierrouter": {"deadline_ms": 100}}
        )
    assert caught.value.status_code == 504
    assert caught.value.code == "deadline_exceeded"


def test_servers_that_take_too_long_are_given_up_after_the_time_they_have(
    start_server, upstream
) -> None:
    pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
    hasty = start_server(*pairs, "--endpoint-timeout", "0.2", "--endpoint-calls", "1")
    client = openai.OpenAI(base_url=f"{hasty.url}/openai/v1", api_key="none", max_retries=0)
    upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))
    try:
        # Models of one server that takes 300 s otherwise; the test would not end.
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="hierrouter", messages=ASKED)
    finally:
        upstream.behaviour.clear()
    assert caught.value.status_code == 503
    answers = [client.chat.completions.create(model="hierrouter", messages=ASKED)]
    assert answers[0].choices[0].message.content


@pytest.mark.parametrize("path", ["openai", "v1"])
def test_a_client_that_goes_away_stops_its_generation(routed, upstream, path) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "endless" if path == "openai" else "hang"))
    body: dict[str, Any] = {"instances": [QUESTION]}
    where = "/v1/models/hierrouter:predict"
    if path == "openai":
        body = {"model": "hierrouter", "messages": ASKED, "stream": True}
        where = "/openai/v1/chat/completions"
    connection = http.client.HTTPConnection(urlsplit(routed.url).netloc, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", where, json.dumps(body).encode(), headers)
        assert upstream.under_way.acquire(timeout=60)
        assert connection.sock is not None
        connection.sock.close()
        connection.close()
        assert upstream.given_up.acquire(timeout=60)
    finally:
        upstream.behaviour.clear()


def test_overload_is_refused_early(routed, upstream) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))

    async def run() -> openai.RateLimitError:
        client = openai.AsyncOpenAI(
            base_url=f"{routed.url}/openai/v1", api_key="none", max_retries=0
        )
        held = [
            asyncio.ensure_future(
                client.chat.completions.create(model="hierrouter", messages=ASKED)
            )
            for _ in range(4)
        ]
        for _ in held:
            await asyncio.to_thread(upstream.under_way.acquire, timeout=60)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="hierrouter", messages=ASKED)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await client.close()
        return caught.value

    try:
        error = asyncio.run(run())
    finally:
        upstream.behaviour.clear()
    assert error.code == "overloaded"
    assert error.response.headers["retry-after"] == "1"


def test_numbers_are_told(server, client) -> None:
    client.chat.completions.create(model="hierrouter", messages=ASKED)
    numbers = get(f"{server.url}/metrics", key=None).decode()
    for line in (
        r'hierrouter_requests_total\{api="openai",status="200"\} [1-9]',
        r'hierrouter_request_seconds_count\{api="openai"\} [1-9]',
        r'hierrouter_first_token_seconds_count\{api="openai"\} [1-9]',
        r'hierrouter_hop_seconds_count\{model="\w+",role="solve"\} [1-9]',
        r'hierrouter_tokens_total\{direction="out",model="\w+"\} [1-9]',
        r'hierrouter_cost_usd_total\{model="\w+"\} [0-9.e-]+',
        r'hierrouter_routes_total\{route="[\w:]+"\} [1-9]',
        r"hierrouter_in_flight 0",
        r'hierrouter_model_available\{model="small"\} 1',
        r'hierrouter_model_running\{model="small"\} 0',
    ):
        assert re.search(rf"^{line}", numbers, re.MULTILINE), line


def test_the_log_is_json_and_holds_no_texts_unless_asked(start_server, server, client) -> None:
    client.chat.completions.create(
        model="hierrouter", messages=ASKED, extra_headers={"x-request-id": "my-own-id"}
    )
    logged = await_line(server, "my-own-id")
    assert logged["status"] == 200
    assert logged["route"]
    assert "Topic" not in json.dumps(logged)
    # KServe reads the command line when it is imported, and takes `--log…` for its own logging.
    other = start_server("--log-texts", "--no-playground")
    assert send(other, "GET", "/playground")[0] == 404
    asked = openai.OpenAI(base_url=f"{other.url}/openai/v1", api_key="none")
    asked.chat.completions.create(
        model="hierrouter", messages=ASKED, extra_headers={"x-request-id": "with-texts"}
    )
    logged = await_line(other, "with-texts")
    assert logged["question"] == QUESTION
    assert logged["answer"]


def await_line(server, needle: str) -> dict[str, Any]:
    for _ in range(600):
        for line in server.lines:
            if needle in line:
                found: dict[str, Any] = json.loads(line)
                return found
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(0.05)
    raise AssertionError(f"no line with {needle}")


def refused(*arguments: str, **variables: str) -> str:
    """The one line with which a server refuses to start."""
    command = [sys.executable, "-m", "hierrouter.cli.main", "serve", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=variables or None
    )
    assert done.returncode in (1, 2), done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_it_does_not_start_open_to_all_or_with_wrong_settings(
    router_folder, server, tmp_path
) -> None:
    router = ("--router", str(router_folder), "--port", "0")
    assert "--no-auth" in refused(*router, "--host", "0.0.0.0")
    assert "nothing-here" in refused("--router", str(tmp_path / "nothing-here"))
    taken = str(urlsplit(server.url).port)
    assert taken in refused(*router, "--port", taken)
    assert "small, medium, large" in refused(*router, "--endpoint", "tiny=http://localhost/v1")
    assert "NAME=URL" in refused(*router, "--endpoint", "tiny")
    assert "http" in refused(*router, "--endpoint", "small=ftp://localhost")
    for name in ("a/b", "..", "a b", "x" * 64, ""):
        assert "--name" in refused(*router, "--name", name)
    assert "cannot be read" in refused(*router, "--api-keys", str(tmp_path / "none"))
    assert Router.load(router_folder).info.models == NAMES
    # Reading one would wait for ever.
    pipe = tmp_path / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "router.json")
    assert "no regular file" in refused("--router", str(pipe))


def test_a_share_of_requests_becomes_traces_with_a_span_a_hop(start_server, here) -> None:
    """`here` has an empty MLflow database."""
    traced = start_server("--trace-share", "1", MLFLOW_TRACKING_URI=f"sqlite:///{here}/mlflow.db")
    client = openai.OpenAI(base_url=f"{traced.url}/openai/v1", api_key="none")
    headers = {"x-request-id": "traced-one"}
    answer = client.chat.completions.create(
        model="hierrouter", messages=ASKED, extra_headers=headers
    )
    told = answer.model_extra["hierrouter"]
    assert traced.end() == 0
    with tracking_at(f"sqlite:///{here}/mlflow.db"), connected() as mlflow:
        (experiment,) = [
            each for each in mlflow.search_experiments() if each.name == "hierrouter-serving"
        ]
        (trace,) = mlflow.search_traces(locations=[experiment.experiment_id])
    whole, *hops = trace.data.spans
    assert whole.attributes["request_id"] == "traced-one"
    assert whole.attributes["route"] == told["route"]
    assert whole.inputs is None
    assert QUESTION not in str(trace.to_dict())
    assert [span.name for span in hops] == [f"{h['model']} {h['role']}" for h in told["hops"]]
    assert [span.attributes["cost_usd"] for span in hops] == [h["cost_usd"] for h in told["hops"]]
    for span in hops:
        assert whole.start_time_ns <= span.start_time_ns <= span.end_time_ns <= whole.end_time_ns
        assert span.parent_id == whole.span_id


def test_told_to_end_it_finishes_what_is_under_way(routed, through, upstream) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(
            through.chat.completions.create(
                model="hierrouter", messages=ASKED, extra_body={"hierrouter": {"max_hops": 1}}
            )
        )
    )
    asking.start()
    assert upstream.under_way.acquire(timeout=60)
    routed.process.terminate()
    while not any("ending" in line for line in routed.lines):
        assert routed.process.poll() is None
        with contextlib.suppress(subprocess.TimeoutExpired):
            routed.process.wait(0.05)
    upstream.release()
    asking.join(60)
    upstream.behaviour.clear()
    assert answers[0].choices[0].message.content == "one two three four"
    assert routed.process.wait(60) == 0

"""What the real server refuses: in which words, with which status, and what it keeps of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-of-more-than-sixteen"
NAMES = ("small", "medium", "large")
SECRET = "What my doctor told me yesterday?"
CHAT, V1, V2 = (
    "/openai/v1/chat/completions",
    "/v1/models/hierrouter:predict",
    "/v2/models/hierrouter/infer",
)
ALLOWED = {"Authorization": f"Bearer {KEY}"}
JSON = {**ALLOWED, "Content_Type": "application/json"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def guarded(start_server, upstream):
    """A server with a key, before models that do as the upstream is told."""
    pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
    return start_server(*pairs, "--max-requests", "3", HIERROUTER_API_KEYS=KEY)


@pytest.fixture(autouse=True)
def behaving(upstream):
    yield
    upstream.behaviour.clear()


def chat(text: str = SECRET, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "hierrouter", "messages": messages, **more}


def tensor(name: str = "query", **more: Any) -> dict[str, Any]:
    given = {"shape": [1], "datatype": "BYTES", "data": [SECRET]}
    return {"name": name, **given, **more}


def numbers(name: str = "alpha", **more: Any) -> dict[str, Any]:
    return tensor(name, **{"datatype": "FP64", "data": [0.5], **more})


REFUSED = {
    "no key": ("POST", CHAT, chat(), {}, 401, "openai", "invalid_api_key"),
    "no key v1": ("POST", V1, {"instances": [SECRET]}, {}, 401, "v1", "invalid_api_key"),
    "load": ("POST", "/v2/repository/models/x/load", {}, ALLOWED, 403, "v2", "forbidden"),
    "unknown path": ("GET", "/nowhere/at/all", b"", ALLOWED, 404, "other", "not_found"),
    "known word": ("GET", "/v1elsewhere", b"", ALLOWED, 404, "other", "not_found"),
    "model": ("POST", CHAT, chat(model=SECRET), ALLOWED, 404, "openai", "model_not_found"),
    "v1 model": ("POST", "/v1/models/x:predict", {}, ALLOWED, 404, "v1", "not_found"),
    "v2 model": ("GET", "/v2/models/x", b"", ALLOWED, 404, "v2", "not_found"),
    "method": ("DELETE", CHAT, b"", ALLOWED, 405, "openai", "method_not_allowed"),
    # Refused by what it says of itself: a client that sends on may find the connection closed.
    "too long": (
        *("POST", CHAT, b"x", {**JSON, "Content_Length": "1100000"}),
        *(413, "openai", "request_too_large"),
    ),
    "form": (
        *("POST", CHAT, SECRET.encode(), {**ALLOWED, "Content_Type": "text/plain"}),
        *(415, "openai", "unsupported_media_type"),
    ),
    "no JSON": ("POST", CHAT, SECRET.encode(), JSON, 400, "openai", "bad_request"),
    "field": ("POST", CHAT, chat(**{SECRET: 1}), ALLOWED, 400, "openai", "unknown_parameter"),
    "v1 no JSON": ("POST", V1, SECRET.encode(), JSON, 400, "v1", "bad_request"),
    "v1 type": ("POST", V1, {"instances": SECRET}, ALLOWED, 400, "v1", "bad_request"),
    "v2 no JSON": ("POST", V2, SECRET.encode(), JSON, 400, "v2", "bad_request"),
    "v2 tensor": ("POST", V2, {"inputs": [tensor(SECRET)]}, ALLOWED, 400, "v2", "bad_request"),
    "v2 field": ("POST", V2, {"inputs": [{"name": SECRET}]}, ALLOWED, 400, "v2", "bad_request"),
    "explain": (
        *("POST", "/v1/models/hierrouter:explain", {"instances": [SECRET]}, ALLOWED),
        *(501, "v1", "not_implemented"),
    ),
    "version": ("GET", "/v2/models/hierrouter/versions/1", b"", ALLOWED, 501, "v2", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_counted_once_and_logged_without_what_was_asked(guarded, name) -> None:
    method, path, body, headers, status, api, reason = REFUSED[name]
    request_id = f"refused-{name.replace(' ', '-')}"

    def counted() -> float:
        return guarded.count("hierrouter_requests_total", api=api, status=str(status))

    before = counted()
    told = guarded.send(method, path, body, **headers, X_Request_Id=request_id)
    assert told[0] == status
    assert told[1]["x-request-id"] == request_id
    error = json.loads(told[2])["error"]
    if api in ("v1", "v2"):
        assert isinstance(error, str)
    else:
        assert isinstance(error["message"], str)
    assert counted() == before + 1
    line = guarded.logged(request_id)
    assert (line["message"], line["status"], line["api"]) == ("refused", status, api)
    assert line["reason"] == (reason or line["reason"])
    said = "".join(guarded.lines)
    assert SECRET not in said
    assert "Traceback" not in said
    assert sum(request_id in each for each in guarded.lines) == 1


def test_what_is_no_request_is_counted_too(guarded) -> None:
    place = urlsplit(guarded.url)
    endless = b"GET / HTTP/1.1\r\nhost: localhost\r\nx-long: " + b"x" * 200_000
    for sent, status in ((endless, 431), (b"this is no HTTP\r\n\r\n", 400)):
        before = guarded.count("hierrouter_requests_total", api="other", status=str(status))
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(sent)
            with contextlib.suppress(ConnectionError):
                while connection.recv(1000):
                    pass
        after = guarded.count("hierrouter_requests_total", api="other", status=str(status))
        assert after == before + 1
        assert guarded.logged(f'"status": {status}', api="other")["request_id"]


def test_no_client_makes_up_names_for_the_numbers(guarded) -> None:
    guarded.send("GET", "/made-up/by-a-client", **ALLOWED)
    said = guarded.send("GET", "/metrics")[2].decode()
    assert "made-up" not in said
    apis = set(re.findall(r'hierrouter_requests_total\{api="([^"]*)"', said))
    assert apis <= {"openai", "v1", "v2", "other"}


def test_health_is_no_request(guarded) -> None:
    before = guarded.send("GET", "/metrics")[2].decode()
    assert guarded.send("GET", "/v2/health/live")[0] == 200
    after = guarded.send("GET", "/metrics")[2].decode()
    counted = re.compile(r"^hierrouter_requests_total.*$", re.MULTILINE)
    assert counted.findall(before) == counted.findall(after)


WRONG_TENSORS = {
    "name": ([tensor(), tensor("qurey")], "'qurey'", "query, alpha"),
    "no query": ([numbers()], "'query'", "BYTES"),
    "twice": ([tensor(), tensor()], "'query'", "two"),
    "datatype": ([tensor(datatype="FP32")], "'query'", "BYTES"),
    "made-up datatype": ([tensor(datatype="TEXT")], "'query'", "BYTES"),
    "number as text": ([tensor(), numbers(datatype="BYTES")], "'alpha'", "FP64"),
    "whole as text": ([tensor(), numbers("max_hops", datatype="BOOL")], "'max_hops'", "INT64"),
    "shape": ([tensor(shape=[2])], "'query'", "has 1 element, and", "[2]"),
    "shape 2": ([tensor(shape=[2, 1], data=["a", "b", "c"])], "'query'", "3 elements"),
    "two columns": ([tensor(shape=[1, 2], data=["a", "b"])], "'query'", "[N] or [N, 1]"),
    "shape 0": ([tensor(shape=[0], data=[])], "'query'", "[N]"),
    "no shape": ([tensor(shape=[])], "'query'", "[N]"),
    "negative": ([tensor(shape=[-1])], "'query'", "[N]"),
    "too many": ([tensor(shape=[65], data=["a"] * 65)], "'query'", "64"),
    "huge": ([tensor(shape=[10**12, 10**12])], "'query'", "[N]"),
    "number": ([tensor(data=[7])], "'query'", "text"),
    "half a character": ([tensor(data=["\ud800"])], "'query'", "half"),
    "text for a number": ([tensor(), numbers(data=["much"])], "'alpha'", "number"),
    "fewer": ([tensor(shape=[3], data=["a"] * 3), numbers(shape=[2], data=[1, 1])], "'alpha'", "3"),
    "data": ([tensor(data=SECRET)], "'query'", "inputs.0.data has to be a list;"),
    "missing": ([{"name": "query", "shape": [1], "data": ["a"]}], "'query'", "datatype is missing"),
    "no name": ([{"shape": [1]}], "inputs.0.name is missing", "a tensor has name"),
    "inputs": (SECRET, "inputs has to be a list", '{"inputs"'),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_a_wrong_tensor_is_named_with_what_is_wanted(guarded, name) -> None:
    inputs, *words = WRONG_TENSORS[name]
    status, _, body = guarded.send("POST", V2, {"inputs": inputs}, **ALLOWED)
    assert status == 400, body
    error = json.loads(body)["error"]
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_cost": 1e-9}, "'max_cost' would do nothing beside inputs; settings are parameters"),
        ({"parameters": {"alhpa": 1}}, "'alhpa' is no setting; there are alpha, max_cost"),
        ({"parameters": {"models": "small"}}, "'models' is no setting"),
        ({"parameters": {"models": ["small"]}}, "parameters.models has to be"),
        ({"parameters": {"replies": 1}}, "query: replies has to be true or false, not 1"),
    ],
)
def test_a_setting_of_a_v2_request_is_heeded_or_refused(guarded, more, words) -> None:
    status, _, body = guarded.send("POST", V2, {"inputs": [tensor()], **more}, **ALLOWED)
    assert status == 400, body
    error = json.loads(body)["error"]
    assert words in error
    assert "hierrouter" not in error
    assert SECRET not in error


def test_an_output_that_there_is_not_is_named_and_others_are_left_out(guarded) -> None:
    asked = {"inputs": [tensor()], "outputs": [{"name": "anwser"}]}
    status, _, body = guarded.send("POST", V2, asked, **ALLOWED)
    assert status == 400
    assert b"'anwser'" in body
    asked["outputs"] = [{"name": "route"}]
    status, _, body = guarded.send("POST", V2, asked, **ALLOWED)
    assert [output["name"] for output in json.loads(body)["outputs"]] == ["route"]


@pytest.mark.parametrize(
    ("shape", "data"), [([1], [SECRET]), ([1, 1], [[SECRET]]), ([2], [SECRET] * 2)]
)
def test_tensors_are_taken_flat_and_nested(guarded, shape, data) -> None:
    asked = {"inputs": [tensor(shape=shape, data=data), numbers("max_hops", data=[1])]}
    status, _, body = guarded.send("POST", V2, asked, **ALLOWED)
    assert status == 200, body
    assert json.loads(body)["outputs"][0]["data"] == ["one two three four"] * shape[0]


def binary(raw: bytes, size: Any, **more: Any) -> tuple[bytes, int]:
    """A request whose query follows its JSON."""
    given = {"name": "query", "shape": [1], "datatype": "BYTES", **more}
    told = json.dumps({"inputs": [{**given, "parameters": {"binary_data_size": size}}]}).encode()
    return told + raw, len(told)


def test_tensors_that_follow_the_json_are_read_or_refused_by_name(guarded) -> None:
    text = SECRET.encode()
    raw = struct.pack("<I", len(text)) + text
    headers = {**ALLOWED, "Content_Type": "application/octet-stream"}

    def ask(body: bytes, length: Any) -> tuple[int, dict[str, Any]]:
        told = {"Inference_Header_Content_Length": str(length)}
        status, _, answer = guarded.send("POST", V2, body, **headers, **told)
        return status, json.loads(answer)

    assert ask(*binary(raw, len(raw)))[0] == 200
    wrong = [
        binary(raw, len(raw) + 5),
        binary(raw, "7"),
        binary(raw[:-3], len(raw) - 3),
        binary(raw, len(raw), shape=[2]),
        binary(raw, len(raw), datatype="FP32"),
        binary(struct.pack("<I", 2) + b"\xff\xfe", 6),
    ]
    for body, length in wrong:
        status, answer = ask(body, length)
        assert (status, "'query'" in answer["error"]) == (400, True), answer
    misplaced = json.dumps({"inputs": [tensor()], "max_cost": 1e-9}).encode()
    status, answer = ask(misplaced, len(misplaced))
    assert (status, "'max_cost'" in answer["error"]) == (400, True), answer
    body, length = binary(raw, len(raw))
    for said in ("much", "-1", length + 10**6, 0):
        status, answer = ask(body, said)
        assert (status, "inference-header-content-length" in answer["error"]) == (400, True)
    for broken in (b"[]", b'{"inputs": 3}', b'{"inputs": [], "parameters": []}', b"\xff"):
        assert ask(broken, len(broken))[0] == 400
    assert SECRET not in "".join(guarded.lines)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], '{"instances"'),
        ({"instances": SECRET}, '{"instances"'),
        ({"instances": {"query": SECRET}}, '{"instances"'),
        ({"instances": [7]}, "instances.0"),
        ({"instances": [SECRET, {"qurey": SECRET}]}, "instances.1"),
        ({"instances": [{"query": SECRET, "alpha": "much"}]}, "alpha"),
        ({"instances": [{"query": SECRET, "qurey": 1}]}, "instances.0: 'qurey' is no setting"),
        ({"instances": [{"query": SECRET, "alpha": -1}]}, "instances.0: alpha has to be"),
        # A limit in the wrong place would hold nothing.
        ({"instances": [SECRET], "max_cost": 1e-9}, "'max_cost' is not known beside instances"),
        ({"instances": []}, "1 to 64"),
        ({"instances": ["a"] * 65}, "1 to 64"),
    ],
)
def test_wrong_instances_are_told(guarded, body, words) -> None:
    status, _, answer = guarded.send("POST", V1, body, **ALLOWED)
    assert status == 400
    assert words in json.loads(answer)["error"]


def test_what_is_not_offered_of_kserves_protocols_is_told_in_words_of_ours(guarded) -> None:
    path = "/v1/models/hierrouter:explain"
    status, _, answer = guarded.send("POST", path, {"instances": [SECRET]}, **ALLOWED)
    assert status == 501
    assert json.loads(answer)["error"].startswith("explanations are not offered")


def test_a_deadline_in_a_stream_is_counted_as_what_it_is(start_server) -> None:
    with Upstream() as upstream:
        upstream.behaviour.update(dict.fromkeys(NAMES, "endless"))
        server = start_server(*(f"--endpoint={name}={upstream.url}" for name in NAMES))
        body = chat(stream=True, hierrouter={"deadline_ms": 300, "models": ["small"]})
        status, _, answer = server.send("POST", CHAT, body, X_Request_Id="late-stream")
    assert status == 200
    *_, event, done, _ = answer.split(b"\n\n")
    assert done == b"data: [DONE]"
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "deadline_exceeded"
    line = server.logged("late-stream")
    assert (line["status"], line["asking"]) == (504, "small")
    assert server.count("hierrouter_requests_total", api="openai", status="504") == 1


def test_json_is_json_also_with_its_character_set(guarded) -> None:
    kind = "application/json; charset=utf-8"
    body = json.dumps({"instances": ["What is 2 plus 2?"]}).encode()
    assert guarded.send("POST", V1, body, **ALLOWED, Content_Type=kind)[0] == 200


@pytest.mark.parametrize("progress", [False, True])
def test_what_is_known_before_the_first_decision_is_a_status_also_of_a_stream(
    guarded, upstream, progress
) -> None:
    def ask(**knobs: Any) -> tuple[int, dict[str, str], Any]:
        body = chat(stream=True, hierrouter={"progress": progress, **knobs})
        status, headers, answer = guarded.send("POST", CHAT, body, **ALLOWED)
        assert headers["content-type"] == "application/json"
        return status, headers, json.loads(answer)["error"]["code"]

    before = guarded.count("hierrouter_requests_total", api="openai", status="400")
    assert ask(max_cost=1e-9)[::2] == (400, "max_cost_too_low")
    after = guarded.count("hierrouter_requests_total", api="openai", status="400")
    assert after == before + 1
    upstream.behaviour.update(dict.fromkeys(NAMES, "endless"))
    with contextlib.ExitStack() as held:
        for _ in range(3):
            connection = http.client.HTTPConnection(urlsplit(guarded.url).netloc, timeout=60)
            held.callback(connection.close)
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            connection.request("POST", CHAT, json.dumps(chat(stream=True)).encode(), headers)
            assert upstream.under_way.acquire(timeout=60)
        before = guarded.count("hierrouter_requests_total", api="openai", status="429")
        status, headers, code = ask()
        assert (status, code, headers["retry-after"]) == (429, "overloaded", "1")
        after = guarded.count("hierrouter_requests_total", api="openai", status="429")
        assert after == before + 1
    for _ in range(3):
        assert upstream.given_up.acquire(timeout=60)


def test_a_stream_with_progress_begins_with_the_decision(guarded) -> None:
    knobs = {"progress": True, "max_hops": 1}
    body = chat(stream=True, hierrouter=knobs)
    status, headers, answer = guarded.send("POST", CHAT, body, **ALLOWED)
    assert status == 200
    assert "x-hierrouter-route" not in headers
    events = [json.loads(line[6:]) for line in answer.split(b"\n\n") if line.startswith(b"data: {")]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[1]["hierrouter"]["event"] == "decision"


def test_what_nobody_can_answer_any_more_is_a_status_of_a_stream_with_progress(
    start_server, upstream
) -> None:
    pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
    server = start_server(*pairs)
    upstream.behaviour.update(dict.fromkeys(NAMES, "refuse"))
    body = chat(stream=True, hierrouter={"progress": True})
    statuses = [server.send("POST", CHAT, body)[0] for _ in range(4)]
    assert statuses[-1] == 503
    failures = "hierrouter_call_failures_total"
    assert [server.count(failures, model=name) for name in NAMES] == [3, 3, 3]
    assert server.send("GET", "/v2/health/ready")[0] == 503
    # Probes are neither counted nor logged.
    assert server.count("hierrouter_requests_total", api="v2", status="503") == 0


def test_lost_calls_are_in_the_dollars_of_their_model(guarded, upstream) -> None:
    """One that is cut half-way, and one that is given up as its client went away."""
    spent = "hierrouter_cost_usd_total"
    before = {name: guarded.count(spent, model=name) for name in NAMES}
    upstream.behaviour.update(small="cut", medium="endless")
    connections = []
    for name in ("small", "medium"):
        body = chat(stream=True, hierrouter={"models": [name], "max_hops": 1})
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        headers["x-request-id"] = f"lost-{name}"
        connection = http.client.HTTPConnection(urlsplit(guarded.url).netloc, timeout=60)
        connection.request("POST", CHAT, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        assert answer.read(20)
        connections.append((connection, answer))
        if name == "small":
            assert b"answer_broken_off" in answer.read()
    for connection, answer in connections:
        answer.close()
        connection.close()
    for name, status in (("small", 502), ("medium", 499)):
        line = guarded.logged(f"lost-{name}")
        assert line["status"] == status
        assert line["cost_usd"] > 0
        assert guarded.count(spent, model=name) - before[name] == pytest.approx(line["cost_usd"])


def test_loading_is_neither_announced_nor_described_and_the_key_is(guarded) -> None:
    server = json.loads(guarded.send("GET", "/v2", **ALLOWED)[2])
    assert server["extensions"] == []
    for _ in range(2):
        described = json.loads(guarded.send("GET", "/openapi.json", **ALLOWED)[2])
        assert not any("/repository" in path for path in described["paths"])
        (scheme,) = described["security"][0]
        assert described["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
        assert "security" not in described["paths"][CHAT]["post"]
        assert described["paths"]["/v2/health/ready"]["get"]["security"] == []


def test_every_line_of_the_log_is_json(guarded) -> None:
    lines = [json.loads(line) for line in list(guarded.lines)]
    messages = [line["message"] for line in lines]
    assert any("is answered for by" in message for message in messages)
    assert any(message.startswith("serving at http://") for message in messages)


def test_each_status_is_in_the_table() -> None:
    root = Path(__file__).parents[2]
    serving = root / "src" / "hierrouter" / "serving"
    used = set()
    for name in ("problems", "gate", "refusals", "bounded"):
        source = (serving / f"{name}.py").read_text(encoding="utf-8")
        used |= set(re.findall(r"(?:Problem\(|status=|: |\(visit, |\.hex\), )([45]\d\d)\b", source))
    text = (root / "docs" / "serve.md").read_text(encoding="utf-8")
    table = text[text.index("| status | when |") :].partition("\n\n")[0]
    rows = {
        each
        for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for each in row.split(", ")
    }
    assert {"400", "401", "403", "413", "415", "429", "431", "500", "501", "502", "504"} <= used
    assert used | {"404", "405"} <= rows

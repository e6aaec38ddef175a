"""KServe's requests of many queries, where there is room for fewer at the same time."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("small", "medium", "large")
V1, V2 = "/v1/models/hierrouter:predict", "/v2/models/hierrouter/infer"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def narrow(start_server, upstream):
    """A server that has room for three queries."""
    pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
    return start_server(*pairs, "--max-requests", "3")


def of(queries: int, **knobs: Any) -> dict[str, Any]:
    """A request of v1."""
    given = {"max_hops": 1, **knobs}
    return {"instances": [{"query": f"What is 1 plus {n}?", **given} for n in range(queries)]}


def requests(server, api: str, status: int) -> float:
    return server.count("hierrouter_requests_total", api=api, status=str(status))


def test_more_queries_than_there_is_room_for_are_all_answered_and_count_once(narrow) -> None:
    before = requests(narrow, "v1", 200), requests(narrow, "v2", 200)
    status, _, body = narrow.send("POST", V1, of(64), X_Request_Id="many")
    assert status == 200
    assert len(json.loads(body)["predictions"]) == 64
    query = {"name": "query", "shape": [7], "datatype": "BYTES", "data": ["What is it?"] * 7}
    status, _, body = narrow.send("POST", V2, {"inputs": [query]})
    assert status == 200
    assert all(output["shape"] == [7] for output in json.loads(body)["outputs"])
    assert (requests(narrow, "v1", 200), requests(narrow, "v2", 200)) == (
        before[0] + 1,
        before[1] + 1,
    )
    assert narrow.count("hierrouter_in_flight") == 0
    # Each query has its line; the request's id tells which belong together.
    assert all(narrow.logged(f'"many-{n}"')["status"] == 200 for n in range(64))


def test_a_query_that_is_too_long_is_refused_before_others_are_paid_for(narrow, upstream) -> None:
    asked, batch = len(upstream.asked), of(5)
    batch["instances"][-1]["query"] = "x" * 100_000
    status, _, body = narrow.send("POST", V1, batch, X_Request_Id="too-long")
    assert (status, len(upstream.asked)) == (400, asked)
    assert "100000 characters" in json.loads(body)["error"]
    assert narrow.logged("too-long")["reason"] == "context_length_exceeded"


def test_a_batch_takes_the_places_that_there_are_and_no_more(narrow, upstream) -> None:
    upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(narrow.send("POST", V1, of(5))))
    before, asked = requests(narrow, "v1", 429), len(upstream.asked)
    asking.start()
    for _ in range(3):
        assert upstream.under_way.acquire(timeout=60)
    assert narrow.count("hierrouter_in_flight") == 3
    status, headers, body = narrow.send("POST", V1, of(2))
    assert (status, headers["retry-after"]) == (429, "1")
    assert "3 queries" in json.loads(body)["error"]
    assert requests(narrow, "v1", 429) == before + 1
    assert len(upstream.asked) == asked + 3
    upstream.release()
    asking.join(60)
    upstream.behaviour.clear()
    assert answers[0][0] == 200
    assert len(upstream.asked) == asked + 5
    assert narrow.count("hierrouter_in_flight") == 0


def test_a_query_that_waits_for_others_of_its_request_has_the_same_deadline(start_server) -> None:
    with Upstream() as upstream:
        pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
        server = start_server(*pairs, "--max-requests", "1")
        upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))
        slow = of(1)["instances"] + of(1, deadline_ms=1)["instances"]
        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.append(server.send("POST", V1, {"instances": slow}))
        )
        asking.start()
        assert upstream.under_way.acquire(timeout=60)
        assert server.send("GET", "/v2/health/live")[0] == 200  # which takes a millisecond
        upstream.release()
        asking.join(60)
    status, _, body = answers[0]
    assert status == 504
    assert "0.001 s" in json.loads(body)["error"]
    assert "wait for others" in json.loads(body)["error"]
    assert requests(server, "v1", 504) == 1


def test_a_server_with_one_place_says_so_in_the_singular(start_server) -> None:
    with Upstream() as upstream:
        pairs = [f"--endpoint={name}={upstream.url}" for name in NAMES]
        server = start_server(*pairs, "--max-requests", "1")
        upstream.behaviour.update(dict.fromkeys(NAMES, "hang"))
        asking = threading.Thread(target=lambda: server.send("POST", V1, of(1)))
        asking.start()
        assert upstream.under_way.acquire(timeout=60)
        status, _, body = server.send("POST", V1, of(1))
        upstream.release()
        asking.join(60)
    assert status == 429
    assert json.loads(body)["error"].startswith("1 query is under way")

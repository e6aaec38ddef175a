"""What the log and the client are told of failures that nobody expects."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SECRET = "What my doctor told me yesterday"
CODE = f"""
import logging, sys
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient
from hierrouter.progress import say
from hierrouter.serving.gate import Rules
from hierrouter.serving.journal import json_logs
from hierrouter.serving.refusals import tell_failures
from hierrouter.serving.server import prepare_app

router = APIRouter()

@router.api_route("/v1/fails", methods=["GET", "POST"])
async def fails():
    try:
        int({SECRET!r})
    except ValueError as error:
        raise KeyError({SECRET!r}) from error

with json_logs(texts="texts" in sys.argv):
    app, refused = FastAPI(), []
    rules = Rules(keys=None, most_bytes=1000, only_loopback=False)
    prepare_app(app, [router], rules, lambda visit, status: refused.append((visit.api, status)))
    tell_failures(app)
    client = TestClient(app)
    for method in ("GET", "POST"):
        headers = {{"x-request-id": method, "content-type": "application/json"}}
        answer = client.request(method, "/v1/fails", headers=headers)
        print(answer.status_code, answer.headers["x-request-id"], answer.text)
    assert refused == [("v1", 500)] * 2, refused
    say("said to people,\\nin two lines")
    logging.getLogger("some.library").warning("a warning")
say("said afterwards")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("arguments", [(), ("texts",)])
def test_an_unexpected_failure_is_told_and_logged_without_texts_unless_asked(arguments) -> None:
    done = run(*arguments)
    for method, answer in zip(("GET", "POST"), done.stdout.splitlines(), strict=True):
        assert answer.startswith(f"500 {method} ")
        assert "its log says more" in json.loads(answer.split(" ", 2)[2])["error"]
    *lines, last = done.stderr.splitlines()
    logged = [json.loads(line) for line in lines]
    failures = [line for line in logged if "error" in line]
    assert [line["message"] for line in failures] == [
        "request GET failed",
        "request POST failed",
    ]
    for line in failures:
        assert "KeyError" in line["error"]
        assert "ValueError" in line["error"]
        assert "in fails" in line["error"]
    assert (SECRET in done.stderr) == bool(arguments)
    assert SECRET not in done.stdout
    said = [line["message"] for line in logged]
    assert {"said to people,", "in two lines", "a warning"} <= set(said)
    assert last == "said afterwards"

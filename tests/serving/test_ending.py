"""The end of the real server, where requests take longer than it waits."""

from __future__ import annotations

import contextlib
import http.client
import json
from urllib.parse import urlsplit

from tests.upstream import Upstream


def test_what_is_cut_at_the_end_is_told_so(start_server) -> None:
    """A stream by an event, a whole answer by its status."""
    with Upstream() as upstream, contextlib.ExitStack() as connections:
        upstream.behaviour.update(small="endless", medium="hang")
        pairs = [f"--endpoint={name}={upstream.url}" for name in ("small", "medium", "large")]
        server = start_server(*pairs, "--grace", "0")

        def ask(model: str, stream: bool) -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
            connections.callback(connection.close)
            body = {
                "model": "hierrouter",
                "messages": [{"role": "user", "content": "What is 2 plus 2?"}],
                "stream": stream,
                "hierrouter": {"models": [model], "max_hops": 1},
            }
            headers = {"Content-Type": "application/json", "x-request-id": f"cut-{model}"}
            path = "/openai/v1/chat/completions"
            connection.request("POST", path, json.dumps(body).encode(), headers)
            assert upstream.under_way.acquire(timeout=60)
            return connection

        streamed, whole = ask("small", stream=True).getresponse(), ask("medium", stream=False)
        assert streamed.read(20)
        server.process.terminate()
        *_, last, done, rest = streamed.read().split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
        answer = whole.getresponse()
        assert (answer.status, answer.getheader("retry-after")) == (503, "1")
        assert json.loads(answer.read())["error"]["code"] == "shutting_down"
        assert server.process.wait(60) == 0
    for model in ("small", "medium"):
        assert server.logged(f"cut-{model}")["status"] == 503
    assert "Traceback" not in "".join(server.lines)

"""The end of the real server: told twice, told early, or told while requests take long."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.serving.conftest import HIERROUTER
from tests.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.conftest import Server


@contextlib.contextmanager
def occupied(start_server, *arguments: str) -> Iterator[tuple[Server, Any, Upstream]]:
    """A server over a model that says something without end, and one that says nothing."""
    with Upstream() as upstream, contextlib.ExitStack() as connections:
        upstream.behaviour.update(small="endless", medium="hang")
        pairs = [f"--endpoint={name}={upstream.url}" for name in ("small", "medium", "large")]
        server = start_server(*pairs, *arguments)

        def ask(model: str, stream: bool, **knobs: object) -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
            connections.callback(connection.close)
            body = {
                "model": "hierrouter",
                "messages": [{"role": "user", "content": "What is 2 plus 2?"}],
                "stream": stream,
                "hierrouter": {"models": [model], "max_hops": 1, **knobs},
            }
            name = f"cut-{model}-{stream}"
            headers = {"Content-Type": "application/json", "x-request-id": name}
            path = "/openai/v1/chat/completions"
            connection.request("POST", path, json.dumps(body).encode(), headers)
            assert upstream.under_way.acquire(timeout=60)
            return connection

        yield server, ask, upstream


def code_at_the_end(stream: http.client.HTTPResponse) -> str:
    *_, last, done, rest = stream.read().split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    told: str = json.loads(last.removeprefix(b"data: "))["error"]["code"]
    return told


def assert_shutting_down(connection: http.client.HTTPConnection) -> None:
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("retry-after")) == (503, "1")
    assert json.loads(answer.read())["error"]["code"] == "shutting_down"


def test_what_is_cut_at_the_end_is_told_so(start_server) -> None:
    """A stream by an event, a whole answer by its status."""
    with occupied(start_server, "--grace", "0") as (server, ask, _):
        streamed, whole = ask("small", stream=True).getresponse(), ask("medium", stream=False)
        assert streamed.read(20)
        server.process.terminate()
        assert code_at_the_end(streamed) == "shutting_down"
        assert_shutting_down(whole)
        assert server.process.wait(60) == 0
    for name, model in (("cut-small-True", "small"), ("cut-medium-False", "medium")):
        line = server.logged(name)
        assert (line["status"], line["route"], line["asking"]) == (503, "", model)
    assert "Traceback" not in "".join(server.lines)


def test_told_a_second_time_it_cuts_what_is_under_way_and_says_so(start_server) -> None:
    with occupied(start_server, "--grace", "600") as (server, ask, upstream):
        begun = ask("small", stream=True).getresponse()
        assert begun.read(20)
        progress = ask("medium", stream=True, progress=True).getresponse()
        assert progress.read(20)
        waiting = [ask("medium", stream=stream) for stream in (True, False)]
        server.process.send_signal(signal.SIGINT)
        server.logged("ending; requests under way")
        server.process.send_signal(signal.SIGINT)
        server.logged("ending at once")
        # Too late for those who are told already that there will be no answer.
        upstream.release()
        assert code_at_the_end(begun) == "shutting_down"
        assert code_at_the_end(progress) == "shutting_down"
        for connection in waiting:
            assert_shutting_down(connection)
        assert server.process.wait(60) == 0
    said = [json.loads(line) for line in server.lines]
    assert [line["status"] for line in said if line["message"] == "request"] == [503] * 4
    assert not [line for line in said if line["level"] == "error" or "error" in line]


def test_a_server_that_is_stopped_before_it_is_up_does_not_say_that_anything_was_kept(
    router_folder, tmp_path
) -> None:
    """It waits for its keys, which are in a pipe that nobody writes into."""
    keys = tmp_path / "keys"
    os.mkfifo(keys)
    command = [str(HIERROUTER), "serve", "--router", str(router_folder), "--api-keys", str(keys)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with keys.open("w"):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "stopped before the server was up\n"


def test_a_port_that_is_taken_while_it_starts_ends_it_with_a_plain_line(router_folder) -> None:
    """It looks whether the port is free, then says who answers for a model, then listens."""
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", 0))
        number = port.getsockname()[1]
        command = [str(HIERROUTER), "serve", "--router", str(router_folder), "--port", str(number)]
        command += ["--endpoint", "small=http://127.0.0.1:9/v1"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "small is answered for by" in process.stderr.readline()
        port.listen()
        *_, last = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2
    assert last.startswith(f"error: --host 127.0.0.1 --port {number} cannot be listened at")

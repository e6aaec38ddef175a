"""The image's health check: the truth about a server, and no complaint about anything else."""

from __future__ import annotations

from urllib.parse import urlsplit

from hierrouter.serving.health import healthy


def test_a_server_is_asked_and_a_stage_is_not(start_server) -> None:
    server = start_server()
    port = str(urlsplit(server.url).port)
    assert healthy(["hierrouter", "serve", "--router", "r", "--port", port])
    assert healthy(["hierrouter", "serve", f"--port={port}"])
    server.end()
    assert not healthy(["hierrouter", "serve", "--port", port])
    assert healthy(["hierrouter", "collect", "--config", "c.yaml"])

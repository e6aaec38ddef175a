"""What `hierrouter doctor --config` says of a pool's endpoints."""

from __future__ import annotations

import socket

from hierrouter.cli.doctor import endpoint_findings
from hierrouter.cli.notice import needed_models
from hierrouter.config import Config


def experiment(**urls: str) -> Config:
    models = [
        {
            "name": name,
            "model": f"org/{name}",
            "base_rate": 1,
            "backend": "openai",
            "endpoint": {"url": url, "served_name": f"{name}-served", "retries": 5},
        }
        for name, url in urls.items()
    ]
    data = {"source": "scripted", "tasks": ["x"]}
    return Config(data=data, pool={"models": models, "encoder": {"model": "hashing"}})


def test_each_endpoint_is_one_line(endpoint) -> None:
    endpoint.play = lambda call: call.answer({"data": [{"id": "A-served"}, {"id": "other"}]})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        a, b, c = endpoint_findings(experiment(A=endpoint.url, B=endpoint.url, C=closed))
    assert a == ("endpoint of A", True, f"{endpoint.url} answers and serves A-served")
    assert b[:2] == ("endpoint of B", None)
    assert b[2].endswith("it lists A-served, other, not B-served (endpoint.served_name)")
    assert c[:2] == ("endpoint of C", False)
    assert c[2].startswith(f"model C: {closed} does not answer (")
    assert [call.path for call in endpoint.calls] == ["/v1/models"] * 2


def test_nothing_is_downloaded_for_what_an_endpoint_serves() -> None:
    assert needed_models(experiment(A="http://nowhere.invalid/v1").pool) == set()

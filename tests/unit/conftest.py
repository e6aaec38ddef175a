"""What tests of several layers share: a tiny model, and a server to play an endpoint."""

from __future__ import annotations

import io
import json
import threading
from contextlib import suppress
from copy import copy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from rich.console import Console

from hierrouter import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model of random weights that reads bytes: real transformers, no download."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}>"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8192,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


class Call(BaseHTTPRequestHandler):
    """One request to the played endpoint, and what may be answered."""

    protocol_version = "HTTP/1.1"
    server: Endpoint
    said: ClassVar[dict[str, Any]]

    def do_POST(self) -> None:
        self.said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._play()

    def do_GET(self) -> None:
        self._play()

    def _play(self) -> None:
        with self.server.counting:
            # As it is now: one connection's calls share an object.
            self.server.calls.append(copy(self))
        with suppress(ConnectionError):  # a client that has given up
            self.server.play(self)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    @property
    def prompt(self) -> str:
        """The user's message."""
        return str(self.said["messages"][0]["content"])

    def answer(
        self,
        body: Any,
        status: int = 200,
        cut: int = 0,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answers with JSON or with text as it is; `cut` bytes of it are never sent."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) - cut])
        self.close_connection = cut > 0

    def complete(
        self, reply: str | None = None, usage: Any = (7, 3), finish: str = "stop", **message: Any
    ) -> None:
        """Answers with a chat completion, by default with the prompt in capitals."""
        content = self.prompt.upper() if reply is None else reply
        self.answer(completion({"content": content, **message}, usage, finish))

    def refuse(self, status: int, what: Any = "no", **headers: str) -> None:
        """Answers with an error, a text as OpenAI words it; a short Retry-After saves waiting."""
        body = {"error": {"message": what}} if isinstance(what, str) else what
        self.answer(body, status, headers={"Retry-After": "0.001", **headers})


def completion(message: dict[str, Any], usage: Any = (7, 3), finish: str = "stop") -> Any:
    """A chat completion as servers send it."""
    made: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
        ],
    }
    if usage is not None:
        read, written = usage
        made["usage"] = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
    return made


class Endpoint(ThreadingHTTPServer):
    """A real HTTP server; `play` decides what each call gets."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.counting = threading.Lock()
        self.calls: list[Call] = []
        self.play: Callable[[Call], None] = Call.complete
        self.let_go = threading.Event()
        """Set at the end, for calls that are left without an answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that plays an endpoint."""
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.let_go.set()
            server.shutdown()
            thread.join()


class Said(io.StringIO):
    """What is said to people, which another thread may wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = threading.Condition()

    def write(self, text: str) -> int:
        with self._news:
            self._news.notify_all()
            return super().write(text)

    def wait_for(self, words: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: words in self.getvalue(), 60)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """Takes what is said."""
    heard = Said()
    monkeypatch.setattr(progress, "console", Console(file=heard, highlight=False, width=400))
    return heard

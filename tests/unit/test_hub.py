"""Models from a folder, from a hub (a small server speaks its protocol) and from a mirror.

Each case runs in a process of its own (`tests/hubs.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.hubs import CLOSED, COMMIT, model_hub, offer, settings, sha

from hierrouter import hub
from hierrouter.errors import ConfigError, HierRouterError

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 100,
    "tokenizer.json": b'{"tokens": []}',
    "1_Pooling/config.json": b"[]",
    "pytorch_model.bin": b"never wanted" * 1000,
    "onnx/config.json": b"never wanted",
}
WANTED = {name: FILES[name] for name in list(FILES)[:4]}
PICKLED = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
REPOS = {"org/model": FILES, "org/pickled": PICKLED}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with model_hub(REPOS) as url:
        yield url


CODE = """
import json, sys
from hierrouter import hub
from hierrouter.errors import HierRouterError
for call in json.loads(sys.argv[1]):
    try:
        result = getattr(hub, call[0])(*call[1:])
        print(json.dumps(vars(result) if result else None, default=str))
    except HierRouterError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


def ask(home: Path, endpoint: str, *calls: list[str], **more: str) -> tuple[list[Any], str]:
    """Makes calls to `hub` in a new process; returns their results and what people read."""
    command = [sys.executable, "-c", CODE, json.dumps(calls)]
    done = subprocess.run(
        command, env=settings(home, endpoint, **more), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_model_from_the_hub_then_from_its_cache(tmp_path: Path, endpoint: str) -> None:
    describe, fetch = ["describe", "org/model"], ["fetch_model", "org/model"]
    (before, got, after), said = ask(tmp_path, endpoint, describe, fetch, describe)
    size = sum(len(content) for content in WANTED.values())
    assert before == {"source": "hub", "download_bytes": size, "remark": ""}
    assert after["download_bytes"] == 0
    assert got["source"] == "hub"
    assert got["revision"] == COMMIT
    folder = Path(got["folder"])
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert sorted(names) == sorted(WANTED)
    pairs = json.dumps([["model.safetensors", sha(FILES["model.safetensors"])]])
    assert got["digest"] == sha(pairs.replace(" ", "").encode())
    assert "mirror" not in said
    for offline in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": CLOSED}):
        (again, where), said = ask(tmp_path, endpoint, fetch, describe, **offline)
        assert again == got
        assert where["download_bytes"] == 0
        assert "mirror" not in said


def test_copy_in_a_folder_has_the_hubs_digest(tmp_path: Path, endpoint: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"])
    calls = ["fetch_model", "org/model"], ["fetch_model", str(folder)]
    (one, two), _ = ask(tmp_path, endpoint, *calls)
    assert one["digest"] == two["digest"]
    assert (two["source"], two["revision"], two["repo"]) == ("folder", None, str(folder))
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("model", "revision", "text"),
    [
        ("org/nowhere", "main", "org/nowhere does not exist on the Hugging Face hub"),
        ("org/gated", "main", "org/gated is gated"),
        ("org/model", "v9", "org/model has no revision 'v9'"),
        ("org/pickled", "main", "org/pickled has no safetensors"),
    ],
)
def test_what_the_hub_refuses(
    tmp_path: Path, endpoint: str, model: str, revision: str, text: str
) -> None:
    calls = ["fetch_model", model, revision], ["describe", model, revision]
    for got in ask(tmp_path, endpoint, *calls)[0]:
        assert got["error"] == "HierRouterError"
        assert text in got["text"]
        assert "\n" not in got["text"]


@pytest.mark.parametrize(
    ("closed", "why"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": CLOSED}, "refused"),
        ({"HF_ENDPOINT": "http://nowhere.invalid"}, ""),
    ],
)
def test_neither_hub_nor_mirror(
    tmp_path: Path, endpoint: str, closed: dict[str, str], why: str
) -> None:
    calls = ["fetch_model", "org/model"], ["describe", "org/model"]
    for got in ask(tmp_path, endpoint, *calls, **closed)[0]:
        assert got["error"] == "UnreachableError"
        assert f"not reached ({why}" in got["text"] or why in got["text"]
        assert "no mirror has it" in got["text"]
        assert "docs/mirrors.md" in got["text"]


MIRRORED = "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_describing_a_mirrored_model_downloads_nothing(tmp_path: Path) -> None:
    (got,), _ = ask(tmp_path, CLOSED, ["describe", MIRRORED])
    assert got["source"] == "mirror"
    assert got["download_bytes"] == 92_871_040
    assert "quantised" in got["remark"]
    assert not (tmp_path / "own").exists()


def test_pinned_revision_is_not_had_from_a_mirror(tmp_path: Path) -> None:
    (got,), _ = ask(tmp_path, CLOSED, ["fetch_model", MIRRORED, COMMIT])
    assert got["error"] == "UnreachableError"
    assert COMMIT in got["text"]


def test_mirror_serves_and_says_so_once(tmp_path: Path) -> None:
    index = tmp_path / "index"
    (index / "mirrors").mkdir(parents=True)
    with zipfile.ZipFile(index / "one-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("p/a.gguf", b"x" * 500)
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            archive.writestr(f"one-1.0.dist-info/{name}", text)
    names = ("org/broken", "org/other")
    entries = [
        {
            "id": name,
            "packages": ["one==1.0"],
            "assemble": {"how": "file", "file": "a.gguf"},
            "sha256": sha(b"x" * 500),
            "download_bytes": 700,
            "bytes": 500,
            "licence": "MIT",
            "remark": "none",
        }
        for name in names
    ]
    (index / "mirrors" / "own.yaml").write_text(json.dumps({"assets": entries}))
    offered = {
        "HIERROUTER_MIRRORS": str(index / "mirrors"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }
    calls = [["fetch_model", name] for name in names]
    got, said = ask(tmp_path, CLOSED, *calls, **offered)
    for one, name in zip(got, names, strict=True):
        assert (one["source"], one["repo"], one["revision"]) == ("mirror", name, None)
        assert one["digest"] == sha(b"x" * 500)
        assert [path.name for path in Path(one["folder"]).iterdir()] == ["a.gguf"]
    assert said.count("the mirror serves; see docs/mirrors.md") == 1


def test_what_came_from_the_mirror_is_taken_from_there_though_the_hub_is_reached(
    tmp_path: Path, endpoint: str
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"other weights")
    offered = offer(tmp_path / "index", {"org/model": folder})
    entry = json.loads((tmp_path / "index" / "mirrors" / "own.yaml").read_text())["assets"][0]
    known = entry["sha256"]
    calls = [
        ["describe", "org/model", "main", known],
        ["fetch_model", "org/model", "main", known],
        ["describe", "org/model", "main", known],
        # A version that is pinned, other weights, and nothing that is remembered: the hub's.
        ["fetch_model", "org/model", COMMIT, known],
        ["fetch_model", "org/model", "main", "0" * 64],
        ["fetch_model", "org/model"],
    ]
    (before, got, after, *others), said = ask(tmp_path, endpoint, *calls, **offered)
    assert (before["source"], before["download_bytes"]) == ("mirror", entry["download_bytes"])
    assert (after["source"], after["download_bytes"]) == ("mirror", 0)
    assert (got["source"], got["revision"], got["digest"]) == ("mirror", None, known)
    assert (Path(got["folder"]) / "model.safetensors").read_bytes() == b"other weights"
    assert said.count("came from the mirror, so the same is taken from there") == 1
    assert "is not reached" not in said
    for other in others:
        assert (other["source"], other["revision"]) == ("hub", COMMIT)
        assert other["digest"] != known


def test_a_file_is_told_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x")
    with pytest.raises(ConfigError, match="weights is a file; name a folder"):
        hub.fetch_model(str(tmp_path / "weights"), "main")


@pytest.mark.parametrize("model", ["/no/such/folder", "./models/x", "~/no/such", "a/b/c"])
def test_folder_that_is_not_there(model: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        hub.fetch_model(model)


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    for call in (hub.fetch_model, hub.describe):
        with pytest.raises(HierRouterError, match="holds no weights"):
            call(str(tmp_path))


def test_digest_follows_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "own"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    first = hub.fetch_model(str(folder)).digest
    assert hub.fetch_model(str(folder)).digest == first
    for note in (tmp_path / "own" / "digests").iterdir():
        note.write_text("not JSON")
    assert hub.fetch_model(str(folder)).digest == first
    (folder / "model.safetensors").write_bytes(b"other")
    assert hub.fetch_model(str(folder)).digest != first

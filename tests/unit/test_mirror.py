"""Mirrors: real packages, made here and served to pip from a folder."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from hierrouter import mirror, progress
from hierrouter.errors import ConfigError, HierRouterError, UnreachableError
from hierrouter.progress import duration


def wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    """Writes the smallest wheel that pip downloads."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    marks = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}.dist-info/WHEEL", marks)
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def asset(packages: list[str], assemble: dict[str, object], sha256: str) -> mirror.Asset:
    return mirror.Asset.model_validate(
        {
            "id": "someone/thing",
            "packages": packages,
            "assemble": assemble,
            "sha256": sha256,
            "download_bytes": 1000,
            "bytes": 1000,
            "licence": "MIT",
            "remark": "none",
        }
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and an empty cache folder of our own."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HIERROUTER_MIRRORS", raising=False)
    return folder


def left_behind() -> list[str]:
    """What the cache holds besides locks."""
    kept = (mirror.home() / "mirror").rglob("*")
    return [path.name for path in kept if not path.name.endswith(".lock")]


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def test_parts_are_joined_in_the_order_named(index: Path) -> None:
    # By name, part10 would come before part2.
    for number in (1, 2, 10):
        members = {f"p/part{number}.bin": f"<{number}>".encode() * 30, "p/small.txt": b"no"}
        wheel(index, f"part{number}", members)
    whole = b"".join(f"<{number}>".encode() * 30 for number in (1, 2, 10))
    one = asset(
        ["part1==1.0", "part2==1.0", "part10==1.0"], {"how": "file", "file": "w.gguf"}, sha(whole)
    )
    assert mirror.bytes_to_download(one) == 1000
    folder = mirror.take(one)
    assert [path.name for path in folder.iterdir()] == ["w.gguf"]
    assert (folder / "w.gguf").read_bytes() == whole
    assert mirror.bytes_to_download(one) == 0
    assert left_behind() == [folder.name, "w.gguf"]


def test_what_is_there_needs_no_package_any_more(index: Path) -> None:
    path = wheel(index, "one", {"p/a.bin": b"x" * 300})
    one = asset(["one==1.0"], {"how": "file", "file": "a.bin"}, sha(b"x" * 300))
    folder = mirror.take(one)
    path.unlink()
    assert mirror.take(one) == folder


def test_joined_zip_is_unpacked_from_its_folder(index: Path) -> None:
    whole = zipped({"top/config.json": b"{}", "top/1_Pooling/config.json": b"[]", "top/x.md": b"-"})
    wheel(index, "z1", {"p/z.001": whole[:200] + b"", "p/s": b""})
    wheel(index, "z2", {"p/z.002": whole[200:], "p/s": b""})
    how = {"how": "zip", "folder": "top", "only": ["*.json"]}
    folder = mirror.take(asset(["z1==1.0", "z2==1.0"], how, sha(whole)))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert names == ["1_Pooling/config.json", "config.json"]


def test_folder_is_checked_over_names_and_contents(index: Path) -> None:
    wheel(index, "f", {"p/model/a.json": b"1", "p/model/b/c.txt": b"2", "p/code.py": b"boom"})
    pairs = f'[["a.json","{sha(b"1")}"],["b/c.txt","{sha(b"2")}"]]'
    folder = mirror.take(
        asset(["f==1.0"], {"how": "folder", "folder": "p/model"}, sha(pairs.encode()))
    )
    assert (folder / "b" / "c.txt").read_bytes() == b"2"
    assert not list(folder.rglob("*.py"))


@pytest.mark.parametrize(
    "how", [{"how": "file", "file": "a.bin"}, {"how": "zip"}, {"how": "folder", "folder": "p"}]
)
def test_wrong_digest_is_refused_and_nothing_is_left(index: Path, how: dict[str, object]) -> None:
    wheel(index, "one", {"p/a.bin": zipped({"a": b"x"})})
    with pytest.raises(HierRouterError) as error:
        mirror.take(asset(["one==1.0"], how, "0" * 64))
    text = str(error.value)
    assert "one==1.0" in text
    assert "0" * 64 in text
    assert "nothing of it is used" in text
    assert left_behind() == []


@pytest.mark.parametrize("bad", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "a\\..\\evil.txt"])
def test_member_outside_the_folder_is_refused(index: Path, bad: str) -> None:
    whole = zipped({bad: b"gotcha", "fine.txt": b"ok"})
    wheel(index, "z", {"p/z.zip": whole})
    with pytest.raises(HierRouterError, match="would leave its folder"):
        mirror.take(asset(["z==1.0"], {"how": "zip"}, sha(whole)))
    assert left_behind() == []
    assert not list(index.parent.rglob("evil.txt"))


def test_link_in_a_zip_is_refused(index: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    wheel(index, "z", {"p/z.zip": buffer.getvalue()})
    with pytest.raises(HierRouterError, match="would leave its folder"):
        mirror.take(asset(["z==1.0"], {"how": "zip"}, sha(buffer.getvalue())))


def test_damaged_package_is_one_line_and_is_not_kept(index: Path) -> None:
    path = wheel(index, "one", {"p/a.bin": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[1000:1010] = b"0123456789"
    path.write_bytes(content)
    with pytest.raises(HierRouterError, match="damaged archive"):
        mirror.take(asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64))
    assert left_behind() == []


def test_package_that_no_index_has(index: Path) -> None:
    wheel(index, "one", {"p/a.bin": b"x" * 300}, version="2.0")
    with pytest.raises(UnreachableError, match=r"pip cannot download package one==1\.0 .*pip"):
        mirror.take(asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64))


def test_interrupted_download_goes_on_with_what_had_arrived(index: Path) -> None:
    first = wheel(index, "one", {"p/a.bin": b"x" * 300})
    both = asset(
        ["one==1.0", "two==1.0"], {"how": "file", "file": "a"}, sha(b"x" * 300 + b"y" * 300)
    )
    with pytest.raises(UnreachableError):
        mirror.take(both)
    first.unlink()
    wheel(index, "two", {"p/b.bin": b"y" * 300})
    assert (mirror.take(both) / "a").stat().st_size == 600


def test_progress_counts_only_what_is_missing(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three packages of which one had arrived; the two others are 1 : 3 in size."""
    written, clock = io.StringIO(), itertools.count(0, 60)  # a minute at each look
    monkeypatch.setattr(progress, "console", Console(file=written, highlight=False, width=40))
    parts = [os.urandom(size) for size in (5_000, 20_000, 60_000)]
    wheels = [wheel(index, f"n{n}", {f"p/{n}": part}) for n, part in enumerate(parts)]
    sizes = [path.stat().st_size for path in wheels]
    all_three = asset(
        ["n0==1.0", "n1==1.0", "n2==1.0"], {"how": "file", "file": "a"}, sha(b"".join(parts))
    ).model_copy(update={"download_bytes": sum(sizes)})
    for path in wheels[1:]:
        path.rename(path.with_suffix(".later"))
    with pytest.raises(UnreachableError):
        mirror.take(all_three)
    for path in wheels[1:]:
        path.with_suffix(".later").rename(path)
    written.truncate(0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    mirror.take(all_three)
    first, *lines = written.getvalue().strip("\0").splitlines()
    assert first == "taking someone/thing from the mirror: 2 of 3 package(s), 0 MB"
    left = duration(60 * sizes[2] / sizes[1])
    assert lines[0].startswith("downloading someone/thing: 1/2, ")
    assert lines[0].endswith(f" packages/s, {left} left")
    assert lines[1].startswith("downloading someone/thing: 2 packages in ")


def test_source_package_is_never_run(index: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    project = '[build-system]\nrequires = []\nbuild-backend = "build"\nbackend-path = ["."]\n'
    files = {"pyproject.toml": project, "build.py": f"open({str(witness)!r}, 'w').close()\n"}
    with tarfile.open(index / "one-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"one-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(UnreachableError):
        mirror.take(asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64))
    assert not witness.exists()


def test_several_processes_at_once(index: Path) -> None:
    content = os.urandom(200_000)
    wheel(index, "one", {"p/a.bin": content})
    own = index.parent / "mirrors"
    own.mkdir()
    one = asset(["one==1.0"], {"how": "file", "file": "a"}, sha(content))
    (own / "own.yaml").write_text(yaml.safe_dump({"assets": [one.model_dump()]}))
    code = "from hierrouter import mirror; print(mirror.take(mirror.find('someone/thing')))"
    environment = {**os.environ, "HIERROUTER_MIRRORS": str(own)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    places = {process.communicate()[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    assert len(places) == 1
    assert (Path(places.pop()) / "a").read_bytes() == content


def test_no_disk_room_is_told_before_downloading(index: Path) -> None:
    one = asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64)
    with pytest.raises(HierRouterError, match="make room or set HIERROUTER_HOME"):
        mirror.take(one.model_copy(update={"bytes": 10**18}))


def test_cache_folder_that_cannot_be_made(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (index.parent / "file").write_text("")
    monkeypatch.setenv("HIERROUTER_HOME", str(index.parent / "file"))
    with pytest.raises(HierRouterError, match="set HIERROUTER_HOME to another place"):
        mirror.take(asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64))


def test_own_mirror_goes_over_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    packaged = mirror.find(name)
    assert packaged is not None
    own = packaged.model_copy(update={"packages": ["ours==7"]})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"assets": [own.model_dump()]}))
    monkeypatch.setenv("HIERROUTER_MIRRORS", str(tmp_path))
    assert mirror.find(name) == own
    assert mirror.find("Qwen/Qwen2.5-Coder-0.5B-Instruct") is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shasum": "1"}, "shasum"),
        ({"sha256": "abc"}, "sha256"),
        ({"packages": ["one"]}, "packages"),
        ({"packages": ["one>=1"]}, "packages"),
        ({"assemble": {"how": "run"}}, "assemble"),
        ({"assemble": {"how": "file", "file": "../a"}}, "file"),
        ({"id": "../../etc"}, "id"),
    ],
)
def test_wrong_entry_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], named: str
) -> None:
    entry = asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64).model_dump() | change
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"assets": [entry]}))
    monkeypatch.setenv("HIERROUTER_MIRRORS", str(tmp_path))
    with pytest.raises(ConfigError, match=named) as error:
        mirror.assets()
    assert str(tmp_path / "own.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_asset_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = asset(["one==1.0"], {"how": "file", "file": "a"}, "0" * 64).model_dump()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump({"assets": [entry]}))
    monkeypatch.setenv("HIERROUTER_MIRRORS", str(tmp_path))
    with pytest.raises(ConfigError, match="both name someone/thing"):
        mirror.assets()

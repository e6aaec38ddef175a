"""From a model's name to a folder that transformers loads: fetched, and converted if need be.

A mirror serves quantised weights in one GGUF file, which transformers reads slowly (up to a
minute). Such a file is turned once into safetensors in bfloat16 and kept in the cache folder.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from safetensors import SafetensorError

from hierrouter import hub, mirror
from hierrouter.errors import HierRouterError
from hierrouter.files import digest_of
from hierrouter.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from hierrouter.config import ModelSpec

CONVERSION = "gguf-bfloat16-1"
"""Name of the conversion; another result must get another name, as digests depend on it."""
OPENVINO = "openvino-int8-1"
"""The same for OpenVINO's weights."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready to load.

    `weights_digest` names what the model is, alike on every machine; `provenance` says where it
    came from (source, repo, revision, and the digest of what was fetched).
    """

    folder: Path
    weights_digest: str
    provenance: dict[str, str]


def mirrored(model: str, weights: str | None) -> str | None:
    """The digest of the mirror's copy of a model, if these are its weights or were made of them.

    Args:
        model: the hub's name.
        weights: a weights digest that a tree or router remembers.
    """
    asset = mirror.find(model)
    if asset is None or weights is None:
        return None
    plain = asset.sha256, digest_of([CONVERSION, asset.sha256])
    return asset.sha256 if weights in (*plain, *map(openvino_digest, plain)) else None


def prepare(spec: ModelSpec, weights: str | None = None) -> Prepared:
    """Fetches a model's files and converts them if need be; loads no weights when that is done.

    Args:
        spec: the model.
        weights: the weights digest that a tree or router remembers of it: if they came from the
            mirror, they are taken from there again.

    Raises:
        HierRouterError: the model does not exist, or what was found is no model.
        UnreachableError: neither hub nor mirror answers.
    """
    snapshot = hub.fetch_model(spec.model, spec.revision, mirrored(spec.model, weights))
    provenance = {
        "source": snapshot.source,
        "repo": snapshot.repo,
        "revision": snapshot.revision or "",
        "digest": snapshot.digest,
    }
    ggufs = sorted(snapshot.folder.glob("*.gguf"))
    if (snapshot.folder / "config.json").exists():
        return Prepared(snapshot.folder, snapshot.digest, provenance)
    if len(ggufs) != 1:
        found = f"{len(ggufs)} GGUF files" if ggufs else "no config.json"
        raise HierRouterError(
            f"model {spec.name}: {snapshot.folder} holds {found}; give a folder with config.json, "
            "safetensors and a tokenizer, or with one .gguf file"
        )
    digest = digest_of([CONVERSION, snapshot.digest])
    label = snapshot.repo.rstrip("/").rsplit("/", 1)[-1]
    folder = convert_once(ggufs[0], hub.home() / "converted", label, digest)
    return Prepared(folder, digest, {**provenance, "conversion": CONVERSION})


def openvino_digest(weights_digest: str) -> str:
    """What the int8 weights are that OpenVINO makes of a checkpoint: another model than it."""
    return digest_of([OPENVINO, weights_digest])


def prepare_openvino(spec: ModelSpec, weights: str | None = None) -> Path:
    """Fetches a model and converts it for OpenVINO, once.

    Args:
        spec: the model.
        weights: as for `prepare`.

    Returns:
        A folder for `OpenVINOBackend`.

    Raises:
        HierRouterError: the model does not exist, or cannot be converted.
        UnreachableError: neither hub nor mirror answers.
    """
    prepared = prepare(spec, weights)
    label = prepared.provenance["repo"].rstrip("/").rsplit("/", 1)[-1]

    def make(folder: Path) -> None:
        # OpenVINO's tools do without this package where there is none. With it, each conversion
        # reports to a statistics service and leaves files in the user's home folder.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        from hierrouter.pool.openvino_convert import convert

        convert(prepared.folder, folder)

    return _once(
        hub.home() / "openvino",
        label,
        openvino_digest(prepared.weights_digest),
        f"converting {label} to int8 for OpenVINO, once; this takes a minute or two",
        make,
        f"cannot convert {prepared.folder} for OpenVINO",
        "; set this model's backend to transformers",
    )


def convert_once(gguf: Path, cache: Path, label: str, digest: str) -> Path:
    """Converts a GGUF file unless that was done before; safe with several processes at once.

    Args:
        gguf: the file.
        cache: folder of converted models.
        label: the model's name, in the folder's name and in messages.
        digest: what the result is filed under.

    Returns:
        The folder with config.json, safetensors and tokenizer. It appears whole or not at all.
    """
    return _once(
        cache,
        label,
        digest,
        f"converting {label} to safetensors, once; this takes up to a minute",
        lambda folder: _convert(gguf, folder),
        f"cannot convert {gguf}",
        "; transformers reads GGUF files of common text models only: give a folder with "
        "safetensors",
    )


def _once(
    cache: Path,
    label: str,
    digest: str,
    notice: str,
    make: Callable[[Path], None],
    failure: str,
    remedy: str,
) -> Path:
    """A folder in `cache` that `make` fills, unless that was done before.

    Args:
        cache: where it goes.
        label: the model's name, in the folder's name.
        digest: what it is filed under.
        notice: what is said before work begins.
        make: writes into the folder that it is given.
        failure: how an error begins.
        remedy: what to do where `make` cannot work with this model.
    """
    target = cache / f"{re.sub(r'[^a-z0-9.]+', '-', label.lower())}-{digest[:12]}"
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{target.name}.lock"):
            if target.is_dir():
                return target
            # What a killed process left behind; nobody else writes it while the lock is held.
            for leftover in cache.glob(f".tmp-{target.name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            say(notice)
            temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{target.name}-", dir=cache))
            try:
                make(temporary)
                for file in temporary.iterdir():
                    file.chmod(0o644)
                temporary.chmod(0o755)
                temporary.replace(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        # What safetensors cannot write, on a full disk say, it reports as an error of its own.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise HierRouterError(
            f"{failure}: {reason}; make room under {cache} "
            "(set HIERROUTER_HOME for another place), then run the same command again"
        ) from error
    except (
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        AttributeError,
        struct.error,
    ) as error:
        why = " ".join(str(error).split())[:120]
        raise HierRouterError(f"{failure} ({why}){remedy}") from error
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """Writes the file's weights (bfloat16), configuration and tokenizer into `folder`."""
    import torch

    from hierrouter.pool.checkpoint import hf, quiet

    quiet()
    # The GGUF reader's own progress bar knows no switch.
    with contextlib.redirect_stderr(io.StringIO()):
        source = hf.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    # transformers refuses to save a model that came from a GGUF file, so the weights move into a
    # plain one of the same shape, made without memory of its own.
    config = source.config
    del config.quantization_config
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        plain = hf.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    weights = {name: value.to(torch.bfloat16) for name, value in source.state_dict().items()}
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.generation_config = source.generation_config
    plain.save_pretrained(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)

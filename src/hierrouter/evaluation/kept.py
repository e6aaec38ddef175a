"""Configs that artefacts keep, read back by a version that may know other keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hierrouter import __version__
from hierrouter.errors import DamagedFileError

if TYPE_CHECKING:
    from pathlib import Path

Config = TypeVar("Config", bound=BaseModel)


def kept_config(kind: type[Config], raw: Any, file: Path | str, remedy: str) -> Config:
    """A config out of an artefact.

    Args:
        kind: of the config.
        raw: what the file holds of it.
        file: which file it is.
        remedy: what to do where it does not fit.

    Raises:
        DamagedFileError: it has keys or values that this version does not know.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "config"
        raise DamagedFileError(
            f"{file}: {where}: {first['msg']} (this is version {__version__}); {remedy}"
        ) from error

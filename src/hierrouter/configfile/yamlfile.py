"""YAML as configurations are written in it; what is not usable becomes one clear line."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import yaml

from hierrouter.configfile.hints import did_you_mean
from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but 1e-4 is a number, and duplicate keys and infinity are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        written: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key: object = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in written:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", key_node.start_mark
                )
            written.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep=deep)

    def construct_finite(self, node: yaml.ScalarNode) -> float:
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is not a finite number", node.start_mark
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_finite)
# YAML 1.1 takes 1e-4 and -.5 for words; everybody means the numbers, as YAML 1.2 does.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def read(path: Path) -> bytes:
    """What a file holds.

    Raises:
        ConfigError: one line that names the file, and a file of like name where there is one.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = ""
        if path.parent.is_dir():
            names = [entry.name for entry in path.parent.iterdir() if entry.suffix == path.suffix]
            near = did_you_mean(path.name, names, show_all=False)
        raise ConfigError(f"{path}: there is no such file{near}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def parse(text: bytes | str, culprit: str) -> Any:
    """The values that YAML writes down.

    Raises:
        ConfigError: one line that names the culprit, the line and what is wrong there.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark and "\n" in _as_text(text) else ""
        raise ConfigError(f"{culprit}: {where}not usable YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{culprit}: not usable YAML: {' '.join(reason.split())}") from None


def _as_text(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", errors="replace")

"""Reading and writing configuration files; every mistake in one becomes one clear line."""

from __future__ import annotations

from hierrouter.configfile.listing import explain
from hierrouter.configfile.reading import dump_config, join_parts, load_config, load_part

__all__ = ["dump_config", "explain", "join_parts", "load_config", "load_part"]

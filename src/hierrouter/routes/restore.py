"""Questions of a tree that was passed on without them, taken from their source again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hierrouter.config import DataConfig
from hierrouter.data.queries import digest_queries, write_queries
from hierrouter.data.sample import choose
from hierrouter.data.sources import load_questions, still_same
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.data.queries import Query


def restore_queries(table: Path, info: dict[str, Any]) -> list[Query]:
    """Samples a tree's queries as they were sampled when it was recorded.

    A tree may be passed on without its questions, whose licences may differ from that of its
    replies; tree.json says how they were sampled and what their digest is.

    Args:
        table: where they belong; written if it can be.
        info: `tree.json`.

    Raises:
        DamagedFileError: tree.json does not say how they were sampled, or the source gives other
            questions now.
        HierRouterError: a file of one's own is missing or wrong.
        UnreachableError: the source is not reached.
    """
    again = "collect again with the queries it was recorded with: no reply is generated twice"
    try:
        config = DataConfig.model_validate(info["data"]["config"])
    except (KeyError, TypeError, ValidationError):
        raise DamagedFileError(
            f"{table} is missing or cannot be read back, and tree.json does not say how its "
            f"queries were sampled; {again}"
        ) from None
    say(f"{table.parent} was passed on without its questions; they are taken from their source")
    try:
        queries, _ = choose(config, load_questions(config, info["data"].get("tasks", {})))
    except ConfigError as error:
        raise HierRouterError(
            f"{table} is missing or cannot be read back, and neither can its source: {error}"
        ) from None
    if digest_queries(queries) != info["query_digest"]:
        sources = info["data"].get("tasks", {}).values()
        files = [one["file"] for one in sources if "file" in one and not still_same(one)]
        changed = f" (changed: {', '.join(files)})" if files else ""
        raise DamagedFileError(
            f"{table} is missing or cannot be read back, and its source gives other questions "
            f"now{changed}; {again}"
        )
    with contextlib.suppress(HierRouterError):  # a folder that cannot be written serves as well
        write_queries(table, queries)
    return queries

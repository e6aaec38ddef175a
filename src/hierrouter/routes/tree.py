"""The route tree on disk: every recorded reply, keyed by query, models and role."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from hierrouter.config import PoolConfig
from hierrouter.data.queries import Query, digest_queries, read_queries, write_queries
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import claim_folder, read_json, sha256_text, write_json
from hierrouter.routes.encoder import encoder_identity
from hierrouter.routes.made import identities_of, made_with, refuse_other_pool
from hierrouter.routes.nodes import name_of
from hierrouter.routes.quotes import Quotes
from hierrouter.routes.restore import restore_queries
from hierrouter.routes.store import NodeStore

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from hierrouter.routes.nodes import Node, NodeKey

FORMAT_VERSION = 1
KIND = "kind"
"""Key of `tree.json` that says what sort of tree it is; a recorded one does not have it."""
OUTCOMES_KIND = "outcomes"
QUERIES = "queries.parquet"
RETIRED = "earlier_queries.parquet"
"""Queries that were recorded and are not of the present sample."""


class RouteTree:
    """A folder with `tree.json`, `queries.parquet`, `nodes/`, `scores.parquet`, `embeddings/`.

    `nodes` gives every node by its place.
    """

    def __init__(
        self, folder: Path, set_aside: bool = False, queries: list[Query] | None = None
    ) -> None:
        """Opens an existing tree.

        Args:
            folder: the tree's folder.
            set_aside: whether damaged files of nodes are renamed, so that collecting again
                generates what they held. Only collecting does: whoever reads must not pass over
                a part that is lost.
            queries: those of its table, where that was read already.

        Raises:
            HierRouterError: there is no tree in `folder`, or a newer version of us made it.
            DamagedFileError: a file of nodes was damaged.
        """
        self.folder = folder
        self.info: dict[str, Any] = read_recorded(folder)
        self.queries = _read_queries(folder, self.info) if queries is None else queries
        self.quotes = Quotes((*read_retired(folder), *self.queries), withheld_tasks(self.info))
        self.nodes = NodeStore(folder / "nodes", set_aside, self.quotes)

    @classmethod
    def create_or_open(
        cls, folder: Path, pool: PoolConfig, queries: Sequence[Query], data: dict[str, Any]
    ) -> RouteTree:
        """Opens the tree in `folder` for recording, or starts one.

        A tree refuses other weights, prompts or limits, and nothing else: rates, batch sizes,
        encoders, further models and further queries may come later.

        Args:
            folder: where the tree lies.
            pool: the pool part of the config.
            queries: the queries to record.
            data: how the queries were sampled (`queries.json`).

        Raises:
            ConfigError: the folder is not ours, or holds the tree of another pool or of other
                query texts.
        """
        claim_folder(folder, "tree.json")
        before = read_recorded(folder) if (folder / "tree.json").exists() else {}
        identities = identities_of(pool, before["made"]["models"] if before else {})
        made = made_with(pool, identities)
        present = _present_queries(folder)
        if before:
            refuse_other_pool(folder, before["made"], made)
            made["models"] = {**before["made"]["models"], **made["models"]}
            _retire_queries(folder, before, present, queries)
        digest = digest_queries(queries)
        if not data and before and before["query_digest"] == digest:
            data = before["data"]  # the same queries, passed on without their origin
        info = {
            "format_version": FORMAT_VERSION,
            "made": made,
            "pool": pool.model_dump(mode="json"),
            "provenance": {name: each["provenance"] for name, each in identities.items()},
            "data": data,
            "query_digest": digest,
            "encoder": encoder_identity(pool.encoder, before.get("encoder")),
        }
        # tree.json goes first: it makes the folder ours.
        if before != info:
            write_json(folder / "tree.json", info)
        if present != list(queries):
            write_queries(folder / QUERIES, queries)
            present = None
        return cls(folder, set_aside=True, queries=present)

    def commit(self, name: str, nodes: Sequence[Node]) -> None:
        """Adds nodes as one file, all or none.

        Args:
            name: a prefix that tells a person what the file holds.
            nodes: the new nodes.
        """
        self.nodes.append(name_of(name, nodes), nodes)

    def take_out(self, places: Container[NodeKey]) -> None:
        """Removes nodes; the files they stood in are kept as `.orphans`."""
        for path in self.nodes.files():
            nodes = list(self.nodes.stream({path}))
            staying = [node for node in nodes if node.place not in places]
            if len(staying) == len(nodes):
                continue
            if staying:
                self.commit(path.name.removesuffix(".parquet"), staying)
            path.rename(path.with_suffix(".orphans"))
        self.nodes = NodeStore(self.folder / "nodes", set_aside=True, quotes=self.quotes)

    def take_rates(self, pool: PoolConfig) -> None:
        """Takes over the rates of `pool`, and nothing else of it.

        Raises:
            ConfigError: it does not name every model of this tree's pool.
        """
        rates = {
            spec.name: {
                "base_rate": spec.base_rate,
                "billion_parameters": spec.billion_parameters,
            }
            for spec in (*pool.models, *pool.references)
        }
        mine: dict[str, Any] = self.info["pool"]
        names = [spec["name"] for spec in (*mine["models"], *mine["references"])]
        if missing := [name for name in names if name not in rates]:
            raise ConfigError(
                f"the config has no rate for {', '.join(missing)}, which {self.folder} was "
                "recorded with; take a config of the same pool"
            )
        self._change_models(rates)

    def take_endpoints(self, pool: PoolConfig) -> None:
        """Takes over where and how `pool` says that servers are asked, and nothing else of it."""
        self._change_models(
            {
                spec.name: {"endpoint": spec.endpoint.model_dump(mode="json")}
                for spec in (*pool.models, *pool.references)
                if spec.endpoint is not None
            }
        )

    def _change_models(self, changes: Mapping[str, dict[str, Any]]) -> None:
        """Puts other values, by a model's name, into what `tree.json` says of the pool."""
        mine: dict[str, Any] = self.info["pool"]
        changed = {
            part: [{**spec, **changes.get(spec["name"], {})} for spec in mine[part]]
            for part in ("models", "references")
        }
        info = {**self.info, "pool": {**mine, **changed}}
        if info != self.info:
            write_json(self.folder / "tree.json", info)
            self.info = info

    def digest(self) -> str:
        """SHA-256 of what was recorded, whatever the files: places, replies and token counts."""
        whole = hashlib.sha256()
        for each in sorted(_node_digest(node) for node in self.nodes.stream()):
            whole.update(each)
        return whole.hexdigest()


def withheld_tasks(info: dict[str, Any]) -> set[str]:
    """The tasks whose questions are not passed on, by `tree.json`."""
    return set(info["data"].get("config", {}).get("withheld", ()))


def _node_digest(node: Node) -> bytes:
    parts = (
        *(node.query_id, *node.models, node.role, sha256_text(node.reply)),
        *(str(node.tokens_in), str(node.tokens_out)),
    )
    return hashlib.sha256("\x1f".join(parts).encode()).digest()


def read_info(folder: Path) -> dict[str, Any]:
    """`tree.json` of the tree in `folder`.

    Raises:
        HierRouterError: there is no tree in `folder`, or a newer version of us made it.
        DamagedFileError: it is truncated or foreign.
    """
    path = folder / "tree.json"
    if not path.exists():
        raise HierRouterError(f"{folder} holds no route tree; make one with `hierrouter collect`")
    try:
        info = read_json(path)
    except DamagedFileError:
        info = None
    if not isinstance(info, dict) or "format_version" not in info:
        raise DamagedFileError(
            f"{path} cannot be read back, and nothing else says which weights and prompts the "
            "replies beside it came from; restore it from a copy, or name another folder"
        )
    if info["format_version"] != FORMAT_VERSION:
        raise HierRouterError(
            f"{folder} has tree format {info['format_version']}, this version reads "
            f"{FORMAT_VERSION}; use the version of hierrouter that made it"
        )
    return info


def read_recorded(folder: Path) -> dict[str, Any]:
    """As `read_info`, of a tree with replies.

    Raises:
        HierRouterError: it holds imported outcomes.
    """
    info = read_info(folder)
    if info.get(KIND) == OUTCOMES_KIND:
        raise HierRouterError(
            f"{folder} holds imported outcomes, without replies; this needs a recorded tree "
            "(`hierrouter collect`)"
        )
    return info


def _read_queries(folder: Path, info: dict[str, Any]) -> list[Query]:
    try:
        return read_queries(folder / QUERIES)
    except HierRouterError:
        return restore_queries(folder / QUERIES, info)


def _present_queries(folder: Path) -> list[Query] | None:
    """The queries in the tree's table; none where they cannot be read."""
    try:
        return read_queries(folder / QUERIES)
    except HierRouterError:
        return None


def _retire_queries(
    folder: Path, info: dict[str, Any], present: Sequence[Query] | None, now: Sequence[Query]
) -> None:
    """Keeps the texts of queries that leave the sample, as their replies stay too.

    Args:
        folder: the tree.
        info: its `tree.json`.
        present: the queries in its table; none where they cannot be read.
        now: the sample.

    Raises:
        ConfigError: a query of `now` had another text.
        DamagedFileError: the earlier texts are lost and `now` are other queries.
    """
    earlier = read_retired(folder)
    known = {query.query_id: query for query in earlier}
    if present is None:
        present = []
        if digest_queries(now) != info["query_digest"] and any(
            (folder / "nodes").glob("[!.]*.parquet")
        ):
            try:
                present = restore_queries(folder / QUERIES, info)
            except HierRouterError:
                raise DamagedFileError(
                    f"{folder / QUERIES} is missing or cannot be read back and these are other "
                    "queries; collect once with those it was recorded with, or name another folder"
                ) from None
    known |= {query.query_id: query for query in present}
    for query in now:
        before = known.get(query.query_id, query)
        if (before.prompt, before.metadata.get("kind")) != (
            query.prompt,
            query.metadata.get("kind"),
        ):
            raise ConfigError(
                f"{folder} holds another text for query {query.query_id}; give the new question an "
                "id of its own, or name another folder"
            )
    staying = {query.query_id for query in now} - {query.query_id for query in earlier}
    gone = [query for query in known.values() if query.query_id not in staying]
    if len(gone) > len(earlier):
        write_queries(folder / RETIRED, gone)


def read_retired(folder: Path) -> list[Query]:
    """Queries that were recorded and are not of the present sample.

    Raises:
        DamagedFileError: they cannot be read.
    """
    retired = folder / RETIRED
    try:
        return read_queries(retired) if retired.exists() else []
    except DamagedFileError:
        raise DamagedFileError(
            f"{retired} cannot be read back; restore it from a copy, or name another folder"
        ) from None


def pool_of(folder: Path, pool: PoolConfig) -> PoolConfig:
    """The pool that goes with the tree in `folder`: the config's, or, if that is open, the tree's.

    Raises:
        ConfigError: the config names other models or hops.
        HierRouterError: there is no tree.
    """
    info = read_info(folder)
    if not pool.models:
        return PoolConfig.model_validate(info["pool"])
    if info.get(KIND) == OUTCOMES_KIND:
        # Direct answers are all there is, whatever number of hops the config has.
        pool = pool.model_copy(update={"hops": info["pool"]["hops"]})
    refuse_other_members(folder, pool)
    return pool


def refuse_other_members(folder: Path, pool: PoolConfig) -> None:
    """Makes sure that a config speaks of the models and hops of the tree in `folder`.

    Raises:
        ConfigError: it names others.
        HierRouterError: there is no tree.
    """
    recorded = read_info(folder)["pool"]
    there = {spec["name"] for spec in recorded["models"]}, recorded["hops"]
    asked = {spec.name for spec in pool.models}, pool.hops
    if there != asked:
        described = (
            f"{', '.join(sorted(names))} with L = {hops}" for names, hops in (there, asked)
        )
        raise ConfigError(
            "{} is the tree of {}, the config's pool is {}; take the config that it was recorded "
            "with".format(folder, *described)
        )

"""The route tree on disk: every recorded reply, keyed by query, models and role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierrouter.data.queries import Query, digest_queries, read_queries, write_queries
from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import claim_folder, digest_of, read_json, write_json
from hierrouter.pool.open import identity
from hierrouter.routes.encoder import encoder_identity
from hierrouter.routes.nodes import Node, NodeKey, read_nodes, write_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hierrouter.config import PoolConfig

FORMAT_VERSION = 1


class RouteTree:
    """A folder with `tree.json`, `queries.parquet`, `nodes/`, `scores.parquet`, `embeddings/`.

    `nodes` holds every readable node in memory, by place.
    """

    def __init__(self, folder: Path) -> None:
        """Opens an existing tree.

        Raises:
            HierRouterError: there is no tree in `folder`, or a newer version of us made it.
            DamagedFileError: a file of nodes was damaged. It is set aside, so that collecting
                again generates what it held.
        """
        self.folder = folder
        if not (folder / "tree.json").exists():
            raise HierRouterError(
                f"{folder} holds no route tree; make one with `hierrouter collect`"
            )
        self.info: dict[str, Any] = read_json(folder / "tree.json")
        version = self.info.get("format_version")
        if version != FORMAT_VERSION:
            raise HierRouterError(
                f"{folder} has tree format {version}, this version reads {FORMAT_VERSION}; "
                "use the version of hierrouter that made it"
            )
        self.queries: list[Query] = read_queries(folder / "queries.parquet")
        self.nodes: dict[NodeKey, Node] = {}
        self.by_key: dict[str, Node] = {}
        for path in self.node_files():
            try:
                nodes = read_nodes(path)
            except DamagedFileError as error:
                aside = path.with_suffix(".damaged")
                path.rename(aside)
                raise DamagedFileError(
                    f"{error}; it was set aside as {aside.name}. Run `hierrouter collect` (or the "
                    "same command) again: its replies are generated anew, all others are kept"
                ) from error
            self._add(nodes)

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
        identities = {spec.name: identity(spec) for spec in (*pool.models, *pool.references)}
        made = _made(pool, identities)
        if (folder / "tree.json").exists():
            tree = cls(folder) if (folder / "queries.parquet").exists() else None
            earlier = read_json(folder / "tree.json")["made"]
            _refuse_other_pool(folder, earlier, made)
            made["models"] = {**earlier["models"], **made["models"]}
            if tree is not None:
                _refuse_other_texts(folder, tree.queries, queries)
        info = {
            "format_version": FORMAT_VERSION,
            "made": made,
            "pool": pool.model_dump(mode="json"),
            "provenance": {name: each["provenance"] for name, each in identities.items()},
            "data": data,
            "query_digest": digest_queries(queries),
            "encoder": encoder_identity(pool.encoder),
        }
        if not (folder / "tree.json").exists() or read_json(folder / "tree.json") != info:
            write_json(folder / "tree.json", info)
        path = folder / "queries.parquet"
        if not path.exists() or digest_queries(read_queries(path)) != info["query_digest"]:
            write_queries(path, queries)
        return cls(folder)

    def node_files(self) -> Iterator[Path]:
        """The files of nodes, in a fixed order."""
        yield from sorted((self.folder / "nodes").glob("*.parquet"))

    def commit(self, name: str, nodes: Sequence[Node]) -> None:
        """Adds nodes as one file, all or none.

        Args:
            name: a prefix that tells a person what the file holds.
            nodes: the new nodes.
        """
        places = digest_of([[*node.place[:1], list(node.models), node.role] for node in nodes])
        write_nodes(self.folder / "nodes" / f"{name}-{places[:8]}.parquet", nodes)
        self._add(nodes)

    def take_rates(self, pool: PoolConfig) -> None:
        """Takes over the rates (and whatever else may change) of `pool`.

        Raises:
            ConfigError: it is another pool than the one recorded.
        """
        identities = {spec.name: identity(spec) for spec in (*pool.models, *pool.references)}
        _refuse_other_pool(self.folder, self.info["made"], _made(pool, identities))
        self.info = {**self.info, "pool": pool.model_dump(mode="json")}
        write_json(self.folder / "tree.json", self.info)

    def digest(self) -> str:
        """SHA-256 of what was recorded: places and generation keys, whatever the files."""
        return digest_of(
            sorted(
                [*node.place[:1], list(node.models), node.role, node.key]
                for node in self.nodes.values()
            )
        )

    def _add(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            # The first recorded wins: it is what was paid for, and what later hops were built on.
            self.nodes.setdefault(node.place, node)
            self.by_key.setdefault(node.key, node)


def _made(pool: PoolConfig, identities: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What replies depend on: a tree refuses another one."""
    return {
        "prompts": pool.prompts.model_dump(mode="json"),
        "models": {
            spec.name: {
                "weights": identities[spec.name]["weights_digest"],
                "generation": identities[spec.name]["generation"],
                "instruction": spec.instruction,
                "limits": spec.limits.model_dump(mode="json"),
            }
            for spec in (*pool.models, *pool.references)
        },
    }


def _refuse_other_pool(folder: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    if earlier["prompts"] != now["prompts"]:
        raise ConfigError(
            f"{folder} was recorded with other pool.prompts; name another folder or restore them"
        )
    for name, model in now["models"].items():
        before = earlier["models"].get(name)
        if before is None or before == model:
            continue
        what = next(key for key in model if model[key] != before[key])
        raise ConfigError(
            f"{folder} was recorded with other {what} of model {name} "
            f"({_short(before[what])}, now {_short(model[what])}); "
            "name another folder, or give the changed model another name"
        )


def _refuse_other_texts(folder: Path, earlier: Sequence[Query], now: Sequence[Query]) -> None:
    prompts = {query.query_id: query.prompt for query in earlier}
    for query in now:
        if prompts.get(query.query_id, query.prompt) != query.prompt:
            raise ConfigError(
                f"{folder} holds another text for query {query.query_id}; name another folder"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Recording the route tree: every node generated once, in batches, model by model."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hierrouter.data.queries import read_queries
from hierrouter.files import claim_folder, digest_of, read_json
from hierrouter.pool.fit import require_fit
from hierrouter.pool.open import open_backend
from hierrouter.pool.prompts import build_message, instruction_for, limit_for
from hierrouter.progress import Progress, say
from hierrouter.routes.calls import WHOLE, Part, planned_calls, stages, unit_numbers, units
from hierrouter.routes.embed import embed_tree
from hierrouter.routes.lock import sole_writer
from hierrouter.routes.nodes import Node, NodeKey
from hierrouter.routes.scores import answer_kind, score_tree
from hierrouter.routes.tree import RouteTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from hierrouter.config import ModelSpec, PoolConfig
    from hierrouter.pool.backend import Backend, Completion
    from hierrouter.pool.prompts import Role
    from hierrouter.routes.calls import Call


def collect_routes(config: PoolConfig, queries: Path, out: Path, part: Part = WHOLE) -> Path:
    """Records the full tree of every query, and each reference model's direct answer.

    Nodes are generated depth by depth and model by model, and committed unit by unit; what is
    committed is never generated again, so the same call goes on after any interruption. Then
    answers are scored and contexts embedded.

    Args:
        config: the pool part of a config.
        queries: `queries.parquet` of `sample_queries`, or its folder.
        out: the folder of the tree.
        part: what of the tree is wanted now.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` is not ours, or holds the tree of another pool.
        DamagedFileError: a file of the tree cannot be read back; the same call then goes on.
        HierRouterError: the disk is full, or another process records into `out`.
    """
    table = queries / "queries.parquet" if queries.is_dir() else queries
    sampled = read_queries(table)
    origin = table.with_name("queries.json")
    claim_folder(out, "tree.json")
    with sole_writer(out):
        data = read_json(origin) if origin.exists() else {}
        tree = RouteTree.create_or_open(out, config, sampled, data)
        record(tree, config, part)
        score_tree(tree)
        embed_tree(tree, config.encoder)
    return out


def record(tree: RouteTree, config: PoolConfig, part: Part = WHOLE) -> None:
    """Generates and commits every wanted node that `tree` does not hold yet.

    Raises:
        HierRouterError: a prompt would be too long; found before anything is generated.
    """
    calls = list(planned_calls(tree.queries, config, part))
    queries = len({call.query.query_id for call in calls})
    missing = [call for call in calls if call.place not in tree.nodes]
    if not missing:
        say(f"recorded: all {len(calls)} nodes of {queries} queries are there")
        return
    _require_fit(tree, config, missing)
    say(f"recording {len(missing)} of {len(calls)} nodes of {queries} queries")
    weights = {name: model["weights"] for name, model in tree.info["made"]["models"].items()}
    numbers = unit_numbers(tree.queries, config.queries_per_unit)
    # Work is counted in expected seconds, so that the time left does not jump between models.
    work = sum(call.work for call in missing)
    with Progress("recording", len(missing), "nodes", work=work) as progress:
        for group in stages(missing, weights):
            backend = _open(tree, config, group[0].spec)
            try:
                for unit in units(group, numbers):
                    _record_unit(tree, config, backend, unit, progress)
            finally:
                backend.close()


def _require_fit(tree: RouteTree, config: PoolConfig, missing: Sequence[Call]) -> None:
    """Refuses questions that are too long for a model before any reply is paid for."""
    needed = {call.spec.name for call in missing}
    queries = list({call.query.query_id: call.query for call in missing}.values())
    questions = [(query.prompt, answer_kind(query)) for query in queries]
    for specs, hops in ((config.models, config.hops), (config.references, 1)):
        for group in _same_model(spec for spec in specs if spec.name in needed):
            backend = _open(tree, config, group[0])
            require_fit(backend, group, config.prompts, hops, questions)


def _open(tree: RouteTree, config: PoolConfig, spec: ModelSpec) -> Backend:
    """What answers as `spec`, with the weights that the tree knows it by."""
    weights: str = tree.info["made"]["models"][spec.name]["weights"]
    return open_backend(spec, config.prompts, config.batch_tokens, weights)


def _same_model(specs: Iterable[ModelSpec]) -> list[list[ModelSpec]]:
    """Members of one model, which share its tokenizer."""
    groups: dict[tuple[str, str], list[ModelSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.model, spec.revision), []).append(spec)
    return list(groups.values())


def _record_unit(
    tree: RouteTree,
    config: PoolConfig,
    backend: Backend,
    unit: tuple[int, list[Call]],
    progress: Progress,
) -> None:
    number, calls = unit
    keys: list[str] = []
    fresh: dict[str, tuple[str, int, Call]] = {}
    for call in calls:
        prompt, limit, key = _prompt(tree, config, backend, call)
        keys.append(key)
        if key not in tree.by_key:
            fresh.setdefault(key, (prompt, limit, call))
    order = list(fresh)
    made: dict[str, Node] = {}

    def keep(position: int, completion: Completion) -> None:
        key = order[position]
        call = fresh[key][2]
        made[key] = _node(call, key, completion, backend)
        progress.advance(1, call.spec.name, work=call.work)

    try:
        backend.generate(
            [prompt for prompt, _, _ in fresh.values()],
            [limit for _, limit, _ in fresh.values()],
            keep,
        )
    finally:
        # Whatever stopped the rest, what was paid for is kept.
        nodes = []
        for call, key in zip(calls, keys, strict=True):
            known = made.get(key) or tree.by_key.get(key)
            if known is not None:
                nodes.append(
                    replace(
                        known,
                        query_id=call.query.query_id,
                        models=call.models,
                        role=call.role,
                    )
                )
                if key not in made or fresh[key][2] is not call:
                    progress.advance(1, call.spec.name, work=call.work)
        if nodes:
            tree.commit(f"{number:05d}-hop{len(calls[0].models) - 1}", nodes)


def _node(call: Call, key: str, completion: Completion, backend: Backend) -> Node:
    return Node(
        query_id=call.query.query_id,
        models=call.models,
        role=call.role,
        **asdict(completion),
        dtype=backend.dtype,
        backend=backend.name,
        device=backend.device,
        key=key,
    )


def _prompt(
    tree: RouteTree, config: PoolConfig, backend: Backend, call: Call
) -> tuple[str, int, str]:
    """The rendered prompt of a call, its limit of new tokens, and its generation key."""
    replies: list[tuple[Role, str]] = [
        (
            "analyze",
            tree.nodes[NodeKey(call.query.query_id, call.models[:depth], "analyze")].reply,
        )
        for depth in range(1, len(call.models))
    ]
    hop = len(call.models) - 1
    message = build_message(
        call.query.prompt,
        replies,
        instruction_for(config.prompts, call.spec, hop, call.role, any_before=hop > 0),
        getattr(config.prompts.answer_formats, answer_kind(call.query))
        if call.role == "solve"
        else "",
        backend.count_tokens,
        config.prompts.max_context_tokens,
    )
    prompt = backend.render(message)
    limit = limit_for(call.spec, call.role, call.query.task)
    made: dict[str, Any] = tree.info["made"]["models"][call.spec.name]
    key = digest_of([made["weights"], {**made["generation"], "max_new_tokens": limit}, prompt])
    return prompt, limit, key

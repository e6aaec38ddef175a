"""A tree that was recorded from the mirror goes on where the hub is reached and offers other files.

Each machine is a process of its own: one that reaches no hub, and one that does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.hubs import CLOSED, COMMIT, model_hub, offer, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = """
import json, sys
from pathlib import Path
from hierrouter.config import PoolConfig
from hierrouter.data.queries import Query, write_queries
from hierrouter.errors import HierRouterError
from hierrouter.routes.tree import RouteTree
how, *trees = sys.argv[1:]
pool = PoolConfig.model_validate({
    "models": [{
        "name": "t", "model": "org/tiny", "backend": "transformers", "dtype": "float32",
        "base_rate": 1, "limits": {"solve": 2, "analyze": 2},
    }],
    "hops": 1,
    "encoder": {"model": "org/tiny", "views": ["paper"]},
})
queries = [
    Query(f"x/{n}", "x", "train", 0, f"Is {n} odd?", ("A",), "A", (), {"kind": "letter"})
    for n in range(2)
]
def record(where):
    # All that `ask` opens too. These load what takes seconds to import.
    from hierrouter.pool.live.fleet import Fleet
    from hierrouter.routes.collect import collect_routes
    from hierrouter.routes.encoder import open_matching_encoder
    write_queries(where.with_suffix(".parquet"), queries)
    collect_routes(pool, where.with_suffix(".parquet"), where)
    info = RouteTree(where).info
    Fleet(pool, {name: made["weights"] for name, made in info["made"]["models"].items()})
    open_matching_encoder(pool.encoder, info["encoder"]).encode(["Is it?"])
for where in map(Path, trees):
    try:
        tree = RouteTree.create_or_open(where, pool, queries, {})
        if how == "record":
            record(where)
            tree = RouteTree(where)
        info = tree.info
        print(json.dumps({
            "nodes": len(list(tree.nodes)),
            "source": info["provenance"]["t"]["source"],
            "weights": info["made"]["models"]["t"]["weights"],
            "encoder": info["encoder"],
        }))
    except HierRouterError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub_of_other_weights(tiny_model: Path) -> Iterator[str]:
    """A hub that has the tiny model with a last weight that differs."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    weights = files["model.safetensors"]
    files["model.safetensors"] = weights[:-4] + b"\0\0\0\0"
    assert files["model.safetensors"] != weights
    with model_hub({"org/tiny": files}) as url:
        yield url


def on(environment: dict[str, str], how: str, *trees: Path) -> tuple[list[Any], str]:
    """Opens trees for recording in a new process, or records: what they are then; what is said."""
    done = subprocess.run(
        [sys.executable, "-c", RECORD, how, *map(str, trees)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_each_tree_goes_on_with_the_weights_and_the_encoder_that_it_was_recorded_with(
    tmp_path: Path, tiny_model: Path, hub_of_other_weights: str
) -> None:
    offered = offer(tmp_path / "index", {"org/tiny": tiny_model})
    first, second = tmp_path / "of_mirror", tmp_path / "of_hub"
    closed = settings(tmp_path / "closed", CLOSED, **offered)
    (before,), _ = on(closed, "open", first)
    assert (before["source"], before["encoder"]["revision"]) == ("mirror", None)

    # The next machine reaches the hub, and has nothing yet.
    reached = settings(tmp_path / "reached", hub_of_other_weights, **offered)
    (after, other, again), said = on(reached, "record", first, second, second)
    assert after == {**before, "nodes": 2}
    assert "what was recorded came from the mirror" in said
    # What is new takes the hub, and stays with it.
    assert (other["source"], other["encoder"]["revision"]) == ("hub", COMMIT)
    assert other["weights"] != after["weights"]
    assert again == other

    # Where the mirror has it no more, the hub's is not taken for it.
    shutil.rmtree(tmp_path / "index" / "mirrors")
    (tmp_path / "index" / "mirrors").mkdir()
    (refused,), _ = on(settings(tmp_path / "gone", hub_of_other_weights, **offered), "open", first)
    assert "recorded with other weights of model t" in refused["error"]
    assert "docs/mirrors.md" in refused["error"]

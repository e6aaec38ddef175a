"""A tree in an object store: a real S3 API on this machine, and fsspec's own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from hierrouter.cli.main import app
from hierrouter.errors import ConfigError, UnreachableError
from hierrouter.files import folder_at
from hierrouter.routes.calls import Part, Shard
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import compact_tree, merge_trees
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch) -> Iterator[str]:
    """The name of an empty bucket that s3:// addresses reach."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="trees")
    yield "trees"
    found = client.list_objects_v2(Bucket="trees").get("Contents", [])
    for each in found:
        client.delete_object(Bucket="trees", Key=each["Key"])
    client.delete_bucket(Bucket="trees")
    s3fs.S3FileSystem.clear_instance_cache()


def objects(bucket: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return sorted(each["Key"] for each in found)


def test_a_tree_in_a_bucket_is_the_tree_in_a_folder(world, queries, tree, bucket) -> None:
    remote = folder_at(f"s3://{bucket}/runs/tree")
    shards = [folder_at(f"s3://{bucket}/runs/shard{index}") for index in range(2)]
    for index, shard in enumerate(shards):
        collect_routes(world.pool(), queries, shard, Part(shard=Shard(index, 2)))
    merge_trees(shards, remote)
    assert RouteTree(remote).digest() == RouteTree(tree).digest()
    assert read_scores(remote)[1] == read_scores(tree)[1]
    assert (load_outcomes(remote, "accuracy").embeddings).tolist() == (
        load_outcomes(tree, "accuracy").embeddings
    ).tolist()
    assert verify_tree(remote, keys=True) == []
    compact_tree(remote)
    assert len(RouteTree(remote).nodes.files()) == 1
    assert verify_tree(remote) == []


def test_a_file_of_nodes_is_one_put_and_nothing_temporary_is_left(
    world, queries, bucket, monkeypatch
) -> None:
    import s3fs

    puts: list[str] = []
    put = s3fs.S3FileSystem._put_file

    async def counted(self, source, target, *args, **kwargs):
        puts.append(target)
        return await put(self, source, target, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", counted)
    remote = folder_at(f"s3://{bucket}/tree")
    collect_routes(world.pool(), queries, remote)
    nodes = [name for name in puts if "/nodes/" in name]
    assert sorted(nodes) == sorted(f"{bucket}/{n}" for n in objects(bucket) if "/nodes/" in n)
    assert not [name for name in objects(bucket) if "tmp" in name]
    puts.clear()
    collect_routes(world.pool(), queries, remote)
    assert not [name for name in puts if "/nodes/" in name]


def test_the_commands_take_addresses(world, queries, tree, bucket, capfd) -> None:
    remote = f"s3://{bucket}/tree"
    merged = CliRunner().invoke(app, ["tree", "merge", str(tree), "--out", remote])
    assert merged.exit_code == 0, merged.output
    told = CliRunner().invoke(app, ["tree", "info", remote])
    assert "8 queries, 120 nodes" in told.output


def test_memory_serves_too(world, queries, tree) -> None:
    remote = folder_at("memory://trees/one")
    collect_routes(world.pool(), queries, remote)
    assert RouteTree(remote).digest() == RouteTree(tree).digest()


def test_an_unknown_kind_of_store_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nostore://x: no store of this kind.*pip install"):
        folder_at("nostore://x")


def test_a_store_that_does_not_answer_is_named(monkeypatch) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UnreachableError, match=r"s3://trees/x cannot be reached") as failure:
        folder_at("s3://trees/x")
    assert "\n" not in str(failure.value)


def test_a_path_is_a_path(tmp_path: Path) -> None:
    assert folder_at(str(tmp_path)) == tmp_path
    assert folder_at(f"file://{tmp_path}") == tmp_path

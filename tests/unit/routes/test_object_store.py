"""A tree in an object store: a real S3 API on this machine, and fsspec's own memory."""

from __future__ import annotations

import errno
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from hierrouter import files
from hierrouter.cli.main import app
from hierrouter.errors import (
    BusyError,
    ConfigError,
    DamagedFileError,
    HierRouterError,
    UnreachableError,
)
from hierrouter.files import folder_at
from hierrouter.routes import store as stores
from hierrouter.routes.calls import Part, Shard
from hierrouter.routes.collect import collect_routes
from hierrouter.routes.load import load_outcomes
from hierrouter.routes.scores import read_scores
from hierrouter.routes.tree import RouteTree
from hierrouter.routes.upkeep import compact_tree, merge_trees
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_what_was_put_is_not_fetched_to_be_read(world, queries, monkeypatch) -> None:
    fetched: Counter[str] = Counter()

    def counted(path: Path) -> bytes:
        fetched[path.name] += 1
        return files.fetched(path)

    monkeypatch.setattr(stores, "fetched", counted)
    remote = folder_at("memory://trees/fetched")
    collect_routes(world.pool(), queries, remote)
    # Once, by who scores and embeds what others may have recorded meanwhile, too.
    assert fetched == Counter(path.name for path in (remote / "nodes").iterdir())


# What may go wrong.


def test_a_damaged_object_is_set_aside_and_what_it_held_is_made_anew(world, queries, tree) -> None:
    remote = folder_at("memory://trees/damaged")
    collect_routes(world.pool(), queries, remote)
    path = RouteTree(remote).nodes.files()[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match=r"cannot be read back.*set aside as \.damaged"):
        collect_routes(world.pool(), queries, remote)
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    for _ in range(2):
        collect_routes(world.pool(), queries, remote)
        assert RouteTree(remote).digest() == RouteTree(tree).digest()
    assert verify_tree(remote, keys=True) == []


def test_nodes_are_taken_out_of_an_object_whose_others_stay(world, queries, tree) -> None:
    remote = folder_at("memory://trees/taken")
    collect_routes(world.pool(), queries, remote)
    opened = RouteTree(remote)
    path = opened.nodes.files()[-1]
    gone = next(opened.nodes.stream({path})).place
    opened.take_out({gone})
    for each in (opened, RouteTree(remote)):
        assert gone not in each.nodes
        assert len(each.nodes) == 119
    assert not path.exists()
    assert path.with_suffix(".orphans").exists()
    collect_routes(world.pool(), queries, remote)
    assert RouteTree(remote).digest() == RouteTree(tree).digest()


def test_without_room_for_temporary_files_nothing_is_begun(
    world, queries, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(HierRouterError, match=r"cannot keep a copy of memory://.*: No such file"):
        collect_routes(world.pool(), queries, folder_at("memory://trees/full"))


def test_a_copy_that_cannot_be_kept_is_no_damage(world, queries, monkeypatch) -> None:
    remote = folder_at("memory://trees/copies")
    collect_routes(world.pool(), queries, remote)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", no_room)
        with pytest.raises(HierRouterError, match=r"cannot keep a copy of .*: No space left"):
            RouteTree(remote, set_aside=True)
    assert len(RouteTree(remote, set_aside=True).nodes) == 120


def no_room(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[:10])
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HIERROUTER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def preceded(monkeypatch, **changes: Any) -> None:
    """Lets another recorder be first with the first unit; what it was answered has `changes`."""
    commit = RouteTree.commit

    def late(self, name, nodes) -> None:
        monkeypatch.setattr(RouteTree, "commit", commit)
        RouteTree(self.folder).commit(name, [replace(node, **changes) for node in nodes])
        commit(self, name, nodes)

    monkeypatch.setattr(RouteTree, "commit", late)


def test_a_second_recorder_replaces_nothing_and_goes_on_from_the_first(
    world, queries, bucket, home, monkeypatch
) -> None:
    remote = folder_at(f"s3://{bucket}/tree")
    preceded(monkeypatch, reply="Plan: another one.")
    with pytest.raises(BusyError, match=r"00000-hop0\S+ was put there by another process"):
        collect_routes(world.pool(), queries, remote)
    theirs = dict(RouteTree(remote).nodes.items())
    assert {node.reply for node in theirs.values()} == {"Plan: another one."}
    assert not list(home.rglob("*.parquet"))
    collect_routes(world.pool(), queries, remote)
    nodes = RouteTree(remote).nodes
    assert len(nodes) == 120
    assert {place: nodes[place] for place in theirs} == theirs
    assert verify_tree(remote, keys=True) == []


def test_the_store_itself_refuses_what_comes_second(
    world, queries, bucket, home, monkeypatch
) -> None:
    """Another recorder may put its file after we have looked."""
    import s3fs

    put = s3fs.S3FileSystem._put_file

    async def late(self, source, target, *args, **more):
        if "/nodes/" in target:
            boto3.client("s3").put_object(Bucket=bucket, Key=target.partition("/")[2], Body=b"x")
        return await put(self, source, target, *args, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", late)
    remote = folder_at(f"s3://{bucket}/tree")
    with pytest.raises(BusyError, match="was put there by another process"):
        collect_routes(world.pool(), queries, remote)
    (path,) = (remote / "nodes").iterdir()
    assert path.read_bytes() == b"x"


def test_what_is_there_as_it_was_to_be_put_is_no_other_recorder(
    world, queries, tree, home, monkeypatch
) -> None:
    """A store may take what is put and fail to say so."""
    remote = folder_at("memory://trees/same")
    preceded(monkeypatch)
    collect_routes(world.pool(), queries, remote)
    assert RouteTree(remote).digest() == RouteTree(tree).digest()


def test_a_store_without_conditions_serves_too(world, queries, tree, home, monkeypatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    put = MemoryFileSystem.put_file

    def unconditional(self, source, target, mode="overwrite", **more) -> None:
        if mode == "create":
            raise OSError(errno.ENOSYS, "A header you provided is not implemented")
        put(self, source, target, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", unconditional)
    remote = folder_at("memory://trees/unconditional")
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

"""Vectors at hand: told from others of the same width, and kept by query."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hierrouter.config import EncoderConfig, EvaluationConfig, TrainingConfig
from hierrouter.errors import ConfigError, HierRouterError
from hierrouter.evaluation.evaluate import evaluate_router, is_evaluated
from hierrouter.files import read_json
from hierrouter.learning.train import is_trained, train_router
from hierrouter.routes.encoder import open_matching_encoder
from hierrouter.routes.imported import vectors as vectors_module
from hierrouter.routes.imported import write as write_module
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.load import load_outcomes, tree_info
from hierrouter.routes.verify import verify_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

TRAINING = TrainingConfig(moves="direct", learner="regression")
EVALUATION = EvaluationConfig(alphas=[0.1], bootstrap=100, cross_fit=False)


@pytest.fixture
def exact() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture
def imported(saved, make_rows, tmp_path) -> Callable[..., Path]:
    """The same outcomes with these vectors, always into the same folder."""
    log = saved(make_rows())

    def run(vectors: NDArray[np.float32], **options: Any) -> Path:
        np.save(tmp_path / "vectors.npy", vectors)
        options.setdefault("embeddings", tmp_path / "vectors.npy")
        return import_outcomes(log, tmp_path / "tree", **options)

    return run


@pytest.mark.parametrize("name", [None, "minilm"])
def test_a_router_is_trained_and_judged_again_on_other_vectors(
    name, imported, exact, tmp_path
) -> None:
    tree = imported(exact, encoder_name=name)
    router = train_router(TRAINING, tree, tmp_path / "router")
    judged = evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")
    assert is_trained(TRAINING, tree, router)
    assert is_evaluated(EVALUATION, tree, router, judged)
    imported(exact[::-1].copy(), encoder_name=name)
    assert verify_tree(tree) == []
    assert not is_trained(TRAINING, tree, router)
    assert not is_evaluated(EVALUATION, tree, router, judged)


def test_a_router_is_not_judged_on_vectors_of_what_may_be_another_encoder(
    imported, exact, tmp_path, capsys
) -> None:
    tree = imported(exact)
    assert "name the encoder with --encoder-name" in " ".join(capsys.readouterr().err.split())
    router = train_router(TRAINING, tree, tmp_path / "router")
    for options in ({}, {"encoder_name": "minilm"}):
        imported(exact[::-1].copy(), **options)
        with pytest.raises(HierRouterError, match=r"trained on imported vectors .*--encoder-name"):
            evaluate_router(EVALUATION, tree, router, tmp_path / "evaluation")


def test_a_router_is_judged_on_other_queries_by_the_encoder_of_its_name(
    imported, exact, make_rows, saved, tmp_path
) -> None:
    router = train_router(TRAINING, imported(exact, encoder_name="minilm"), tmp_path / "router")
    np.save(tmp_path / "more.npy", np.concatenate([exact, exact[:20]]))
    more = import_outcomes(
        saved(make_rows(60), "more.csv"),
        tmp_path / "more",
        embeddings=tmp_path / "more.npy",
        encoder_name="minilm",
    )
    assert evaluate_router(EVALUATION, more, router, tmp_path / "evaluation").is_dir()


def test_the_same_vectors_are_known_in_another_file(imported, exact, make_rows, tmp_path) -> None:
    tree = imported(exact)
    before = tree_info(tree)
    ids = list(dict.fromkeys(row["query_id"] for row in make_rows()))
    file = tmp_path / "vectors.parquet"
    # A row an outcome, the queries from the last to the first.
    at = np.repeat(np.arange(40)[::-1], 3)
    pq.write_table(
        pa.table({"query_id": [ids[k] for k in at], "embedding": exact[at].tolist()}), file
    )
    imported(exact, embeddings=file)
    assert tree_info(tree)["tree_digest"] == before["tree_digest"]
    assert tree_info(tree)["encoder"] == before["encoder"]


def test_of_two_vectors_of_one_query_the_first_counts(imported, exact, make_rows, tmp_path) -> None:
    ids = list(dict.fromkeys(row["query_id"] for row in make_rows()))
    file = tmp_path / "vectors.parquet"
    both = {"query_id": [*ids, *ids], "embedding": [*exact.tolist(), *(-exact).tolist()]}
    pq.write_table(pa.table(both), file)
    found = load_outcomes(imported(exact, embeddings=file), "accuracy")
    at = [ids.index(query_id) for query_id in found.query_ids]
    np.testing.assert_allclose(found.embeddings[:, 0], exact[at], atol=0.02)


def test_queries_with_equal_prompts_keep_their_own_vectors(
    saved, make_rows, exact, tmp_path
) -> None:
    rows = make_rows()
    ids = list(dict.fromkeys(row["query_id"] for row in rows))
    for row in rows:
        row |= {"prompt": "[redacted]", "split": ("train", "test")[ids.index(row["query_id"]) % 2]}
    np.save(tmp_path / "vectors.npy", exact)
    tree = import_outcomes(saved(rows), tmp_path / "tree", embeddings=tmp_path / "vectors.npy")
    found = load_outcomes(tree, "accuracy")
    at = [ids.index(query_id) for query_id in found.query_ids]
    np.testing.assert_allclose(found.embeddings[:, 0], exact[at], atol=0.02)
    assert verify_tree(tree) == []


def test_vectors_of_an_earlier_import_never_pass_for_new_ones(
    imported, exact, monkeypatch, capsys
) -> None:
    tree = imported(exact, encoder_name="minilm")

    class StoppedError(Exception):
        """A kill."""

    def stop(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(vectors_module, "write_vectors", stop)
        with pytest.raises(StoppedError):
            imported(-exact, encoder_name="minilm")
    with pytest.raises(HierRouterError, match="no vector yet"):
        load_outcomes(tree, "accuracy")
    imported(-exact, encoder_name="minilm")
    assert verify_tree(tree) == []
    capsys.readouterr()
    imported(-exact, encoder_name="minilm")
    assert "are kept" in capsys.readouterr().err


def test_an_earlier_import_stays_when_the_disk_is_full(imported, exact, monkeypatch) -> None:
    tree = imported(exact, encoder_name="minilm")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(write_module, "_write_outcomes", full)
        with pytest.raises(HierRouterError, match="make room"):
            imported(-exact, encoder_name="minilm")
    assert verify_tree(tree) == []
    imported(-exact, encoder_name="minilm")
    assert verify_tree(tree) == []


def test_vectors_that_were_exchanged_are_found(imported, exact, tmp_path) -> None:
    tree = imported(exact, encoder_name="minilm")
    (file,) = tree.glob("embeddings/*/*.parquet")
    old = file.read_bytes()
    imported(-exact, encoder_name="minilm")
    (file,) = tree.glob("embeddings/*/*.parquet")
    file.write_bytes(old)
    (fault,) = verify_tree(tree)
    assert "holds other vectors than tree.json says" in fault
    imported(-exact, encoder_name="minilm")
    assert verify_tree(tree) == []


def test_vectors_that_are_not_finite_are_found(imported, exact) -> None:
    tree = imported(exact)
    (file,) = tree.glob("embeddings/*/*.parquet")
    table = pq.read_table(file)
    scale = pa.array([float("nan"), *table["scale"].to_pylist()[1:]], pa.float32())
    pq.write_table(table.set_column(1, table.schema.field("scale"), scale), file)
    assert "holds numbers that are not finite" in verify_tree(tree)[0]


def test_vectors_of_an_unknown_encoder_do_not_pile_up(imported, exact) -> None:
    tree = imported(exact)
    imported(-exact)
    assert len(list(tree.glob("embeddings/*"))) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"embeddings": None, "encoder_name": "minilm"}, "--encoder-name: there are no vectors"),
        ({"encoder_name": "minilm", "same_encoder": True}, "leave one of them out"),
        ({"encoder_name": " "}, "names no encoder"),
        ({"encoder_name": "vectors:1"}, "names no encoder"),
    ],
)
def test_what_cannot_be_said_of_an_encoder_is_refused(options, words, imported, exact) -> None:
    with pytest.raises(ConfigError, match=words):
        imported(exact, **options)


def test_a_router_of_an_unknown_encoder_says_that_it_reads_nothing(imported, exact) -> None:
    info = read_json(imported(exact) / "tree.json")
    # As routers of earlier imports remember it, too.
    for identity in (info["encoder"], {"model": "imported", "dimensions": 6}):
        with pytest.raises(HierRouterError, match="no new text can be read"):
            open_matching_encoder(EncoderConfig.model_validate(info["pool"]["encoder"]), identity)

"""Which trees a router may be judged on."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hierrouter.configfile import load_config
from hierrouter.data.sample import sample_queries
from hierrouter.errors import HierRouterError
from hierrouter.evaluation.evaluate import (
    MARKER,
    METRICS,
    RECORDS,
    RESULTS,
    check_origin,
    evaluate_router,
    is_evaluated,
)
from hierrouter.files import read_json, write_json
from hierrouter.learning.train import train_router
from hierrouter.routes.collect import collect_routes

SCRIPTED = Path(__file__).parents[3] / "configs" / "scripted.yaml"

ENCODER = {"model": "org/encoder", "revision": "one", "digest": "e" * 64, "max_tokens": 512}
WEIGHTS = {"A": "a" * 64, "B": "b" * 64}


def router():
    """The part of a router's description that says what it was trained with."""
    return SimpleNamespace(models=("A", "B"), encoder={"identity": ENCODER}, weights=WEIGHTS)


def test_the_routers_own_encoder_and_weights_pass():
    check_origin(router(), {"encoder": ENCODER, "weights": {**WEIGHTS, "reference": "c" * 64}})


@pytest.mark.parametrize(
    ("encoder", "weights", "culprit"),
    [
        ({"digest": "f" * 64}, {}, r"encoder org/encoder.*\(different: digest\)"),
        ({"model": "org/other", "max_tokens": 9}, {}, "org/other.*max_tokens, model"),
        ({}, {"B": "c" * 64}, "other weights of B"),
    ],
)
def test_another_encoder_or_other_weights_are_refused_in_one_line(encoder, weights, culprit):
    tree = {"encoder": {**ENCODER, **encoder}, "weights": {**WEIGHTS, **weights}}
    with pytest.raises(HierRouterError, match=culprit) as refusal:
        check_origin(router(), tree)
    assert "\n" not in str(refusal.value)


def test_a_tree_embedded_otherwise_is_refused_before_anything_is_written(tmp_path):
    config = load_config(
        SCRIPTED, ["data.queries_per_task=12", "training.iterations=1", "training.projection=4"]
    )
    queries = sample_queries(config.data, tmp_path / "queries")
    tree = collect_routes(config.pool, queries, tmp_path / "tree")
    trained = train_router(config.training, tree, tmp_path / "router")
    out = evaluate_router(config.evaluation, tree, trained, tmp_path / "evaluation")
    assert {path.name for path in out.iterdir()} == {MARKER, *RESULTS}
    assert is_evaluated(config.evaluation, tree, trained, out)
    metrics = read_json(out / METRICS)
    write_json(out / METRICS, {**metrics, "format_version": 2})  # or registering it would fail
    assert not is_evaluated(config.evaluation, tree, trained, out)
    write_json(out / METRICS, metrics)
    (out / RECORDS).unlink()
    assert not is_evaluated(config.evaluation, tree, trained, out)

    info = read_json(tree / "tree.json")
    write_json(tree / "tree.json", {**info, "encoder": {**info["encoder"], "model": "other"}})
    with pytest.raises(HierRouterError, match="embedded with other"):
        evaluate_router(config.evaluation, tree, trained, tmp_path / "another")
    assert list((tmp_path / "another").iterdir()) == []

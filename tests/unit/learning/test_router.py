"""The router artifact: saved and loaded, asked, and followed over recorded outcomes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hierrouter.errors import ConfigError, DamagedFileError, HierRouterError
from hierrouter.files import sha256_file
from hierrouter.learning.actions import allowed_actions
from hierrouter.learning.card import model_card
from hierrouter.learning.contexts import RecordedContexts
from hierrouter.learning.greedy import mean_reward
from hierrouter.learning.router import LARGEST, Router, query_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hierrouter.routes.outcomes import Outcomes

CURVE = [{"iteration": 1, "transitions": 8, "metrics": {"validation_reward": 0.5}}]


@pytest.fixture
def saved(make_outcomes, make_router, tmp_path: Path) -> Path:
    router = make_router(make_outcomes(models=3))
    router.save(tmp_path / "router", CURVE, model_card(router.info))
    return tmp_path / "router"


@pytest.fixture
def saved_mlp(make_outcomes, make_router, tmp_path: Path) -> Path:
    router = make_router(make_outcomes(models=3), policy="mlp")
    router.save(tmp_path / "mlp", CURVE, model_card(router.info))
    return tmp_path / "mlp"


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Alters the weights and makes the description agree with them."""
    named = load_file(folder / "router.safetensors")
    change(named)
    save_file(named, folder / "router.safetensors")
    described = json.loads((folder / "router.json").read_text())
    described["weights_sha256"] = sha256_file(folder / "router.safetensors")
    (folder / "router.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("instruction", "shown"),
    [
        ("Think first.\nThen answer:\n\n- in a word", "Think first. Then answer: - in a word"),
        ("Answer yes|no.", r"Answer yes\|no."),
        ("x" * 150, "x" * 100 + " …"),
    ],
)
def test_an_instruction_stays_in_its_cell_of_the_card(
    make_outcomes, make_router, instruction: str, shown: str
) -> None:
    info = make_router(make_outcomes(models=1)).info
    (spec,) = info.config["pool"]["models"]
    pool = {**info.config["pool"], "models": [{**spec, "instruction": instruction}]}
    card = model_card(info.model_copy(update={"config": {**info.config, "pool": pool}}))
    assert f"| {spec['name']} | {spec['model']} | {shown} |\n" in card


FORMS = [{}, {"policy": "mlp", "activation": "tanh"}, {"policy": "mlp", "activation": "relu"}]


@pytest.mark.parametrize("form", FORMS, ids=["decomposed", "tanh", "relu"])
def test_a_loaded_router_decides_byte_for_byte_the_same(
    make_outcomes, make_router, tmp_path: Path, form: dict[str, str]
) -> None:
    outcomes = make_outcomes(n=30, models=3, hops=3)
    router = make_router(outcomes, **form)
    router.save(tmp_path / "r", CURVE, "card")
    loaded = Router.load(tmp_path / "r")
    assert loaded.info == router.info.model_copy(
        update={"weights_sha256": sha256_file(tmp_path / "r" / "router.safetensors")}
    )
    assert type(loaded.policy) is type(router.policy)
    for stage in range(7):
        vectors = (outcomes.embeddings[:, 0], outcomes.embeddings[:, 2])
        ask = (*vectors, stage, outcomes.spent[:, 1], 0.3)
        assert loaded.scores(*ask).tobytes() == router.scores(*ask).tobytes()
    for alpha in (0.0, 0.3, 1.0):
        assert (loaded.follow(outcomes, alpha) == router.follow(outcomes, alpha)).all()
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "README.md",
        "learning_curve.json",
        "router.json",
        "router.safetensors",
    ]
    assert json.loads((tmp_path / "r" / "learning_curve.json").read_text()) == CURVE


def test_saving_again_replaces_and_saving_is_repeatable(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    router = Router.load(saved)
    router.save(saved, CURVE, model_card(router.info))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_folder_of_others_is_not_written(make_outcomes, make_router, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"router\.json"):
        make_router(make_outcomes()).save(tmp_path, CURVE, "card")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def truncate(folder: Path) -> None:
    path = folder / "router.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flip(folder: Path) -> None:
    path = folder / "router.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def foreign(folder: Path) -> None:
    path = folder / "router.safetensors"
    path.write_bytes(b"not safetensors")
    described = json.loads((folder / "router.json").read_text())
    described["weights_sha256"] = sha256_file(path)
    (folder / "router.json").write_text(json.dumps(described))


def huge(folder: Path) -> None:
    """A file that claims more than it holds on disk."""
    with (folder / "router.json").open("r+b") as file:
        file.truncate(LARGEST + 1)


def describe(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        described = json.loads((folder / "router.json").read_text())
        if value is None:
            del described[key]
        else:
            described[key] = value
        (folder / "router.json").write_text(json.dumps(described))

    return change


def weights(name: str, value: Callable[[np.ndarray], np.ndarray] | None) -> Callable[[Path], None]:
    def change(named: dict[str, np.ndarray]) -> None:
        array = named.pop(name)
        if value is not None:
            named[name] = np.asarray(value(array))  # not numpy's scalars

    return lambda folder: rewrite(folder, change)


def scalar(array: np.ndarray) -> np.ndarray:
    """Its first number, as an array without dimensions."""
    return array.reshape(-1)[:1].reshape(())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "holds no router"),
        (lambda folder: (folder / "router.json").unlink(), "holds no router"),
        (lambda folder: (folder / "router.json").write_text('{"format'), r"router\.json cannot"),
        (
            lambda folder: (folder / "router.json").write_text("[]"),
            "its router.json is something else",
        ),
        (lambda folder: (folder / "router.safetensors").unlink(), "missing or not the file"),
        (truncate, "missing or not the file"),
        (flip, "missing or not the file"),
        (foreign, "not a router's weights"),
        (describe("format_version", 3), r"router format 3, this version \(.*\) reads 2"),
        (describe("format_version", 1), r"router format 1, this version \(.*\) reads 2"),
        (describe("format_version", None), "holds no router: its router.json is something else"),
        (describe("moves", "sideways"), r"router\.json: moves"),
        (describe("policy", "oracle"), r"router\.json: policy"),
        (describe("policy", "mlp"), "not a router's weights"),
        (describe("policy", None), r"router\.json: policy"),
        (describe("hops", None), r"router\.json: hops"),
        (describe("secret", 1), r"router\.json: secret"),
        (describe("hops", 3), "quality has shape"),
        (describe("hops", 10**9), r"router\.json: hops"),
        (describe("models", []), r"router\.json: models"),
        (describe("models", ["A", "B", "x\n\x1b[31m"]), r"router\.json: models"),
        (describe("alpha_range", [0, -1]), r"router\.json: alpha_range"),
        (describe("cost_unit_usd", 0), r"router\.json: cost_unit_usd"),
        (describe("cost_unit_usd", "NaN"), r"router\.json: cost_unit_usd"),
        (lambda folder: (folder / "router.json").write_text("[" * 100_000), "cannot be read"),
        (huge, "no router has that many"),
        (describe("models", ["A", "B"]), "dimensions says 7 actions, 2 models have 5"),
        (describe("dimensions", {}), "dimensions lacks 'embedding'"),
        (
            describe("dimensions", {"embedding": 5, "state": 13, "actions": 7}),
            r"query\.mean has shape \(4,\), expected \(5,\)",
        ),
        (
            describe("dimensions", {"embedding": 4, "state": 14, "actions": 7}),
            "dimensions says a state of 14",
        ),
        (weights("quality", None), "not a router's weights"),
        (weights("task_bias", None), "not a router's weights"),
        *(
            (weights(name, change), f"{name} has shape")
            for name in ("quality", "cost")
            for change in (
                lambda a: a[0],
                lambda a: a[1:],
                lambda a: a[:, 1:],
                lambda a: a[:, :, 1:],
            )
        ),
        (weights("tau", lambda a: a.reshape(1)), "tau has shape"),
        (weights("tau", lambda a: a * 0), "tau is 0, and has to be above 0"),
        (weights("query.scale", lambda a: a * 0), r"query\.scale is 0, and has to be above 0"),
        (weights("tau", lambda a: -a), "tau is -0.5, and has to be above 0"),
        (weights("task_weight", lambda a: a[1:]), "task_weight has shape"),
        (weights("task_weight", lambda a: a[:, 1:]), "task_weight has shape"),
        (weights("task_bias", lambda a: a[1:]), "has shape"),
        (weights("task_bias", lambda a: a[None]), "task_bias has shape"),
        (weights("centres", lambda a: a[:, 1:]), "centres has shape"),
        (weights("centres", lambda a: a[0]), "has shape"),
        (weights("query.components", lambda a: a[:, 1:]), r"query\.components has shape"),
        (weights("query.components", scalar), "(has shape|a router's shapes)"),
        (weights("context.components", lambda a: a[1:]), "has shape"),
        (weights("context.components", scalar), "(has shape|a router's shapes)"),
        (weights("query.mean", lambda a: a[1:]), r"query\.mean has shape"),
        (weights("query.mean", scalar), "(has shape|a router's shapes)"),
        (weights("context.mean", lambda a: a[1:]), r"context\.mean has shape"),
        (weights("query.scale", lambda a: a.reshape(1)), r"query\.scale has shape"),
        (weights("centres", scalar), "(has shape|a router's shapes)"),
        (weights("quality", lambda a: a * np.float32(np.nan)), "finite float32"),
        (weights("quality", lambda a: a.astype(np.float64)), "finite float32"),
    ],
)
def test_what_is_not_a_whole_router_is_refused_in_one_line(
    saved: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(saved)
    with pytest.raises(HierRouterError, match=message) as caught:
        Router.load(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (describe("policy", "decomposed"), "not a router's weights"),
        (describe("activation", "gelu"), r"router\.json: activation"),
        (describe("hops", 3), "stage has shape"),
        (weights("stage", None), "not a router's weights"),
        (weights("stage", lambda a: a[0]), "(stage|first_weight) has shape"),
        (weights("stage", scalar), "(has shape|a router's shapes)"),
        (weights("first_weight", lambda a: a[:, 1:]), "first_weight has shape"),
        (weights("second_bias", lambda a: a[1:]), "has shape"),
        (weights("action_weight", lambda a: a[1:]), "action_weight has shape"),
        (weights("projection.components", lambda a: a[:, 1:]), r"projection\.components has shape"),
        (weights("projection.components", scalar), "(has shape|a router's shapes)"),
        (weights("projection.mean", lambda a: a[1:]), r"projection\.mean has shape"),
        (weights("projection.scale", lambda a: a.reshape(1)), r"projection\.scale has shape"),
        (weights("stage", lambda a: a * np.float32(np.nan)), "finite float32"),
        (weights("stage", lambda a: a.astype(np.float64)), "finite float32"),
    ],
)
def test_what_is_not_a_whole_mlp_is_refused_in_one_line(
    saved_mlp: Path, damage: Callable[[Path], object], message: str
) -> None:
    test_what_is_not_a_whole_router_is_refused_in_one_line(saved_mlp, damage, message)


def test_damage_is_told_from_what_never_was(saved: Path) -> None:
    flip(saved)
    with pytest.raises(DamagedFileError):
        Router.load(saved)


@pytest.mark.parametrize("kind", ["saved", "saved_mlp"])
def test_loading_needs_neither_stable_baselines_nor_torch(kind: str, request) -> None:
    saved = request.getfixturevalue(kind)
    code = (
        "import sys, pathlib, numpy as np\n"
        "from hierrouter.learning.router import Router\n"
        f"router = Router.load(pathlib.Path({str(saved)!r}))\n"
        "seen = np.zeros((1, 4), np.float32)\n"
        "router.scores(seen, seen, 0, np.zeros(1), 0.1)\n"
        "heavy = {'torch', 'stable_baselines3', 'sb3_contrib', 'gymnasium', 'sklearn',"
        " 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("policy", ["decomposed", "mlp"])
def test_scores_are_masked_log_probabilities(make_outcomes, make_router, policy: str) -> None:
    outcomes = make_outcomes(n=20, models=3, hops=3)
    query = outcomes.embeddings[:, 0]
    for moves in ("paper", "early_exit"):
        router = make_router(outcomes, moves=moves, policy=policy)
        allowed = allowed_actions(3, 3, moves)
        for stage, path in enumerate([(), (0,), (1,), (2,), (0, 0), (2, 1), (1, 2)]):
            at = outcomes.contexts.index(path)
            ask = (query, outcomes.embeddings[:, at], stage, outcomes.spent[:, at], 0.2)
            scores = router.scores(*ask)
            assert scores.shape == (20, 7)
            assert (np.isfinite(scores) == allowed[len(path)]).all()
            np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("policy", ["decomposed", "mlp"])
def test_what_is_not_possible_at_present_only_leaves_the_choice(
    make_outcomes, make_router, policy: str
) -> None:
    outcomes = make_outcomes(n=20, models=3, hops=3)
    router = make_router(outcomes, policy=policy)
    ask = (outcomes.embeddings[:, 0], outcomes.embeddings[:, 1], 1, outcomes.spent[:, 1], 0.2)
    whole = router.scores(*ask)
    among = np.array([True, False, False, True, True, True, True])
    part = router.scores(*ask, among)
    # ACCEPT, the last, is of no use to these moves.
    assert (np.isfinite(part) == (among & (np.arange(7) < 6))).all()
    kept = np.flatnonzero(among)[:-1]
    # The others keep their proportions.
    gained = part[:, kept] - whole[:, kept]
    np.testing.assert_allclose(gained, np.broadcast_to(gained[:, :1], gained.shape), atol=1e-5)


def brute_force(router: Router, outcomes: Outcomes, alpha: float) -> list[int]:
    """Walks each query alone, by the definition of contexts and routes."""
    routes = outcomes.routes(router.info.moves).paths
    taken = []
    for query in range(len(outcomes)):
        path: tuple[int, ...] = ()
        spent = 0.0
        while True:
            at = outcomes.contexts.index(path)
            bare, embedding = outcomes.embeddings[query, [0, at], None]
            # Where one is: nowhere yet, or after so many analyses, the last by this model.
            stage = 1 + (len(path) - 1) * len(outcomes.models) + path[-1] if path else 0
            scores = router.scores(bare, embedding, stage, np.array([spent]), alpha)[0]
            action = int(np.argmax(scores))
            model, solve = action // 2, action % 2 == 1
            if solve:
                taken.append(routes.index((*path, model)))
                break
            spent += outcomes.analyze_cost[query, at, model]
            path = (*path, model)
    return taken


@pytest.mark.parametrize("policy", ["decomposed", "mlp"])
@pytest.mark.parametrize("moves", ["paper", "early_exit"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_follow_is_the_walk_by_argmax(make_outcomes, make_router, moves, hops, policy) -> None:
    outcomes = make_outcomes(n=60, models=3, hops=hops, seed=hops)
    lengths = set()
    for seed in range(4):
        router = make_router(outcomes, moves=moves, seed=seed, policy=policy)
        for alpha in (0.0, 0.4):
            taken = router.follow(outcomes, alpha)
            assert taken.tolist() == brute_force(router, outcomes, alpha)
            lengths |= {len(outcomes.routes(moves).paths[column]) for column in taken}
    assert lengths == ({hops} if moves == "paper" else set(range(1, hops + 1)))


def test_mean_reward_is_that_of_the_routes_taken(make_outcomes, make_router) -> None:
    outcomes = make_outcomes(n=15)
    router = make_router(outcomes)
    table = outcomes.routes("early_exit")
    by_hand = [
        np.mean(
            [
                table.quality[query, column] - alpha * table.cost[query, column] / 0.5
                for query, column in enumerate(brute_force(router, outcomes, alpha))
            ]
        )
        for alpha in (0.0, 0.7)
    ]
    contexts = RecordedContexts(outcomes, outcomes.states(router.policy.state), 0.5)
    np.testing.assert_allclose(mean_reward(router, contexts, (0.0, 0.7)), by_hand)


def with_range(router: Router) -> Router:
    return Router(router.info.model_copy(update={"alpha_range": (0.2, 0.8)}), router.policy)


@pytest.mark.parametrize("asked", [0.0, 0.5, 9.0])
def test_a_decomposed_policy_is_asked_at_any_alpha(make_outcomes, make_router, asked) -> None:
    outcomes = make_outcomes(n=8)
    router = with_range(make_router(outcomes))
    assert router.info.alpha_of(asked) == asked
    query = outcomes.embeddings[:, 0]
    quality, cost = router.policy.predicted(router.policy.state(query, query), np.zeros(8, int))
    worth = (quality - asked * cost)[:, :4]
    scores = router.scores(query, query, 0, np.zeros(8), asked)[:, :4]
    assert (scores.argmax(axis=1) == worth.argmax(axis=1)).all()
    # Differences of log-probabilities are differences in worth, by tau.
    np.testing.assert_allclose(
        scores - scores[:, :1], (worth - worth[:, :1]) / router.policy.tau, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("asked", "used"), [(9.0, 0.8), (0.0, 0.2), (0.5, 0.5), (0.8, 0.8)])
def test_an_mlp_decides_at_the_alpha_it_was_trained_for(
    make_outcomes, make_router, asked, used
) -> None:
    outcomes = make_outcomes(n=8)
    router = with_range(make_router(outcomes, policy="mlp"))
    assert router.info.alpha_of(asked) == used
    ask = (outcomes.embeddings[:, 0], outcomes.embeddings[:, 0], 0, np.zeros(8))
    assert (router.scores(*ask, asked) == router.scores(*ask, used)).all()


def test_another_pool_or_encoder_is_refused(make_outcomes, make_router) -> None:
    outcomes = make_outcomes()
    router = make_router(outcomes)
    for other in (
        replace(outcomes, models=("B", "A")),
        make_outcomes(hops=3),
        make_outcomes(models=3),
    ):
        with pytest.raises(ConfigError, match="routes over A, B with 2 hops"):
            router.follow(other, 0.1)
    with pytest.raises(ConfigError, match="embeddings 4 wide, the tree's are 6 wide"):
        router.follow(make_outcomes(width=6), 0.1)


def test_the_hash_of_a_query_is_short_and_its_own() -> None:
    assert len(query_hash("gsm8k/17")) == 16
    assert query_hash("gsm8k/17") != query_hash("gsm8k/18")

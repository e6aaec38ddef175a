"""The decomposed policy: its decision is the brute-force optimum of its own heads, whatever may be
asked and whatever a cost unit is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tests.routers import arbitrary_info, arbitrary_policy

from hierrouter.config import TrainingConfig
from hierrouter.errors import DamagedFileError
from hierrouter.files import sha256_file
from hierrouter.learning.actions import ACCEPT, TIE, allowed_actions, best_of
from hierrouter.learning.answers import shown
from hierrouter.learning.ascent import HeadsExtractor
from hierrouter.learning.heads import Heads
from hierrouter.learning.rests import Rests
from hierrouter.learning.router import Router
from hierrouter.learning.stages import Stages, depth_of, stage_count, stage_of
from hierrouter.routes.outcomes import Outcomes, context_paths

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 5


def heads(models: int = 2, hops: int = 2, seed: int = 0, moves: str = "early_exit") -> Heads:
    policy = arbitrary_policy(WIDTH, models, hops, seed=seed, moves=moves)
    assert isinstance(policy, Heads)
    return policy


def router_of(policy: Heads, models: int, hops: int, moves: str = "early_exit") -> Router:
    return Router(arbitrary_info("ABCDEFGH"[:models], hops, policy, moves=moves), policy)


def contexts(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    query, context = rng.normal(size=(2, n, WIDTH)).astype(np.float32)
    return query, context


def arbitrary_answers(n: int, stages: Stages, stage: int, seed: int) -> np.ndarray | None:
    """What n queries' answers at this stage show; none where there is none yet."""
    if stage < stages.before:
        return None
    count = len(stages.answered[stage - stages.before][1])
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(n, count, 4)) ** 2
    return shown(signals, rng.integers(0, 2, size=(n, count)), stages.most_answers)


def exact_values(
    policy: Heads, query, context, stage: int, alpha: float, answers=None
) -> np.ndarray:
    """q - alpha * c of every action, N x A, one number at a time and in double precision."""
    state = policy.state(query, context, answers).astype(np.float64)
    quality, cost = policy.quality[stage].astype(float), policy.cost[stage].astype(float)
    actions = range(len(quality))
    return np.array(
        [
            [row @ quality[action] - alpha * (row @ cost[action]) for action in actions]
            for row in state
        ]
    )


def exact_changes(
    policy: Heads, stages: Stages, query, context, stage: int, alpha: float, answers, mask
) -> np.ndarray:
    """What it changes that those who may do nothing by this mask cannot be asked later, N x A.

    Up to four models every subset has numbers of its own; of those that differ only in who cannot
    be asked again anyway the first counts.
    """
    rests = Rests(stages)
    state = policy.state(query, context, answers).astype(np.float64)
    found = np.zeros((len(state), len(mask)))
    may = stages.allowed[stage]
    left = frozenset(
        model
        for model in range(stages.models)
        for pair in [slice(2 * model, 2 * model + 2)]
        if (may & mask)[pair].any() or not may[pair].any()
    )
    everyone = frozenset(range(stages.models))
    if left == everyone:
        return found
    hand = stages.answered[stage - stages.before][1] if stage >= stages.before else ()
    for number, (where, action) in enumerate(rests.calls):
        if where != stage or (not left and not stages.answered):
            continue
        busy = {*hand, *([action // 2] if action % 2 else [])}
        if left - busy == everyone - busy:
            continue
        limit = next(
            place
            for place, (who, hops) in enumerate(rests.limits)
            if who - busy == left - busy and (hops == stages.hops or not left - busy)
        )
        quality = policy.rest_quality[limit, number].astype(float)
        cost = policy.rest_cost[limit, number].astype(float)
        found[:, action] = state @ quality - alpha * (state @ cost)
    return found


def test_logits_are_quality_less_alpha_times_cost_over_tau() -> None:
    policy = heads(models=2, hops=3)
    query, context = contexts(5)
    alpha = np.array([0.0, 0.1, 1.0, 20.0, 1000.0])
    stage = np.array([0, 1, 2, 3, 4])
    got = policy.logits(policy.state(query, context), np.zeros(5), alpha, stage)
    for row in range(5):
        here = slice(row, row + 1)
        exact = exact_values(policy, query[here], context[here], int(stage[row]), alpha[row])
        expected = exact[0] / float(policy.tau)
        np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-4 * (1 + alpha[row]))


def test_what_is_spent_already_changes_nothing() -> None:
    router = router_of(heads(), 2, 2)
    query, context = contexts(6)
    free, dear = (router.scores(query, context, 1, np.full(6, usd), 0.4) for usd in (0.0, 50.0))
    assert free.tobytes() == dear.tobytes()


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_decision_is_the_optimum_of_its_own_heads(data) -> None:
    models = data.draw(st.integers(1, 4), "models")
    hops = data.draw(st.integers(1, 3), "hops")
    moves = data.draw(st.sampled_from(["early_exit", "paper", "cascade", "escalate"]), "moves")
    policy = heads(models, hops, data.draw(st.integers(0, 10_000), "seed"), moves)
    router = router_of(policy, models, hops, moves)
    stages = Stages(models, hops, moves)
    stage = data.draw(st.integers(0, len(stages) - 1), "stage")
    alpha = data.draw(st.one_of(st.sampled_from([0.0, 1.0, 1000.0]), st.floats(0, 1000)), "alpha")
    actions = 2 * models + 1
    if stage < stages.before:
        allowed = allowed_actions(models, hops, moves)[depth_of(stage, models)]
        allowed[ACCEPT] = False
    else:
        allowed = stages.allowed[stage]
    asked = data.draw(st.sets(st.integers(0, models - 1), min_size=1), "models asked")
    mask = np.zeros(actions, bool)
    mask[ACCEPT] = True
    for model in asked:
        mask[[2 * model, 2 * model + 1]] = True
    # Some of what is left is forbidden, too; never the last.
    for action in data.draw(st.sets(st.integers(0, actions - 1)), "forbidden"):
        without = mask.copy()
        without[action] = False
        if (without & allowed).any():
            mask = without
    possible = mask & allowed
    drawn = data.draw(st.integers(0, 10_000), "contexts")
    query, context = contexts(4, drawn)
    answers = arbitrary_answers(4, stages, stage, drawn)
    scores = router.scores(query, context, stage, np.zeros(4), alpha, mask, answers)
    chosen = best_of(scores)
    exact = exact_values(policy, query, context, stage, alpha, answers)
    exact += exact_changes(policy, stages, query, context, stage, alpha, answers, mask)
    best = np.where(possible, exact, -np.inf).max(axis=1)
    assert possible[chosen].all()
    assert np.isneginf(scores[:, ~possible]).all()
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)
    # Single precision: what is closer than this is equal.
    tie = float(policy.tau) * TIE + 2e-5 * (1 + alpha)
    assert (exact[np.arange(4), chosen] >= best - tie).all()


@pytest.mark.parametrize("tau", [0.001, TrainingConfig().temperature, 10.0])
def test_whatever_the_temperature_a_hundredth_decides(tau: float) -> None:
    """Up to the highest that may be set: log-probabilities are compared after dividing by it."""
    policy = replace(heads(models=4, hops=1), tau=np.asarray(tau, np.float32))
    router = router_of(policy, 4, 1, "direct")
    query, _ = contexts(300)
    exact = exact_values(policy, query, query, 0, 0.3)[:, 1:-1:2]
    ranked = np.sort(exact, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 0.01
    chosen = best_of(router.scores(query, query, 0, np.zeros(300), 0.3)) // 2
    assert clear.sum() > 250
    assert (chosen == exact.argmax(axis=1))[clear].all()


def random_outcomes(models: int, hops: int, n: int, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    shape = (n, len(context_paths(models, hops)), models)
    return Outcomes(
        query_ids=tuple(f"q/{k}" for k in range(n)),
        tasks=np.array(["ab"[k % 2] for k in range(n)]),
        train=np.zeros(n, bool),
        folds=np.zeros(n, np.int64),
        models=tuple("ABCDEFGH"[:models]),
        hops=hops,
        metric="accuracy",
        embeddings=rng.normal(size=(*shape[:2], WIDTH)).astype(np.float32),
        analyze_cost=rng.uniform(0.1, 1, shape),
        solve_cost=rng.uniform(0.1, 1, shape),
        solve_quality=rng.integers(0, 2, shape).astype(float),
    )


@pytest.mark.parametrize("moves", ["early_exit", "paper"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 40.0])
def test_a_route_is_a_chain_of_such_decisions(moves: str, alpha: float) -> None:
    models, hops = 3, 3
    policy = heads(models, hops, seed=8)
    outcomes = random_outcomes(models, hops, n=25, seed=1)
    taken = router_of(policy, models, hops, moves).follow(outcomes, alpha)
    paths = outcomes.routes(moves).paths  # type: ignore[arg-type]
    allowed = allowed_actions(models, hops, moves)  # type: ignore[arg-type]
    for number, column in enumerate(taken):
        path: tuple[int, ...] = ()
        query = outcomes.embeddings[number : number + 1, 0]
        while True:
            context = outcomes.contexts.index(path)
            seen = outcomes.embeddings[number : number + 1, context]
            values = exact_values(policy, query, seen, stage_of(path, models), alpha)[0]
            action = int(np.where(allowed[len(path)], values, -np.inf).argmax())
            path = (*path, action // 2)
            if action % 2:
                break
        assert paths[column] == path


def test_the_task_of_a_query_changes_no_decision() -> None:
    outcomes = random_outcomes(3, 2, n=40, seed=3)
    router = router_of(heads(3, 2), 3, 2)
    for alpha in (0.0, 0.2, 1.0):
        renamed = replace(outcomes, tasks=outcomes.tasks[::-1])
        unheard = replace(outcomes, tasks=np.array(["new"] * 40))
        taken = router.follow(outcomes, alpha)
        assert (router.follow(renamed, alpha) == taken).all()
        assert (router.follow(unheard, alpha) == taken).all()


def test_stepped_adds_what_lies_between_two_others() -> None:
    here, start = heads(seed=1), heads(seed=2)
    end = replace(start, quality=start.quality + 0.25, cost=start.cost * 3)
    moved = here.stepped(start, end)
    np.testing.assert_allclose(moved.quality, here.quality + 0.25, atol=1e-6)
    np.testing.assert_allclose(moved.cost, here.cost + 2 * start.cost, atol=1e-5)
    assert moved.features is here.features
    assert moved.tau == here.tau
    still = here.stepped(start, start)
    assert still.quality.tobytes() == here.quality.tobytes()
    assert still.cost.tobytes() == here.cost.tobytes()


def test_ppo_moves_the_same_policy_that_decides() -> None:
    policy = heads(models=2, hops=3)
    query, context = contexts(5)
    state, stage = policy.state(query, context), np.arange(5)
    lam = np.array([0.0, 0.1, 0.3, 0.5, 0.9])
    extractor = HeadsExtractor(policy.quality, policy.cost, float(policy.tau), [4, 4])
    seen = np.concatenate([state, np.full((5, 1), 0.3), lam[:, None], stage[:, None]], axis=1)
    with torch.no_grad():
        got = extractor.forward_actor(torch.tensor(seen, dtype=torch.float32)).numpy()
    expected = policy.logits(state, np.zeros(5), lam / (1 - lam), stage)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


def test_a_loaded_policy_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    policy = heads(models=3, hops=3, seed=4)
    arrays = policy.arrays()
    assert {name: each.shape for name, each in arrays.items()} == policy.shapes(
        Stages(3, 3, "early_exit"), WIDTH
    )
    router_of(policy, 3, 3).save(tmp_path / "r", [], "card")
    loaded = Router.load(tmp_path / "r").policy
    assert isinstance(loaded, Heads)
    assert loaded.arrays().keys() == arrays.keys()
    for name, each in loaded.arrays().items():
        assert each.shape == arrays[name].shape
        assert each.tobytes() == arrays[name].tobytes()


def rewritten(folder: Path, name: str, array: np.ndarray | None) -> None:
    """Alters or removes an array, and makes the description agree with the file."""
    file = folder / "router.safetensors"
    named = load_file(file)
    del named[name]
    save_file(named if array is None else named | {name: np.array(array, order="C")}, file)
    described = json.loads((folder / "router.json").read_text())
    described["weights_sha256"] = sha256_file(file)
    (folder / "router.json").write_text(json.dumps(described))


@pytest.mark.parametrize("name", sorted(heads().arrays()))
@pytest.mark.parametrize("how", ["missing", "cut", "number", "flat", "deeper", "nan", "double"])
def test_arrays_of_other_shapes_or_kinds_are_refused(tmp_path: Path, name: str, how: str) -> None:
    policy = heads()
    array = policy.arrays()[name]
    changed = {
        "missing": None,
        "cut": array[..., :-1] if array.ndim else array[None],
        "number": np.float32(1) if array.ndim else array[None],
        "flat": array.ravel() if array.ndim != 1 else array[:, None],
        "deeper": array[None],
        "nan": np.full_like(array, np.nan),
        "double": array.astype(np.float64),
    }[how]
    router_of(policy, 2, 2).save(tmp_path / "r", [], "card")
    rewritten(tmp_path / "r", name, changed)
    with pytest.raises(DamagedFileError):
        Router.load(tmp_path / "r")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    router_of(heads(), 2, 2).save(tmp_path / "r", [], "card")
    file = tmp_path / "r" / "router.safetensors"
    whole = file.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            Router.load(tmp_path / "r")
        described = json.loads((tmp_path / "r" / "router.json").read_text())
        described["weights_sha256"] = sha256_file(file)
        (tmp_path / "r" / "router.json").write_text(json.dumps(described))
        with pytest.raises(DamagedFileError):
            Router.load(tmp_path / "r")


@pytest.mark.parametrize(("models", "hops"), [(3, 2), (2, 3), (1, 2), (2, 1)])
def test_weights_of_another_pool_are_refused(tmp_path: Path, models: int, hops: int) -> None:
    router_of(heads(2, 2), 2, 2).save(tmp_path / "r", [], "card")
    described = json.loads((tmp_path / "r" / "router.json").read_text())
    described |= {"models": list("ABC"[:models]), "hops": hops}
    described["dimensions"]["actions"] = 2 * models + 1
    (tmp_path / "r" / "router.json").write_text(json.dumps(described))
    with pytest.raises(DamagedFileError, match="quality has shape"):
        Router.load(tmp_path / "r")


def test_stages_tell_how_many_have_analysed_and_who_was_last() -> None:
    models, hops = 3, 3
    stages = {path: stage_of(path, models) for path in context_paths(models, hops)}
    assert [stages[path] for path in ((), (0,), (1,), (2,))] == [0, 1, 2, 3]
    for first in range(models):
        assert [stages[first, last] for last in range(models)] == [4, 5, 6]
    assert set(stages.values()) == set(range(stage_count(models, hops)))
    for path, stage in stages.items():
        assert depth_of(stage, models) == len(path)
    np.testing.assert_array_equal(depth_of(np.arange(7), models), [0, 1, 1, 1, 2, 2, 2])
    assert [depth_of(stage_of((0,) * depth, 1), 1) for depth in range(4)] == [0, 1, 2, 3]

"""Outcomes that are missing stay missing: nothing is learnt from them, nothing judged by them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hierrouter.errors import HierRouterError
from hierrouter.learning.contexts import RecordedContexts
from hierrouter.learning.environment import Game, TreeVecEnv
from hierrouter.routes.imported.importing import import_outcomes
from hierrouter.routes.load import load_outcomes

if TYPE_CHECKING:
    from pathlib import Path

    from hierrouter.routes.outcomes import Outcomes


@pytest.fixture
def tree(saved, make_rows, config, tmp_path) -> Path:
    """120 queries, every third without one outcome, every twelfth with one alone."""
    rows = [
        row
        for position, row in enumerate(make_rows(120))
        if not (position // 3 % 3 == 0 and position % 3 == 2)
        and not (position // 3 % 12 == 0 and position % 3 == 1)
    ]
    return import_outcomes(saved(rows), tmp_path / "tree", config, partial=True)


def number(query_id: str) -> int:
    return int(query_id.split("/")[1])


def test_evaluation_takes_whole_queries_alone(tree: Path, capsys) -> None:
    found = load_outcomes(tree, "accuracy")
    assert {number(name) for name in found.query_ids} == {k for k in range(120) if k % 3}
    assert np.isfinite(found.solve_quality).all()
    said = " ".join(capsys.readouterr().err.split())
    left = sum(~found.train)
    assert "test queries left out, without the outcomes of all models" in said
    assert left < 120 - 80


def test_training_takes_queries_with_two_outcomes(tree: Path) -> None:
    whole, some = (load_outcomes(tree, "accuracy", whole=each) for each in (True, False))
    assert np.array_equal(some.embeddings[~some.train], whole.embeddings[~whole.train])
    numbers = {number(name) for name in np.array(some.query_ids)[some.train]}
    assert not any(k % 12 == 0 for k in numbers)
    assert any(k % 3 == 0 for k in numbers)
    local = some.models.index("local")
    partial = np.array([number(name) % 3 == 0 for name in some.query_ids])
    assert np.isnan(some.solve_quality[partial, 0, local]).all()
    assert np.isnan(some.solve_cost[partial, 0, local]).all()
    assert np.isfinite(some.solve_quality[~partial]).all()
    assert some.cost_unit_usd() == pytest.approx(0.003)


def played(outcomes: Outcomes) -> TreeVecEnv:
    contexts = RecordedContexts(outcomes, outcomes.embeddings, 1.0)
    return TreeVecEnv(Game(contexts, "direct", 0.0, 0.5), 64, 0)


def test_the_environment_forbids_what_is_not_known(tree: Path) -> None:
    some = load_outcomes(tree, "accuracy", whole=False)
    env = played(some)
    env.reset()
    draw = np.random.default_rng(0)
    forbidden = 0
    for _ in range(20):
        masks = env.action_masks()
        known = ~np.isnan(some.solve_quality[env._row, 0])
        assert np.array_equal(masks[:, 1:6:2], known)
        assert not masks[:, [0, 2, 4, 6]].any()
        forbidden += int((~known).sum())
        actions = np.array([draw.choice(np.flatnonzero(mask)) for mask in masks])
        env.step_async(actions)
        observation, reward, _, _ = env.step_wait()
        assert np.isfinite(reward).all()
        assert np.isfinite(observation).all()
    assert forbidden
    while env.action_masks()[:, 2 * some.models.index("local") + 1].all():
        env.reset()
    env.step_async(np.full(64, 2 * some.models.index("local") + 1))
    with pytest.raises(ValueError, match="mask"):
        env.step_wait()


def test_whole_outcomes_are_played_without_masks(tree: Path) -> None:
    whole = load_outcomes(tree, "accuracy")
    assert RecordedContexts(whole, whole.embeddings, 1.0).masks(np.arange(3)) is None
    holes = replace(whole, solve_quality=np.where(whole.solve_cost > 0.0025, np.nan, 1.0))
    masks = RecordedContexts(holes, holes.embeddings, 1.0).masks(np.arange(2))
    assert masks is not None
    assert masks.shape == (2, 7)


def test_nothing_that_can_be_compared_is_said(saved, make_rows, config, tmp_path) -> None:
    rows = [row for position, row in enumerate(make_rows(20)) if position % 3 == position // 3 % 3]
    tree = import_outcomes(saved(rows), tmp_path / "thin", config, partial=True)
    with pytest.raises(HierRouterError, match="no query has the outcomes of all models"):
        load_outcomes(tree, "accuracy")

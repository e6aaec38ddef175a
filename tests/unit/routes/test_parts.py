"""Parts of the training queries: near-duplicates stay together, whatever the seed."""

from __future__ import annotations

import numpy as np
import pytest

from hierrouter.routes.parts import PARTS, drawn_parts, parts_of


def test_folds_are_parts_and_no_seed_parts_near_duplicates() -> None:
    folds = np.array([7, 7, 1, 1, 3, 9, 9, 3])
    for seed in range(5):
        parts = parts_of(folds, seed)
        for each in np.unique(folds):
            assert len(np.unique(parts[folds == each])) == 1
        assert len(np.unique(parts)) == 4


def test_many_folds_are_put_together() -> None:
    assert np.unique(parts_of(np.arange(100) % 20, 0)).tolist() == list(range(PARTS))


@pytest.mark.parametrize("folds", [[0] * 11, [0, 1] * 6])
def test_where_folds_are_too_few_parts_are_drawn(folds: list[int]) -> None:
    one, two = (parts_of(np.array(folds), seed) for seed in (0, 1))
    assert one.tolist() == drawn_parts(len(folds), 0).tolist()
    assert one.tolist() != two.tolist()
    sizes = np.bincount(one)
    assert len(sizes) == PARTS
    assert sizes.max() - sizes.min() <= 1

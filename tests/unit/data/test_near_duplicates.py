"""Near-duplicates: the same groups as comparing every pair, however the texts come."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hierrouter.data.near_duplicates import NearDuplicates, leaders, shingles


def texts_like_each_other(count: int, seed: int) -> list[str]:
    """Texts of 0 to 40 words, and copies of them with some words replaced."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(200)]
    texts = []
    for _ in range(count):
        base = draw.choices(words, k=draw.randint(0, 40))
        for _ in range(3):
            copy = list(base)
            for _ in range(draw.randint(0, 3)):
                if copy:
                    copy[draw.randrange(len(copy))] = draw.choice(words)
            texts.append(" ".join(copy))
    draw.shuffle(texts)
    return texts


def by_all_pairs(texts: list[str], jaccard: float) -> list[int]:
    """What `leaders` promises, by comparing every pair."""
    sets = [shingles(text) for text in texts]
    first = list(range(len(texts)))
    for two, its in enumerate(sets):
        for one in range(two):
            if len(sets[one] & its) >= jaccard * len(sets[one] | its):
                low, high = sorted((first[one], first[two]))
                first = [low if each == high else each for each in first]
    return first


@pytest.mark.parametrize("jaccard", [0.5, 0.8, 0.95, 1.0])
def test_groups_are_those_of_all_pairs(jaccard: float) -> None:
    texts = texts_like_each_other(60, seed=7)
    found = leaders(texts, jaccard)
    assert found == by_all_pairs(texts, jaccard)
    assert len(set(found)) < len(texts)


def test_it_does_not_matter_how_texts_are_added() -> None:
    texts = texts_like_each_other(40, seed=8)
    bit_by_bit = NearDuplicates(0.8)
    for start in range(0, len(texts), 7):
        bit_by_bit.add(texts[start : start + 7])
    assert bit_by_bit.leaders(np.arange(len(texts))).tolist() == leaders(texts, 0.8)


def test_the_leader_is_the_one_that_comes_first_by_rank() -> None:
    near = NearDuplicates(0.8)
    near.add(["one two three four", "other words stand here", "one two three four"])
    assert near.leaders(np.array([2, 1, 0])).tolist() == [2, 1, 2]


def test_few_words_and_none() -> None:
    assert leaders(["", "a", "a b", "b a", "a b c", "a b", "?!", "a"], 0.8) == [
        *(0, 1, 2, 3, 4, 2, 0, 1)
    ]
    assert leaders([], 0.8) == []


def test_a_group_may_be_a_chain_and_a_template_one_group() -> None:
    words = [f"w{number}" for number in range(60)]
    chain = [" ".join([*(f"x{k}" for k in range(step)), *words[step:]]) for step in range(0, 60, 4)]
    assert set(leaders(chain, 0.8)) == {0}
    template = " ".join(f"t{number}" for number in range(100))
    assert set(leaders([f"{template} {number}" for number in range(3000)], 0.8)) == {0}

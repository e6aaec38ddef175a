"""Cheap and rarely wrong: a small saving on most queries, and a few that are lost outright.

A router that sends most queries to a cheaper model gains `saving` on each, and loses an answer on a
rare one. Here the two cancel: the true mean is 0, and whoever calls it better is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.evaluation.statistics.bounds import guarded, least_mean
from hierrouter.evaluation.statistics.crossed import Crossed, compare
from hierrouter.evaluation.statistics.intervals import Bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
STRICT = 1 - 0.05 / 110
"""Of the champion rule's tenth attempt."""
LOST = -1.0


@dataclass(frozen=True)
class Rare:
    """How a study is drawn."""

    queries: int
    lost: float
    """Share of all queries that are lost."""
    tasks: int = 6
    seeds: int = 1
    """Training seeds; they all lose the same queries."""
    one_task: bool = False
    """Whether all losses are in one task."""

    @property
    def name(self) -> str:
        """For the table."""
        extra = ", in one task" if self.one_task else ""
        extra += f", {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.queries} queries, {self.lost:.1%} lost{extra}"


RARE = (
    Rare(30, 0.02, tasks=1),
    Rare(30, 0.10, tasks=1),
    Rare(100, 0.01, tasks=1),
    Rare(100, 0.03, tasks=1),
    Rare(200, 0.01, tasks=1),
    Rare(300, 0.005),
    Rare(300, 0.01),
    Rare(300, 0.02),
    Rare(300, 0.05),
    Rare(300, 0.01, one_task=True),
    Rare(300, 0.02, one_task=True),
    Rare(300, 0.005, seeds=5),
    Rare(300, 0.02, seeds=5),
)


def rates(scenario: Rare, studies: int, resamples: int, seed: int) -> dict[str, float]:
    """Shares of studies: two-sided intervals that hold the truth, and bounds falsely above 0."""
    rng = np.random.default_rng([seed, RARE.index(scenario)])
    number = np.arange(scenario.queries) % scenario.tasks
    chance = np.full(scenario.queries, scenario.lost)
    if scenario.one_task:
        chance = np.where(number == 0, scenario.lost * scenario.queries / (number == 0).sum(), 0.0)
    lost = rng.random((scenario.queries, studies)) < chance[:, None]
    drawn = np.where(lost, LOST, scenario.lost / (1 - scenario.lost))
    bootstrap = Bootstrap(np.array([f"task{k}" for k in number]), resamples, seed)
    values = np.broadcast_to(drawn, (scenario.seeds, *drawn.shape))
    means = Crossed(bootstrap, scenario.seeds).overall(values)
    low, high = means.ends(CONFIDENCE)
    worst = np.full(studies, LOST)
    lower, _ = guarded(means, scenario.queries, worst, -worst, CONFIDENCE, seed)
    found = {
        "two-sided": float(((low <= 0) & (high >= 0)).mean()),
        "percentile": float(np.mean([each.at_least > 0 for each in compare(means, CONFIDENCE)])),
        "compare": float((lower > 0).mean()),
    }
    for name, confidence in (("champion", CONFIDENCE), ("10th try", STRICT)):
        found[name] = above_zero(drawn, confidence) if scenario.seeds == 1 else float("nan")
    return found


def found_gain(studies: int, resamples: int, seed: int) -> dict[str, float]:
    """How often a gain of 8 points is shown: 300 queries, right against wrong on 30% of them."""
    rng = np.random.default_rng([seed, len(RARE)])
    differs, won = rng.random((2, 300, studies))
    values = (differs < 0.3) * np.where(won < 0.5 + 0.04 / 0.3, 1.0, -1.0)
    means = Crossed(Bootstrap(np.array(["task"] * 300), resamples, seed), 1).overall(values[None])
    lower, _ = guarded(means, 300, np.full(studies, -1.0), np.ones(studies), CONFIDENCE, seed)
    return {
        "percentile": float(np.mean([each.at_least > 0 for each in compare(means, CONFIDENCE)])),
        "compare": float((lower > 0).mean()),
        "champion": float(np.mean([least_mean(each, -1.0, CONFIDENCE) > 0 for each in values.T])),
    }


def above_zero(values: NDArray[np.float64], confidence: float) -> float:
    """The share of studies, columns of `values`, in which the champion rule's bound is above 0."""
    # Studies with as many losses have the same bound.
    counts, studies = np.unique((values == LOST).sum(axis=0), return_index=True)
    above = {
        int(count): least_mean(values[:, study], LOST, confidence) > 0
        for count, study in zip(counts, studies, strict=True)
    }
    return float(np.mean([above[int(count)] for count in (values == LOST).sum(axis=0)]))


def print_rare(studies: int, resamples: int, seed: int) -> bool:
    """Prints a line a scenario; whether the bounds in use are wrong in no more than 5%."""
    print(
        f"\nA small saving, a rare loss, true mean 0.\n{'':36}two-sided  one-sided bound above 0\n"
        f"{'scenario':36} coverage  percentile  compare  champion  10th try"
    )
    good = True
    # What chance adds to a share of 5% at most, in so many studies.
    allowed = 1 - CONFIDENCE + 2.6 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / studies)
    for scenario in RARE:
        found = rates(scenario, studies, resamples, seed)
        fine = all(not found[name] > allowed for name in ("compare", "champion", "10th try"))
        good &= fine
        cells = [f"{found[name]:{width}.3f}" for name, width in WIDTHS.items()]
        shown = "".join(cells).replace("nan", "  -")
        print(f"{scenario.name:36}{shown}{'' if fine else '  FAIL'}")
    print(
        f"{'PASS' if good else 'FAIL'}: bounds in use above 0 in at most {allowed:.1%} of "
        f"{studies} studies; the first two columns are not judged"
    )
    shares = ", ".join(
        f"{name} {share:.3f}" for name, share in found_gain(studies, resamples, seed).items()
    )
    print(f"A gain of 8 points, 300 queries, 30% differ, is shown by: {shares}")
    return good


WIDTHS = {"two-sided": 9, "percentile": 12, "compare": 9, "champion": 10, "10th try": 10}

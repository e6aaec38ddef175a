"""Cascades with a threshold: A answers, and where its answer looks doubtful B answers afresh.

How doubtful an answer looks is one number that it shows of itself: the mean or the least
log-probability of its tokens. An answer that was cut off is always doubtful. Number and threshold
are chosen on the training queries, at each alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierrouter.routes.outcomes import SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hierrouter.routes.outcomes import Outcomes

DOUBTS = ("logprob_mean", "logprob_min")
"""The signals that may decide."""


@dataclass(frozen=True)
class Threshold:
    """When an answer is accepted."""

    signal: str
    """Which of `DOUBTS` decides."""
    least: float
    """It is accepted from here on; minus infinity: always, infinity: never."""

    def accepts(self, outcomes: Outcomes, model: int) -> NDArray[np.bool_]:
        """Which of the N direct answers of a model are accepted."""
        return confidence(outcomes, model, self.signal) >= self.least


def confidence(outcomes: Outcomes, model: int, signal: str) -> NDArray[np.float64]:
    """N values of a signal of a model's direct answers; minus infinity where one was cut off."""
    signals = outcomes.signals
    assert signals is not None
    shown = signals[:, 0, model, SIGNALS.index(signal)]
    finished = signals[:, 0, model, SIGNALS.index("finished")] > 0
    return np.where(finished & ~np.isnan(shown), shown, -np.inf)


def known_signals(outcomes: Outcomes, model: int) -> list[str]:
    """The signals by which a model's answers can be told apart."""
    if outcomes.signals is None:
        return []
    return [
        name
        for name in DOUBTS
        if np.isfinite(outcomes.signals[:, 0, model, SIGNALS.index(name)]).any()
    ]


def tune(train: Outcomes, first: int, second: int, alpha: float, unit: float) -> Threshold | None:
    """The threshold with the highest mean reward on the training queries.

    Every threshold between two neighbouring values is tried, as are always and never. Among equals
    the one that accepts most, which costs least.

    Args:
        train: the training queries.
        first: the model that answers first.
        second: the model that answers where the first one's answer is not accepted.
        alpha: quality given up for one cost unit saved.
        unit: dollars in one cost unit.

    Returns:
        None where the first model's answers show nothing of themselves.
    """
    quality, cost = train.solve_quality[:, 0], train.solve_cost[:, 0] / unit
    kept = quality[:, first] - alpha * cost[:, first]
    passed = quality[:, second] - alpha * (cost[:, first] + cost[:, second])
    best: tuple[float, float, Threshold] | None = None
    for signal in known_signals(train, first):
        shown = confidence(train, first, signal)
        values, group = np.unique(shown, return_inverse=True)
        # Gains of accepting every answer from the k-th value on, and of accepting none.
        gain = np.bincount(group, weights=kept - passed, minlength=len(values))
        above = np.append(gain[::-1].cumsum()[::-1], 0.0)
        at = int(above.argmax())
        if at == 0:
            least = -np.inf
        elif at == len(values):
            least = np.inf
        else:
            least = (values[at - 1] + values[at]) / 2 if np.isfinite(values[at - 1]) else values[at]
        share = float((shown >= least).mean())
        if best is None or (above[at], share) > best[:2]:
            best = float(above[at]), share, Threshold(signal, float(least))
    return None if best is None else best[2]

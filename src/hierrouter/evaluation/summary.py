"""What policies got, as numbers with intervals: means, differences to the router, curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hierrouter.evaluation.statistics.crossed import Crossed, compare
from hierrouter.evaluation.statistics.intervals import Bootstrap, Means, clip, intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hierrouter.evaluation.policies.arena import Played

MEASURES = ("quality", "cost", "relative_cost", "reward")
SAVING = 10.0
"""An alpha at which cost decides nearly alone, where the curve of a policy over alpha begins. With
a much larger one, errors of predicted costs would choose between models that cost the same."""
Plays = dict[float, dict[str, tuple["Played", ...]]]
"""By alpha, then by policy: what it got with each training seed, or once where it has none."""


@dataclass(frozen=True)
class Results:
    """What policies got on N queries."""

    plays: Plays
    tasks: NDArray[np.str_]
    """N task names."""
    cost_unit_usd: float
    resamples: int
    confidence: float
    seed: int
    """Of the bootstrap."""
    saving: Mapping[str, tuple[Played, ...]] = field(default_factory=dict)
    """By policy, what it got at alpha `SAVING`, where it was played there."""
    widened: float = 1.0
    """As `Crossed.widened`."""

    @cached_property
    def seeds(self) -> int:
        """S, the training seeds."""
        return max(len(each) for policies in self.plays.values() for each in policies.values())

    @cached_property
    def crossed(self) -> Crossed:
        """The resamples, the same for all that is averaged."""
        drawn = Bootstrap(self.tasks, self.resamples, self.seed)
        return Crossed(drawn, self.seeds, self.widened)

    def values(self, alpha: float, name: str) -> NDArray[np.float64]:
        """S x N x 3 of one policy: quality, relative cost and reward."""
        each = (self.saving if alpha == SAVING else self.plays[alpha])[name]
        quality = np.stack([result.quality for result in each])
        relative = np.stack([result.cost for result in each]) / self.cost_unit_usd
        values = np.stack([quality, relative, quality - alpha * relative], axis=2)
        return np.broadcast_to(values, (self.seeds, *values.shape[1:]))

    def policies(self, alpha: float) -> dict[str, dict[str, Any]]:
        """Every policy's measures at one alpha: mean and interval, and the shares of its routes."""
        columns = self._columns(alpha)
        found = self._named(list(self.plays[alpha]), self.crossed.overall(columns))
        for name, entry in found.items():
            entry["routes"] = shares(self.plays[alpha][name])
        return found

    def by_task(self, alpha: float) -> dict[str, dict[str, dict[str, Any]]]:
        """The same of each task's queries: by policy, then by task."""
        columns = self._columns(alpha)
        dearest = float(columns[:, :, 1::3].max())
        names = list(self.plays[alpha])
        worst = np.tile([0.0, dearest, -alpha * dearest], len(names))
        best = np.tile([1.0, 0.0, 1.0], len(names))
        found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
        for task, means in self.crossed.by_task(columns, worst, best).items():
            among = self.tasks == task
            for name, entry in self._named(names, means).items():
                routes = shares(self.plays[alpha][name], among)
                found[name][task] = {**entry, "routes": routes}
        return found

    def differences(self, alpha: float, mine: str = "router") -> dict[str, dict[str, Any]]:
        """One policy minus each other, query by query and seed by seed, with the p-value of none.

        `p` is that of the difference in reward.
        """
        others = [name for name in self.plays[alpha] if name != mine]
        own = self.values(alpha, mine)
        columns = np.concatenate([own - self.values(alpha, name) for name in others], axis=2)
        means = self.crossed.overall(columns)
        found = self._named(others, means, bounded=False)
        compared = compare(means, self.confidence)
        for position, name in enumerate(others):
            found[name]["p"] = compared[3 * position + 2].p
        return found

    def over_grid(self, mine: str, theirs: str) -> Means:
        """The difference in reward between two policies, averaged over the alpha grid."""
        column = np.mean(
            [
                self.values(alpha, mine)[:, :, 2:] - self.values(alpha, theirs)[:, :, 2:]
                for alpha in self.plays
            ],
            axis=0,
        )
        return self.crossed.overall(column)

    def by_alpha(self) -> list[dict[str, Any]]:
        """Policies and differences at every alpha."""
        return [
            {
                "alpha": alpha,
                "policies": self.policies(alpha),
                "differences": self.differences(alpha),
            }
            for alpha in self.plays
        ]

    def _columns(self, alpha: float) -> NDArray[np.float64]:
        """S x N x 3K: the three measures of the first policy, then of the others."""
        return np.concatenate([self.values(alpha, name) for name in self.plays[alpha]], axis=2)

    def _named(
        self, names: Sequence[str], means: Means, bounded: bool = True
    ) -> dict[str, dict[str, Any]]:
        """Intervals of every measure, by policy; dollars follow from the relative cost.

        `bounded` says that these are means of policies, and not differences.
        """
        found = intervals(means, self.confidence)
        if bounded:
            for position in range(len(names)):
                clip(found[3 * position], 0.0, 1.0)
                clip(found[3 * position + 1], 0.0, np.inf)
                clip(found[3 * position + 2], -np.inf, 1.0)
        dollars = intervals(
            Means(
                means.measured[1::3] * self.cost_unit_usd,
                means.resampled[:, 1::3] * self.cost_unit_usd,
            ),
            self.confidence,
        )
        return {
            name: {
                "quality": found[3 * position],
                "cost": clip(dollars[position], 0.0, np.inf) if bounded else dollars[position],
                "relative_cost": found[3 * position + 1],
                "reward": found[3 * position + 2],
            }
            for position, name in enumerate(names)
        }


def shares(each: Sequence[Played], among: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Share of the queries that take each route, over all seeds, largest first."""
    total: dict[str, float] = {}
    for result in each:
        for route, share in result.shares(among).items():
            total[route] = total.get(route, 0.0) + share / len(each)
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def curves(by_alpha: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """Each policy's means at every alpha at which it was played."""
    names = dict.fromkeys(name for at in by_alpha for name in at["policies"])
    return {
        name: [
            {
                "alpha": at["alpha"],
                **{key: at["policies"][name][key]["mean"] for key in MEASURES},
            }
            for at in by_alpha
            if name in at["policies"]
        ]
        for name in names
    }

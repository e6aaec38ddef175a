"""The outcome of an evaluation in words, and which policies a short table shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOOR = 30
"""Test queries below which no policy is called better or worse: a bootstrap of so few takes the
chance of the sample for the truth."""
HANDFUL = 0.05
"""Share of the queries up to which two policies differ in quality on only a handful."""
RIVALS = ("best_single", "best_path_per_task", "best_single_per_task")
"""The verdict is about the first two that were played: the best fixed model, and knowing the task
(among all routes, or else among direct answers)."""


def crossed_part(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The cross-fitted numbers, to be read as metrics.json is; none where there are none.

    Args:
        metrics: the content of metrics.json.
    """
    crossed = metrics.get("cross_fitted")
    return (
        None if crossed is None else {**metrics, **crossed, "n_test": crossed["n"], "crossed": True}
    )


def rivals(metrics: dict[str, Any]) -> list[str]:
    """The two baselines that the verdict is about.

    Args:
        metrics: the content of metrics.json.
    """
    return [name for name in RIVALS if name in metrics["policies"]][:2]


def handful(about: Mapping[str, Any], queries: int) -> str | None:
    """On how few queries two policies differ in quality, in words; none where they are many.

    Args:
        about: an entry of `family` in metrics.json.
        queries: N, behind it.
    """
    count = about["differing"]
    if count > HANDFUL * queries:
        return None
    return f"only {count:,}" if count else "none"


def compare(about: Mapping[str, Any], rival: str, confidence: float, queries: int) -> str:
    """One difference in reward, router minus rival, as a clause that follows "the router".

    Points are hundredths of reward. Better or worse is what stands after Holm's correction; the
    interval is that of this difference alone.

    Args:
        about: an entry of `family` in metrics.json.
        rival: its name.
        confidence: of the interval.
        queries: N, behind it.
    """
    mean, low, high = (100 * about["reward"][end] for end in ("mean", "low", "high"))
    if mean == low == high == 0:
        return f"gets exactly the reward of {rival}"
    span = f"{confidence:.0%} interval {_signed(low)} to {_signed(high)}"
    if about["better"]:
        return f"is {mean:.1f} points better than {rival} ({span})"
    if about["worse"]:
        return f"is {-mean:.1f} points worse than {rival} ({span})"
    alone = low > 0 or high < 0
    counted = f"; p {about['p_holm']:.2g} with all comparisons counted" if alone else ""
    if about.get("unproven"):
        few = handful(about, queries)
        counted = f"; one more query {'lost' if mean > 0 else 'won'} outright could undo it"
        if few is not None:
            counted = f"; quality differs on {few} of the queries"
    return f"cannot be told apart from {rival} (difference {_signed(mean)} points, {span}{counted})"


def verdict(metrics: dict[str, Any]) -> str:
    """The evaluation in one sentence: the router against its `rivals`, in reward at the headline.

    With fewer than `FLOOR` test queries it says that they are too few, whatever the intervals.

    Args:
        metrics: the content of metrics.json.
    """
    if metrics["n_test"] < FLOOR:
        measured = " and ".join(
            f"{_signed(100 * metrics['differences'][rival]['reward']['mean'])} points from {rival}"
            for rival in rivals(metrics)
        )
        return (
            f"Too few {_queries(metrics)} ({metrics['n_test']}) to tell whether the router is "
            f"better or worse than its baselines; {FLOOR} are the least. At alpha "
            f"{metrics['alpha']:g} its reward differs by {measured}, which may be chance."
        )
    clauses = [
        compare(metrics["family"][rival], rival, metrics["confidence"], metrics["n_test"])
        for rival in rivals(metrics)
    ]
    return (
        f"At alpha {metrics['alpha']:g}, over {metrics['n_test']} {_queries(metrics)}, the router "
        f"{'; it '.join(clauses)}."
    )


def lead(metrics: dict[str, Any]) -> str | None:
    """Whether routing pays, in a few words: whether the router beats the best single model.

    None where there are too few test queries to tell.

    Args:
        metrics: the content of metrics.json.
    """
    about = metrics["family"].get("best_single")
    if metrics["n_test"] < FLOOR or about is None:
        return None
    if about["better"]:
        return "Routing pays."
    return "Routing does not pay." if about["worse"] else "Routing is not shown to pay."


def in_parts(metrics: dict[str, Any], rival: str = "best_single") -> str | None:
    """What the router gains and saves: quality in points, and cost as a share of the rival's.

    The share takes the rival's mean cost for known. None where the rival was not played or costs
    nothing.

    Args:
        metrics: the content of metrics.json.
        rival: which it is compared with.
    """
    about = metrics["differences"].get(rival)
    if about is None or not metrics["policies"][rival]["relative_cost"]["mean"]:
        return None
    price = metrics["policies"][rival]["relative_cost"]["mean"]
    mean, low, high = (_signed(100 * about["quality"][end]) for end in ("mean", "low", "high"))
    # A bootstrap interval of a few queries may reach too far: nobody saves more than all.
    middle, *ends = (
        round(min(-100 * about["relative_cost"][end] / price, 100))
        for end in ("mean", "high", "low")
    )
    if ends[1] <= 0:  # the smaller first
        ends.reverse()
    first, last = (_saved(percent) for percent in ends)
    if ends[0] * ends[1] > 0:  # one word serves for both
        first = first.split("%")[0]
    span = f" ({first} to {last})" if any(ends) else ""
    return (
        f"Over {rival}: {mean} points of {metrics['metric']} ({low} to {high}), "
        f"{_saved(middle)}{span}."
    )


def _saved(percent: int) -> str:
    """A share of cost that is saved, or where it is below 0 spent."""
    if percent == 0:
        return "as dear"
    return f"{abs(percent)}% {'dearer' if percent < 0 else 'cheaper'}"


def headroom_said(metrics: dict[str, Any]) -> str | None:
    """What there is to be gained by routing, in one sentence; none where it was not measured.

    Args:
        metrics: the content of metrics.json.
    """
    told = metrics.get("headroom")
    if not told:
        return None
    gains = [
        f"{name} {_signed(100 * gain['mean'])} points "
        f"({_signed(100 * gain['low'])} to {_signed(100 * gain['high'])})"
        for name, gain in told.items()
        if name != "oracle" or "oracle_corrected" not in told
    ]
    return (
        f"Headroom: over best_single, {' and '.join(gains)} in reward "
        f"({metrics['confidence']:.0%} intervals)."
    )


def shortened(metrics: dict[str, Any], most: int = 3) -> tuple[list[str], int]:
    """The policies a short table shows, in order: of many of a kind only the best by reward.

    Args:
        metrics: the content of metrics.json.
        most: how many of `path:…`, and of `cascade:…`, are shown.

    Returns:
        Names of policies, and how many were left out.
    """
    policies = metrics["policies"]
    kinds = {
        name: name.split(":")[0] for name in policies if name.startswith(("path:", "cascade:"))
    }
    best = {
        kind: sorted(
            (name for name in kinds if kinds[name] == kind),
            key=lambda name: -policies[name]["reward"]["mean"],
        )[:most]
        for kind in kinds.values()
    }
    names: list[str] = []
    for name in policies:
        # Those of a kind stand where its first one does, best first.
        names += best.pop(kinds[name], []) if name in kinds else [name]
    return names, len(policies) - len(names)


def _signed(points: float) -> str:
    """A difference in points with its sign; no minus before a zero."""
    shown = f"{points:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def _queries(metrics: dict[str, Any]) -> str:
    return "cross-fitted queries" if metrics.get("crossed") else "test queries"

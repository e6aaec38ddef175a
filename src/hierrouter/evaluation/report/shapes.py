"""Outlines of marks: kinds of policies differ in shape as well as in colour."""

from __future__ import annotations


def shape(kind: str, x: float, y: float, scale: float = 1.0) -> str:
    """The outline of a mark.

    Args:
        kind: of the policy, as `plane.kind_of` says.
        x: of its middle.
        y: of its middle.
        scale: 1 at the headline alpha.

    Returns:
        The `d` of an SVG path.
    """
    r = 5.0 * scale
    if kind in ("single", "reference"):
        return f"M{x - r:g} {y - r:g}h{2 * r:g}v{2 * r:g}h{-2 * r:g}z"
    if kind in ("best", "recipe"):
        r *= 1.3
        return f"M{x:g} {y - r:g}l{r:g} {r:g} {-r:g} {r:g} {-r:g} {-r:g}z"
    if kind in ("knn", "ridge"):
        up = 1.2 * r * (1 if kind == "knn" else -1)
        return f"M{x:g} {y - up:g}L{x + 1.2 * r:g} {y + up:g}H{x - 1.2 * r:g}z"
    if kind == "one_hop":
        a, b = r * 1.2, r * 0.4
        return (
            f"M{x - b:g} {y - a:g}h{2 * b:g}v{a - b:g}h{a - b:g}v{2 * b:g}h{b - a:g}v{a - b:g}"
            f"h{-2 * b:g}v{b - a:g}h{b - a:g}v{-2 * b:g}h{a - b:g}z"
        )
    if kind == "cascade":
        r *= 0.6
        return f"M{x - r:g} {y - r:g}l{2 * r:g} {2 * r:g}M{x - r:g} {y + r:g}l{2 * r:g} {-2 * r:g}"
    r *= {"path": 0.45, "router": 1.2}.get(kind, 1.0)
    return f"M{x - r:g} {y:g}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"

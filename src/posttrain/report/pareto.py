"""Domination between points with several coordinates, and their Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def dominated(points: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """For each point off the Pareto front, the name of a point on it that dominates it; more is better.

    One point dominates another if it is at least as good in every coordinate and better in one. `ValueError` if points
    differ in length.
    """
    if len({len(values) for values in points.values()}) > 1:
        raise ValueError("points of the front must have the same number of figures")

    def dominates(one: str, other: str) -> bool:
        pairs = list(zip(points[one], points[other], strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    front = [name for name in points if not any(dominates(other, name) for other in points)]
    return {
        name: next(best for best in front if dominates(best, name))
        for name in points
        if name not in front
    }

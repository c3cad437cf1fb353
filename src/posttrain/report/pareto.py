"""Which methods another one beats: the Pareto front of several figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def dominated(points: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """For each point off the Pareto front, the name of one that dominates it; more is better in every place.

    One point dominates another if it is at least as good everywhere and better somewhere. The one named is itself
    on the front. `ValueError` when points differ in length.
    """
    if len({len(values) for values in points.values()}) > 1:
        raise ValueError("points of the front must have the same number of figures")

    def beats(one: str, other: str) -> bool:
        pairs = list(zip(points[one], points[other], strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    front = [name for name in points if not any(beats(other, name) for other in points)]
    return {
        name: next(best for best in front if beats(best, name))
        for name in points
        if name not in front
    }

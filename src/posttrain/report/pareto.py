"""Domination between points with several coordinates, and their Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from posttrain.measures.intervals import Interval


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

    return _beaten(points, dominates)


def shown_dominated(intervals: Mapping[str, Sequence[Interval]]) -> dict[str, str]:
    """`dominated` beyond the intervals of each coordinate.

    One dominates another if its interval lies above the other's in one coordinate, and below it in none. Where coordinates
    overlap this is no order: a front may be empty, and then one that is dominated itself is named.
    """

    def dominates(one: str, other: str) -> bool:
        pairs = list(zip(intervals[one], intervals[other], strict=True))
        above = any(a[0] > b[1] for a, b in pairs)
        return above and not any(a[1] < b[0] for a, b in pairs)

    return _beaten(intervals, dominates)


def _beaten(names: Iterable[str], dominates: Callable[[str, str], bool]) -> dict[str, str]:
    names = list(names)
    by = {name: [other for other in names if dominates(other, name)] for name in names}
    return {
        name: next((best for best in others if not by[best]), others[0])
        for name, others in by.items()
        if others
    }

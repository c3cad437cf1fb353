"""The table of benchmarks/growth.py shows whether time grows linearly and memory not at all."""

from __future__ import annotations

import pytest
from benchmarks.growth import fit_line, table


def test_a_line_is_found_with_its_start_and_slope() -> None:
    start, slope, off = fit_line([500, 1000, 2000, 4000], [1.5, 2.0, 3.0, 5.0])
    assert (start, slope, off) == pytest.approx((1.0, 0.001, 0.0), abs=1e-9)


def test_what_is_no_line_is_off_it_by_hand() -> None:
    """The line nearest to 1, 1 and 4 is 0.5, 2 and 3.5: the first point is off by all of it, the second by half."""
    start, slope, off = fit_line([1, 2, 3], [1.0, 1.0, 4.0])
    assert (start, slope) == pytest.approx((-1.0, 1.5))
    assert off == pytest.approx(1.0)


def test_the_table_shows_growth_of_time_and_memory() -> None:
    measured = {n: {"fetch": (0.5 + n, 100 + 2 * n)} for n in (1, 2, 4)}
    assert table(measured, 500).splitlines()[-1] == (
        "| fetch | 1.50 s, 102 | 2.50 s, 104 | 4.50 s, 108 | 0.50 s | 2.00 s | 0% | +6 (+6%) |"
    )

"""Claims about intervals: known values, edges, coverage, and the same answer every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from posttrain.evaluation.intervals import bootstrap_mean, jeffreys, percentiles, resample_means


def test_jeffreys_is_the_central_part_of_its_beta_distribution() -> None:
    low, high = jeffreys(3, 10, 0.95)
    assert beta.cdf([low, high], 3.5, 7.5) == pytest.approx([0.025, 0.975])
    assert (round(low, 3), round(high, 3)) == (0.093, 0.606)


def test_none_and_all_right_reach_the_ends() -> None:
    assert jeffreys(0, 20, 0.95)[0] == 0
    assert jeffreys(20, 20, 0.95)[1] == 1
    assert jeffreys(0, 0, 0.95) == (0, 1)


@given(st.integers(1, 300), st.data())
def test_jeffreys_holds_the_rate_mirrors_and_widens_with_the_level(
    count: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, count))
    low, high = jeffreys(right, count, 0.8)
    wide_low, wide_high = jeffreys(right, count, 0.95)
    assert 0 <= wide_low <= low <= right / count <= high <= wide_high <= 1
    assert jeffreys(count - right, count, 0.8) == pytest.approx((1 - high, 1 - low))


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes of 4"):
        jeffreys(5, 4, 0.95)


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_mean(values, 0.95, 4000)
    error = 1.96 * values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_bootstrap_of_a_constant_has_no_width() -> None:
    assert bootstrap_mean(np.full(7, 0.25), 0.95, 100) == pytest.approx((0.25, 0.25))


def test_bootstrap_gives_the_same_answer_twice_and_another_for_another_seed() -> None:
    values = np.arange(50.0)
    assert bootstrap_mean(values, 0.9, 300) == bootstrap_mean(values, 0.9, 300)
    assert bootstrap_mean(values, 0.9, 300) != bootstrap_mean(values, 0.9, 300, seed=1)


def test_columns_are_resampled_together() -> None:
    noisy = np.random.default_rng(0).normal(size=40)
    means = resample_means(np.stack([noisy, noisy + 0.5], axis=1), 300)
    assert means.shape == (300, 2)
    assert means[:, 1] - means[:, 0] == pytest.approx(np.full(300, 0.5))


def test_intervals_cover_as_often_as_they_say() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        values = generator.exponential(size=80)
        low, high = percentiles(resample_means(values, 300, seed=7), 0.8)
        covered += low <= 1.0 <= high
    assert 0.70 < covered / 300 < 0.88


def test_no_rows_cannot_be_resampled() -> None:
    with pytest.raises(ValueError, match="no rows"):
        resample_means(np.zeros(0), 10)

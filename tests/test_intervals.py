"""Claims about intervals: known values, edges, coverage, and the same answer every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from posttrain.measures.intervals import (
    Array,
    bootstrap_mean,
    effective_count,
    jeffreys,
    percentiles,
    rate_interval,
    resample_means,
)


def answers_of(
    models: int, questions: int, right: float, generator: np.random.Generator, alike: float = 0.0
) -> Array:
    """Answers (models, questions) of zeros and ones; `alike` is the correlation of two answers to one question."""
    chances = np.full(questions, right)
    if alike:
        strength = 1 / alike - 1
        chances = generator.beta(right * strength, (1 - right) * strength, size=questions)
    return (generator.uniform(size=(models, questions)) < chances).astype(np.float64)


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


# ------------------------------------------------------------------------------ several models


@given(st.integers(1, 200), st.data(), st.integers(1, 4))
def test_one_model_and_equal_models_have_the_plain_interval(
    count: int, data: st.DataObject, models: int
) -> None:
    right = data.draw(st.integers(0, count))
    answers = np.tile(np.arange(count) < right, (models, 1)).astype(np.float64)
    assert effective_count(answers) == pytest.approx(count)
    assert rate_interval(answers, 0.95) == pytest.approx(jeffreys(right, count, 0.95))


def test_models_that_err_independently_count_one_by_one() -> None:
    answers = answers_of(3, 5000, 0.8, np.random.default_rng(0))
    assert effective_count(answers) == pytest.approx(3 * 5000, rel=0.05)
    plain = jeffreys(float(answers.sum()), 3 * 5000, 0.95)
    assert rate_interval(answers, 0.95) == pytest.approx(plain, abs=3e-4)


def test_models_that_err_alike_count_as_the_design_effect_says() -> None:
    answers = answers_of(3, 20_000, 0.8, np.random.default_rng(1), alike=0.5)
    assert effective_count(answers) == pytest.approx(3 * 20_000 / (1 + 2 * 0.5), rel=0.03)


def test_a_single_error_does_not_make_models_independent() -> None:
    answers = np.ones((3, 100))
    answers[1, 7] = 0
    assert 100 < effective_count(answers) < 150
    assert rate_interval(answers, 0.95)[0] > rate_interval(np.ones((1, 100)), 0.95)[0] - 0.02


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_several_models_tell_as_much_as_one_at_least_and_hold_their_rate(
    models: int, questions: int, seed: int, right: float
) -> None:
    answers = answers_of(models, questions, right, np.random.default_rng(seed))
    count = effective_count(answers)
    assert questions <= count <= models * questions
    assert effective_count(1 - answers) == pytest.approx(count)
    low, high = rate_interval(answers, 0.8)
    assert 0 <= low <= answers.mean() <= high <= 1
    assert rate_interval(1 - answers, 0.8) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_rates_near_one_are_covered_as_often_as_said_where_the_bootstrap_covers_too_seldom() -> (
    None
):
    generator, right = np.random.default_rng(9), 0.97
    drawn = [answers_of(3, 100, right, generator, alike=0.5) for _ in range(4000)]
    resampled = resample_means(np.stack([answers.mean(axis=0) for answers in drawn], axis=1), 800)

    def covered(intervals: list[tuple[float, float]]) -> float:
        return float(np.mean([low <= right <= high for low, high in intervals]))

    clustered = covered([rate_interval(answers, 0.95) for answers in drawn])
    bootstrap = covered([percentiles(means, 0.95) for means in resampled.T])
    assert bootstrap < 0.92 < 0.93 < clustered < 0.97, (bootstrap, clustered)
    plain = covered([jeffreys(float(answers.sum()), 300, 0.95) for answers in drawn])
    assert plain < 0.88  # as if the models' answers were independent


# ------------------------------------------------------------------------------ bootstrap


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

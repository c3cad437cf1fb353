"""Intervals and p-values that count the noise of trainings and of test questions."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from posttrain.measures.crossed import crossed
from posttrain.measures.intervals import Array

Make = Callable[[np.random.Generator, int, float], Array]
QUESTIONS = 200
TRIALS = 1000


def effects(rng: np.random.Generator, seeds: int, of_seed: float) -> Array:
    """Differences of mean 0 between two methods: effects of the seed, of the question, and of both together."""
    return (
        rng.normal(0, of_seed, (seeds, 1))
        + rng.normal(0, 0.2, (1, QUESTIONS))
        + rng.normal(0, 0.4, (seeds, QUESTIONS))
    )


def verdicts(rng: np.random.Generator, seeds: int, of_seed: float) -> Array:
    """Differences between right and wrong answers of two equal methods, whose trainings differ."""
    skill = rng.normal(0, 1.5, (1, QUESTIONS))

    def answers() -> Array:
        trained = skill + rng.normal(0, of_seed, (seeds, 1))
        return (rng.random((seeds, QUESTIONS)) < 1 / (1 + np.exp(-trained))).astype(float)

    return answers() - answers()


def both_levels_resampled(values: Array, rng: np.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap over seeds and questions."""
    seeds, questions = values.shape
    times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=400) / seeds
    weights = rng.multinomial(questions, np.full(questions, 1 / questions), size=400) / questions
    low, high = np.quantile(((times @ values) * weights).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("make", [effects, verdicts])
@pytest.mark.parametrize("of_seed", [0.0, 0.03, 0.1, 0.3])
@pytest.mark.parametrize(("seeds", "least"), [(3, 0.91), (5, 0.93)])
def test_the_interval_covers_at_its_level(
    make: Make, of_seed: float, seeds: int, least: float
) -> None:
    """Of 4,000 trials each at 95 %: 0.926 to 0.968 with three seeds, 0.942 to 0.976 with five."""
    rng = np.random.default_rng(seeds)
    covered = 0
    for _ in range(TRIALS):
        found = crossed(make(rng, seeds, of_seed))
        assert found is not None
        low, high = found.interval(0.95)
        covered += low <= 0 <= high
    assert least <= covered / TRIALS <= 0.99


def test_a_bootstrap_of_both_levels_covers_too_rarely_with_three_seeds() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(TRIALS):
        low, high = both_levels_resampled(effects(rng, 3, 0.1), rng)
        covered += low <= 0 <= high
    assert covered / TRIALS < 0.89


def test_p_and_interval_agree() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        found = crossed(effects(rng, 3, 0.03) + 0.05)
        assert found is not None
        low, high = found.interval(1 - found.p)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6)


def test_where_only_seeds_differ_it_is_the_t_test_over_seeds() -> None:
    of_seed = np.array([0.02, 0.05, 0.03, 0.06])
    found = crossed(np.repeat(of_seed[:, None], 10, axis=1))
    assert found is not None
    assert found.p == pytest.approx(ttest_1samp(of_seed, 0.0).pvalue)


def test_where_seeds_agree_it_is_the_t_test_over_questions() -> None:
    of_question = np.random.default_rng(2).normal(0.1, 1, 30)
    found = crossed(np.repeat(of_question[None], 3, axis=0))
    assert found is not None
    assert found.p == pytest.approx(ttest_1samp(of_question, 0.0).pvalue)


def test_two_seeds_or_one_question_say_nothing_of_a_method() -> None:
    assert crossed(np.ones((2, 50))) is None
    assert crossed(np.ones((3, 1))) is None


def test_equal_policies_are_no_difference() -> None:
    found = crossed(np.zeros((3, 20)))
    assert found is not None
    assert found.p == 1.0 and found.interval(0.95) == (0.0, 0.0)

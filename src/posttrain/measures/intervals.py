"""Intervals for rates and means.

Rates: the Jeffreys interval, which is the equal-tailed interval of Beta(s + 1/2, n - s + 1/2) for s successes in n, with
its end at 0 if s = 0 and at 1 if s = n (Brown, Cai and DasGupta, Statistical Science 2001). Means and their differences:
the percentile bootstrap over examples (Efron and Tibshirani 1993, chapter 13).

Rates of S trained models on the same N questions: the answers to one question form a cluster, so n is the effective
sample size n* and s is the rate times n*, like Korn and Graubard (Survey Methodology 1998) do for the Clopper-Pearson
interval. Franco, Little, Louis and Slud (Journal of Survey Statistics and Methodology 2019) compare seven intervals of
that form. In their simulations Wilson's and that of a uniform prior do best and Jeffreys' is little worse, but all cover
too rarely if the effect of clustering is estimated from the sample without correction; `effective_count` corrects it.

The intervals describe the same trained models on other test questions. None covers other seeds of training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Array = NDArray[np.float64]
Interval = tuple[float, float]

BOOTSTRAP_SEED = 0
_CHUNK = 250  # resamples at a time, to bound memory


def jeffreys(successes: float, count: float, level: float) -> Interval:
    """Interval of the rate successes / count; (0, 1) for a count of 0. Counts need not be whole numbers."""
    if not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count}")
    if count == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    a, b = successes + 0.5, count - successes + 0.5
    low = 0.0 if successes == 0 else float(betaincinv(a, b, tail))
    high = 1.0 if successes == count else float(betaincinv(a, b, 1 - tail))
    return low, high


def effective_count(answers: Array) -> float:
    """Effective sample size n* of answers (S, N), each 0 or 1, of S models to the same N questions.

    n* = N p (1 - p) / mean_i (y_i - p)^2, where y_i is the mean over the models on question i, and p the mean of all.

    n* is the number of independent answers that tell as much about the rate. It lies between N (one model, models with
    equal answers, or a rate of 0 or 1) and S N (independent answers). Like Jeffreys' prior, the estimate adds one
    question, half of which all models answer correctly and half wrongly: otherwise a few errors can suggest by chance
    that the models err independently.
    """
    models, count = answers.shape
    of_question = np.append(answers.mean(axis=0), [1.0, 0.0])
    weights = np.append(np.ones(count), [0.5, 0.5])
    rate = np.average(of_question, weights=weights)
    variance = np.average((of_question - rate) ** 2, weights=weights)
    return float(count * np.clip(rate * (1 - rate) / variance, 1, models))


def rate_interval(answers: Array, level: float) -> Interval:
    """Jeffreys interval of the rate of ones among answers (S, N) of S models to the same N questions."""
    count = effective_count(answers)
    return jeffreys(float(answers.mean()) * count, count, level)


def weighted_rate_interval(
    rates: Sequence[tuple[float, float, float]], level: float, draws: int = 20_000
) -> Interval:
    """Interval of sum weight * rate / sum of weights over separate samples, each (rate, count, weight).

    Central in draws from posteriors like those of Jeffreys' intervals, whose prior's half success and half failure the
    samples share by weight: that of one sample is `jeffreys`, up to the draws. With a whole prior for each of three samples
    of 50 with a rate of 0.005, a 95 % interval covers 82 % of the time, with a share 95 %.
    """
    generator, total = np.random.default_rng(BOOTSTRAP_SEED), sum(w for _, _, w in rates)
    drawn = np.zeros(draws)
    for rate, count, weight in rates:
        share = weight / total
        right, wrong = rate * count + share / 2, (1 - rate) * count + share / 2
        drawn += share * generator.beta(right, wrong, draws)
    low, high = percentiles(drawn, level)
    return (
        0.0 if all(rate == 0 for rate, _, _ in rates) else low,
        1.0 if all(rate == 1 for rate, _, _ in rates) else high,
    )


def resample_means(values: Array, resamples: int, seed: int = BOOTSTRAP_SEED) -> Array:
    """Column means of bootstrap samples of the rows: (N,) or (N, M) to (resamples,) or (resamples, M).

    Columns share the resampled rows, so differences between columns are paired; so are the results of two calls with
    equal N and seed.
    """
    count = len(values)
    if count == 0:
        raise ValueError("cannot resample no rows")
    generator = np.random.default_rng(seed)
    uniform = np.full(count, 1 / count)
    means = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        # A mean depends only on how often each row is resampled.
        times = generator.multinomial(count, uniform, size=size).astype(np.float64)
        means.append(times @ values / count)
    return np.concatenate(means)


def percentiles(statistics: Array, level: float) -> Interval:
    """The central interval at `level` of resampled statistics, (resamples,) to (low, high)."""
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(
    values: Array, level: float, resamples: int, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Bootstrap interval of the mean of values (N,)."""
    return percentiles(resample_means(values, resamples, seed), level)

"""Intervals for rates and means.

Rates: Jeffreys, the equal-tailed interval of Beta(s + 1/2, n - s + 1/2) for s successes in n, with
the end at 0 or 1 when s = 0 or s = n (Brown, Cai and DasGupta, Statistical Science 2001). Means,
and what is computed from means: percentile bootstrap over examples (Efron and Tibshirani 1993,
chapter 13).

Rates of S trained models on the same N questions: answers to one question are a cluster, so n is the effective sample
size n* and s is the rate times n* (as Korn and Graubard, Survey Methodology 1998, do for the Clopper-Pearson interval).
Franco, Little, Louis and Slud (Journal of Survey Statistics and Methodology 2019) compare seven intervals of that form:
Wilson's and that of a uniform prior do best in their simulations, Jeffreys' little worse, and all cover too seldom when
the effect of clustering is taken from the sample as it stands; see `effective_count` for what is done about that.

All intervals say how far the result depends on which examples were drawn. None covers the seeds of
training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Array = NDArray[np.float64]
Interval = tuple[float, float]

BOOTSTRAP_SEED = 0
_CHUNK = 250  # resamples at a time, to bound memory


def jeffreys(successes: float, count: float, level: float) -> Interval:
    """Interval of the rate successes / count; (0, 1) when nothing was counted.

    Counts need not be whole: an effective sample size is not.
    """
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
    """How many independent answers tell as much of the rate as answers (S, N), each 0 or 1, of S models to N questions.

    n* = N p (1 - p) / mean_i (y_i - p)^2 with y_i the mean over the models on question i and p that of all. One more
    question, half of it answered right by all models and half wrong by all, stands among them, as in Jeffreys' prior:
    without it a few errors say by chance that models err independently. Never below N, which one model has, or equal
    ones, or a rate of 0 or 1; at most S N, which independent answers have.
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


def resample_means(values: Array, resamples: int, seed: int = BOOTSTRAP_SEED) -> Array:
    """Column means of bootstrap samples of the rows: (N,) or (N, M) to (resamples,) or (resamples,
    M).

    Columns share their resampled rows, so differences between columns are paired, and so are the
    results of two calls with equal N and seed.
    """
    count = len(values)
    if count == 0:
        raise ValueError("cannot resample no rows")
    generator = np.random.default_rng(seed)
    uniform = np.full(count, 1 / count)
    means = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        # How often each row is drawn is all that a mean needs.
        times = generator.multinomial(count, uniform, size=size).astype(np.float64)
        means.append(times @ values / count)
    return np.concatenate(means)


def percentiles(statistics: Array, level: float) -> Interval:
    """The central `level` of resampled statistics, (resamples,) to (low, high)."""
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(
    values: Array, level: float, resamples: int, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Interval of the mean of values (N,)."""
    return percentiles(resample_means(values, resamples, seed), level)

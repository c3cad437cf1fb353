"""Inference on a training method, whose trainings and test questions are both samples.

The differences d_si between two methods, for training s (a seed) and question i, have the two-way model with random effects

    d_si = mu + a_s + b_i + e_si,        var(mean) = var(a) / S + var(b) / N + var(e) / (S N)

With the mean squares of seeds, questions and rest, M_a, M_b and M_e, the unbiased estimate of that variance is

    V = (M_a + M_b - M_e) / (S N)

and (mean - mu) / sqrt(V) is compared with Student's t at Satterthwaite's degrees of freedom (Biometrics Bulletin 1946;
Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). With few seeds V can fall below its first or its second
part alone, which is then taken with its own degrees of freedom.

In simulations a 95 % interval covers 93 to 97 % of the time with three seeds, and 94 to 98 % with five. The percentile
bootstrap of both levels is no substitute: three resampled seeds vary too little (86 %; `tests/test_crossed.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from posttrain.measures.intervals import Array, Interval

LEAST_SEEDS = 3  # with two, one degree of freedom is left, and the interval covers too rarely


@dataclass(frozen=True, slots=True)
class Crossed:
    """A mean over seeds and questions, its standard error over both, and the degrees of freedom of that error."""

    mean: float
    error: float
    freedom: float

    def interval(self, level: float) -> Interval:
        """The central interval of the mean at `level`."""
        reach = self.error * float(student.ppf((1 + level) / 2, self.freedom))
        return self.mean - reach, self.mean + reach

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis that the mean is 0."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * float(student.sf(abs(self.mean) / self.error, self.freedom))


def crossed(values: Array) -> Crossed | None:
    """The mean of values (S, N) of S seeds and N questions; None for fewer than `LEAST_SEEDS` seeds or two questions."""
    seeds, questions = values.shape
    if seeds < LEAST_SEEDS or questions < 2:
        return None
    mean = values.mean()
    of_seed, of_question = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = values - of_seed - of_question + mean
    freedoms = np.array([seeds - 1, questions - 1, (seeds - 1) * (questions - 1)], dtype=float)
    squares = np.array(
        [
            questions * ((of_seed - mean) ** 2).sum(),
            seeds * ((of_question - mean) ** 2).sum(),
            (rest**2).sum(),
        ]
    )
    parts = squares / freedoms / values.size * np.array([1, 1, -1])
    variance, least = parts.sum(), parts[:2].argmax()
    if variance > parts[least]:
        freedom = variance**2 / (parts**2 / freedoms).sum()
    else:
        variance, freedom = parts[least], freedoms[least]
    return Crossed(float(mean), float(np.sqrt(variance)), float(freedom))

"""Paired tests of changes, and a correction for multiple tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import permutation_test

from posttrain.measures.intervals import Array

PERMUTATIONS = 9999
DIGITS = 9
SEED = 0


def sign_flip_p(differences: Array, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """Two-sided p-value, by flipping signs, of the hypothesis that paired differences (N,) have mean 0.

    The permutation test of Fisher (1935): exact over all 2^N patterns of signs if there are at most `permutations`, else
    over that many random patterns and the observed one.
    """
    # Equal rewards averaged over seeds differ in the last bits. Differences of 0 have no sign and are dropped.
    rounded = differences.round(DIGITS)
    informative = rounded[rounded != 0]
    if len(informative) < 2:
        return 1.0
    result = permutation_test(
        (informative,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that the probability of any false rejection is bounded.

    Holm, Scandinavian Journal of Statistics 1979: the i-th smallest of n is multiplied by n - i + 1, and then raised to
    the largest one before it.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted

"""Paired tests of a change, and what several of them say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import permutation_test

from posttrain.measures.intervals import Array

PERMUTATIONS = 9999
DIGITS = 9
SEED = 0


def sign_flip_p(differences: Array, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """Two-sided p-value of mean difference 0, of paired differences (N,), by flipping their signs.

    The permutation test of Fisher (1935): exact for all 2^N sign patterns if there are no more than
    `permutations`, else from that many drawn by `seed`, the observed one counted in.
    """
    # Means over seeds of equal rewards differ in the last bits; a difference of 0 is the same with either sign.
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
    """p-values adjusted for their number, so that the chance of any false rejection stays bounded.

    Holm, Scandinavian Journal of Statistics 1979: the i-th smallest of n is multiplied by n - i + 1,
    and none is made smaller than one before it.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted

"""Claims about paired tests and their correction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.measures.significance import holm, sign_flip_p

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_few_differences_are_tested_on_every_pattern_of_signs() -> None:
    differences = np.array([0.5, 0.25, -0.125, 1.0, 0.0])
    observed = abs(differences.sum())
    patterns = [
        abs(np.dot(signs, differences[:4])) for signs in itertools.product((-1, 1), repeat=4)
    ]
    share = np.mean([total >= observed for total in patterns])
    assert sign_flip_p(differences) == pytest.approx(share)


def test_equal_policies_do_not_differ() -> None:
    assert sign_flip_p(np.zeros(30)) == 1.0


def test_p_values_are_about_uniform_when_nothing_changed() -> None:
    generator = np.random.default_rng(0)
    drawn = [sign_flip_p(generator.normal(size=40), permutations=199) for _ in range(300)]
    assert 0.02 < np.mean(np.array(drawn) <= 0.05) < 0.09
    assert 0.4 < np.mean(np.array(drawn) <= 0.5) < 0.6


def test_a_clear_change_is_found_and_the_same_again() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1.0, size=400)
    first = sign_flip_p(differences)
    assert first < 0.001
    assert sign_flip_p(differences) == first


def test_holm_on_the_papers_kind_of_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@given(PROBABILITIES)
def test_adjusted_values_keep_the_order_and_are_between_p_and_bonferroni(
    p_values: list[float],
) -> None:
    adjusted = holm(p_values)
    for p, after in zip(p_values, adjusted, strict=True):
        assert p <= after <= 1
    smallest = min(range(len(p_values)), key=lambda index: p_values[index])
    assert adjusted[smallest] == pytest.approx(min(1.0, len(p_values) * p_values[smallest]))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [after for _, after in pairs] == sorted(after for _, after in pairs)

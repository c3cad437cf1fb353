"""Claims about the measures of a selector's choices, on pools small enough to count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.measures.choices import (
    by_edit,
    by_kind,
    headline_intervals,
    headlines,
    predict,
)


def made(kind: str, edit: str, reward: float, correct: bool) -> dict[str, Any]:
    return {"kind": kind, "edit": edit, "reward": reward, "correct": correct}


GOLD = made("gold", "gold", 1.0, True)
NOISE = made("plausible", "noise", 0.2, False)
FORMAT = made("plausible", "format", 0.9, True)
BROKEN = made("corrupted", "format_error", 0.0, False)

POOLS = [
    {"id": "a", "candidates": [NOISE, GOLD, BROKEN]},
    {"id": "b", "candidates": [GOLD, FORMAT, NOISE]},
    {"id": "c", "candidates": [BROKEN, NOISE, GOLD]},
    {"id": "d", "candidates": [NOISE, BROKEN, NOISE]},
]
# Chooses gold, the formatting variant, a broken one, noise.
LOGITS = np.log(np.array([[0.2, 0.6, 0.2], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))


def rows() -> list[dict[str, Any]]:
    return predict("test", POOLS, LOGITS, 0.5)


def test_the_highest_score_is_chosen_and_in_a_tie_the_first() -> None:
    assert [row["chosen"] for row in rows()] == [1, 1, 0, 0]
    assert [row["kind"] for row in rows()] == ["gold", "plausible", "corrupted", "plausible"]
    assert [row["chosen"] for row in predict("val", POOLS, np.zeros((4, 3)), 0.5)] == [0, 0, 0, 0]


def test_headlines_are_means_counted_by_hand() -> None:
    assert headlines(rows()) == pytest.approx(
        {
            "accuracy": 2 / 4,
            "reward": (1.0 + 0.9 + 0.0 + 0.2) / 4,
            "expected_reward": (0.64 + 0.85 + 0.30 + 0.15) / 4,
            "sample_accuracy": (0.6 + 0.9 + 0.25 + 0.0) / 4,
            # At temperature 0.5 the probabilities are the squares, normalised.
            "fitted_reward": (0.368 / 0.44 + 0.483 / 0.54 + 0.075 / 0.375 + 0.0625 / 0.375) / 4,
            "fitted_accuracy": (0.36 / 0.44 + 0.53 / 0.54 + 0.0625 / 0.375 + 0.0) / 4,
        },
        abs=1e-6,
    )


def test_every_interval_holds_its_value() -> None:
    values, intervals = headlines(rows()), headline_intervals(rows(), [0.8, 0.95], 500)
    for name, value in values.items():
        (low, high), (wide_low, wide_high) = intervals[name]["0.8"], intervals[name]["0.95"]
        assert wide_low <= low <= value <= high <= wide_high


def test_kinds_are_counted_as_offered_as_wanted_and_as_chosen() -> None:
    kinds = by_kind(rows(), POOLS, [0.95])
    assert set(kinds) == {"gold", "plausible", "corrupted"}
    plausible = kinds["plausible"]
    assert plausible["offered"] == pytest.approx(6 / 12, abs=1e-6)
    assert plausible["chosen"] == 0.5
    assert plausible["probability"] == pytest.approx((0.2 + 0.8 + 0.25 + 0.75) / 4, abs=1e-6)
    assert plausible["accuracy"] == 0.5
    assert plausible["reward"] == pytest.approx((0.9 + 0.2) / 2)
    assert sum(kind["probability"] for kind in kinds.values()) == pytest.approx(1, abs=1e-5)


def test_a_kind_never_chosen_has_no_accuracy() -> None:
    only_gold = predict("test", POOLS[:1], LOGITS[:1], 0.5)
    assert by_kind(only_gold, POOLS[:1], [0.95])["corrupted"]["accuracy"] is None


def test_edits_are_counted_apart() -> None:
    edits = by_edit(rows(), POOLS)
    assert edits["format"] == {"offered": pytest.approx(1 / 12, abs=1e-6), "chosen": 0.25}


def test_scores_that_are_not_numbers_are_an_error_that_names_the_question() -> None:
    bad = LOGITS.copy()
    bad[2, 1] = np.nan
    with pytest.raises(UserError, match="test c: the model's scores are not finite"):
        predict("test", POOLS, bad, 0.5)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.floats(-50, 50))
def test_a_common_shift_of_the_scores_changes_nothing(scores: list[float], shift: float) -> None:
    plain = predict("test", POOLS[:1], np.array([scores]), 0.5)[0]
    moved = predict("test", POOLS[:1], np.array([scores]) + shift, 0.5)[0]
    assert moved["expected_reward"] == pytest.approx(plain["expected_reward"], abs=1e-5)
    assert 0 <= plain["probability_correct"] <= 1

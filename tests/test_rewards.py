"""Rewards of pools: the scorer's verdicts, weighted; and the summary of pools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from workspace import ROOT

from posttrain.core.params import load_params
from posttrain.pools.rewards import reward_pool, summarise_pools
from posttrain.tasks import Candidate, get_task
from posttrain.tasks.finqa.prompt import render_answer

TASK = get_task("finqa")
WEIGHTS = load_params(ROOT / "params.yaml").reward.weights
EXAMPLE: dict[str, Any] = {
    "id": "hand",
    "question": "what is the growth of revenue?",
    "input_text": "revenue 120 100",
    "target_program": "subtract(120, 100), divide(#0, 100)",
    "literal_program": "subtract(120, 100), divide(#0, 100)",
    "target_answer": "0.2",
    "exe_ans": 0.2,
    "table": [["", "2019", "2018"], ["revenue", "120", "100"]],
    "references": {"A2": "revenue", "B2": "120", "C2": "100"},
    "operands": "literal",
    "tolerance": 0.01,
    "prompts": {"direct": "revenue 120 100: what is its growth?"},
}
GOLD = render_answer("subtract(120, 100), divide(#0, 100)", "0.2")


def made(text: str, kind: str = "plausible") -> Candidate:
    return Candidate(text, kind, "none")


def rewarded(*texts: str, weights: dict[str, float] = WEIGHTS) -> list[dict[str, Any]]:
    row = reward_pool(TASK, EXAMPLE, [made(text) for text in texts], weights)
    candidates: list[dict[str, Any]] = row["candidates"]
    return candidates


def test_the_reward_is_the_weighted_mean_of_the_parts() -> None:
    assert WEIGHTS == {
        "exact_match": 0.6,
        "numeric_close": 0.2,
        "program_valid": 0.1,
        "format_valid": 0.1,
        "satisfied": 0.6,
        "clauses": 0.3,
        "all_cases": 0.6,
        "same_output": 0.8,
        "share_of_cases": 0.2,
    }
    gold, wrong, misstated = rewarded(
        GOLD,
        render_answer("divide(120, 100)", "1.2"),
        render_answer("subtract(120, 100), divide(#0, 100)", "7"),
    )
    assert gold["reward"] == 1.0
    assert wrong["reward"] == pytest.approx(0.2)  # it executes and is in form
    assert misstated["reward"] == pytest.approx(0.8)  # all but the stated answer
    assert misstated["parts"] == {
        "exact_match": 1.0,
        "numeric_close": 0.0,
        "program_valid": 1.0,
        "format_valid": 1.0,
    }


def test_only_the_ratio_of_the_weights_counts() -> None:
    doubled = {name: 2 * weight for name, weight in WEIGHTS.items()}
    text = render_answer("divide(120, 100)", "0.2")
    assert rewarded(text, weights=doubled)[0]["reward"] == rewarded(text)[0]["reward"]


def test_the_tolerance_is_relative() -> None:
    texts = [render_answer("divide(1, 1)", answer) for answer in ("0.2019", "0.2021")]
    near, far = rewarded(*texts)
    assert near["parts"]["numeric_close"] == 1.0
    assert far["parts"]["numeric_close"] == 0.0


def test_unparseable_is_told_from_wrong() -> None:
    broken, wrong = rewarded(GOLD[:-1], render_answer("divide(120, 100)", "1.2"))
    assert broken["status"] == "unparseable" and wrong["status"] == "scored"
    assert broken["reward"] == 0.0 and not broken["correct"] and not wrong["correct"]


def test_a_row_keeps_id_prompt_and_candidates_in_order() -> None:
    row = reward_pool(TASK, EXAMPLE, [made("x", "corrupted"), made(GOLD, "gold")], WEIGHTS)
    assert row["id"] == "hand" and row["prompt"] == EXAMPLE["prompts"]["direct"]
    assert [candidate["kind"] for candidate in row["candidates"]] == ["corrupted", "gold"]
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_the_summary_counts_by_hand() -> None:
    pool = reward_pool(
        TASK,
        EXAMPLE,
        [made("x", "corrupted"), made(GOLD, "gold"), made(render_answer("add(1, 1)", "2"))],
        WEIGHTS,
    )["candidates"]
    summary = summarise_pools([pool, pool])
    assert summary["pools"] == 2 and summary["candidates"] == 6
    assert summary["correct_per_pool"] == 1.0
    assert summary["unparseable"] == 2 and summary["unscorable"] == 0
    assert summary["kinds"] == {"corrupted": 2, "gold": 2, "plausible": 2}
    assert summary["reward"] == pytest.approx({"corrupted": 0.0, "gold": 1.0, "plausible": 0.2})
    assert summary["gold_slots"] == {"1": 2}

"""Measures of a selector's choices, overall and by kind of candidate.

The choice is the candidate with the highest logit; of ties, the first. Under the policy p = softmax(logits), the expected
reward is sum_k p_k reward_k, and the probability of being correct is the sum of p_k over the correct candidates. Verdicts
and rewards come from data/pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from posttrain.core.errors import UserError
from posttrain.measures.intervals import Array, jeffreys
from posttrain.measures.named import DIGITS, Row, intervals, means, measured


def predict(split: str, pools: Sequence[Row], logits: Array) -> list[dict[str, Any]]:
    """One row per pool, with the choice and the policy's expected values, from logits (N, K).

    `UserError` names the first pool whose logits are not finite.
    """
    rows = []
    for pool, scores in zip(pools, logits.astype(np.float64), strict=True):
        if not np.isfinite(scores).all():
            raise UserError(f"{split} {pool['id']}: the model's scores are not finite")
        candidates = pool["candidates"]
        policy = softmax(scores)
        rewards = np.array([candidate["reward"] for candidate in candidates], dtype=np.float64)
        right = np.array([bool(candidate["correct"]) for candidate in candidates])
        chosen = int(scores.argmax())
        rows.append(
            {
                "id": pool["id"],
                "split": split,
                "chosen": chosen,
                "kind": candidates[chosen]["kind"],
                "edit": candidates[chosen]["edit"],
                "correct": bool(right[chosen]),
                "reward": float(rewards[chosen]),
                "expected_reward": round(float(policy @ rewards), DIGITS),
                "probability_correct": round(float(policy[right].sum()), DIGITS),
                "logits": [round(float(score), DIGITS) for score in scores],
            }
        )
    return rows


def softmax(scores: Array) -> Array:
    """Softmax of scores (K,)."""
    mass = np.exp(scores - scores.max())
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def headlines(predictions: Sequence[Row]) -> dict[str, float]:
    """The named measures of the predictions."""
    return means(measured(predictions))


def headline_intervals(
    predictions: Sequence[Row], levels: Sequence[float], resamples: int
) -> dict[str, dict[str, list[float]]]:
    """[low, high] of each named measure at each level."""
    return intervals(measured(predictions), levels, resamples)


def by_kind(
    predictions: Sequence[Row], pools: Sequence[Row], levels: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """For each kind of candidate, how often it is offered and chosen.

    offered            share of all candidates
    probability        mean over questions of the total probability of its candidates
    chosen             share of the questions, with Jeffreys intervals
    accuracy, reward   over the questions where it is chosen; None if there are none
    """
    offered = Counter(candidate["kind"] for pool in pools for candidate in pool["candidates"])
    mass: dict[str, float] = dict.fromkeys(offered, 0.0)
    for row, pool in zip(predictions, pools, strict=True):
        policy = softmax(np.array(row["logits"]))
        for probability, candidate in zip(policy, pool["candidates"], strict=True):
            mass[candidate["kind"]] += float(probability)
    count, total = len(predictions), sum(offered.values())
    result = {}
    for kind in sorted(offered):
        chosen = [row for row in predictions if row["kind"] == kind]
        worth = headlines(chosen) if chosen else {}
        result[kind] = {
            "offered": round(offered[kind] / total, DIGITS),
            "probability": round(mass[kind] / count, DIGITS),
            "chosen": round(len(chosen) / count, DIGITS),
            "chosen_intervals": {
                f"{level:g}": [round(end, DIGITS) for end in jeffreys(len(chosen), count, level)]
                for level in levels
            },
            **{name: worth.get(name) for name in ("accuracy", "reward")},
        }
    return result


def by_edit(predictions: Sequence[Row], pools: Sequence[Row]) -> dict[str, dict[str, float]]:
    """For each edit that produces candidates, its share of all candidates and of the chosen ones."""
    offered = Counter(candidate["edit"] for pool in pools for candidate in pool["candidates"])
    chosen = Counter(row["edit"] for row in predictions)
    total = sum(offered.values())
    return {
        edit: {
            "offered": round(offered[edit] / total, DIGITS),
            "chosen": round(chosen[edit] / len(predictions), DIGITS),
        }
        for edit in sorted(offered)
    }

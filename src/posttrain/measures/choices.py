"""Measures of a selector's choices, overall and by kind of candidate.

The choice is the candidate with the highest logit; of ties, the first. Under the policy p = softmax(logits / T), the
expected reward is sum_k p_k reward_k, and the probability of being correct is the sum of p_k over the correct candidates,
both at temperature T = 1 and at the fitted one (`measures.temperature`). Verdicts and rewards come from data/pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from posttrain.core.errors import UserError
from posttrain.measures.intervals import Array, jeffreys
from posttrain.measures.named import DIGITS, Row, intervals, means, measured
from posttrain.measures.temperature import point


def predict(
    split: str, pools: Sequence[Row], logits: Array, temperature: float
) -> list[dict[str, Any]]:
    """One row per pool, with the choice and the policy's expected values, from logits (N, K) and the fitted temperature.

    `UserError` names the first pool whose logits are not finite.
    """
    rows = []
    for pool, scores in zip(pools, logits.astype(np.float64), strict=True):
        if not np.isfinite(scores).all():
            raise UserError(f"{split} {pool['id']}: the model's scores are not finite")
        candidates = pool["candidates"]
        rewards = np.array([candidate["reward"] for candidate in candidates], dtype=np.float64)
        right = np.array([bool(candidate["correct"]) for candidate in candidates])
        chosen = int(scores.argmax())
        plain, fitted = softmax(scores), softmax(scores / temperature)
        rows.append(
            {
                "id": pool["id"],
                "split": split,
                "chosen": chosen,
                "kind": candidates[chosen]["kind"],
                "edit": candidates[chosen]["edit"],
                "correct": bool(right[chosen]),
                "reward": float(rewards[chosen]),
                "expected_reward": round(float(plain @ rewards), DIGITS),
                "probability_correct": round(float(plain[right].sum()), DIGITS),
                "expected_reward_fitted": round(float(fitted @ rewards), DIGITS),
                "probability_correct_fitted": round(float(fitted[right].sum()), DIGITS),
                "logits": [round(float(score), DIGITS) for score in scores],
            }
        )
    return rows


def softmax(scores: Array) -> Array:
    """Softmax of scores (..., K) over the last axis."""
    mass = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(mass / mass.sum(axis=-1, keepdims=True), dtype=np.float64)


def curve(
    pools: Sequence[Row], logits: Array, temperatures: Sequence[float]
) -> list[dict[str, float]]:
    """Expected accuracy and reward at each temperature, from logits (N, K); at 0 of the choice."""
    rewards, right = (
        np.array([[float(one[column]) for one in pool["candidates"]] for pool in pools])
        for column in ("reward", "correct")
    )
    scores = logits.astype(np.float64)
    chosen = np.eye(scores.shape[1])[scores.argmax(axis=1)]
    points = []
    for temperature in temperatures:
        policy = softmax(scores / temperature) if temperature > 0 else chosen
        accuracy, reward = ((policy * values).sum(axis=1).mean() for values in (right, rewards))
        points.append(point(temperature, accuracy, reward))
    return points


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

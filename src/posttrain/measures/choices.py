"""What a policy over candidate pools is worth, per example and in total.

The chosen candidate is the one with the highest logit (the first of equals). Over the N questions
of a split:

    accuracy             share of chosen candidates whose program is right (official execution)
    reward               mean reward of the chosen candidates
    reward_ratio         mean chosen reward / mean best reward of the pools; 1 = the best chosen
    expected_reward      mean over questions of sum_k p_k reward_k, p = softmax of the logits
    probability_correct  mean over questions of the probability of all right candidates together

Verdicts and rewards are those of data/rewards; nothing is scored again here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.core.errors import UserError
from posttrain.core.files import sha256_file
from posttrain.measures.intervals import (
    Array,
    Interval,
    jeffreys,
    percentiles,
    resample_means,
)

Row = Mapping[str, Any]

HEADLINES = ("accuracy", "reward", "reward_ratio", "expected_reward", "probability_correct")
DIGITS = 6


def evaluator_hash() -> str:
    """Changes whenever the definitions of this file do; predictions carry it."""
    return sha256_file(Path(__file__))


def predict(split: str, pools: Sequence[Row], logits: Array) -> list[dict[str, Any]]:
    """One row per pool: what was chosen, and what that is worth. `logits` is (N, K).

    `UserError` names the first pool whose logits are not finite.
    """
    rows = []
    for pool, scores in zip(pools, logits.astype(np.float64), strict=True):
        if not np.isfinite(scores).all():
            raise UserError(f"{split} {pool['id']}: the model's scores are not finite")
        candidates = pool["candidates"]
        policy = softmax(scores)
        rewards = np.array([made["reward"] for made in candidates], dtype=np.float64)
        right = np.array([bool(made["correct"]) for made in candidates])
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
                "best_reward": float(rewards.max()),
                "expected_reward": round(float(policy @ rewards), DIGITS),
                "probability_correct": round(float(policy[right].sum()), DIGITS),
                "logits": [round(float(score), DIGITS) for score in scores],
            }
        )
    return rows


def softmax(scores: Array) -> Array:
    """Probabilities of scores (K,)."""
    mass = np.exp(scores - scores.max())
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def headlines(predictions: Sequence[Row]) -> dict[str, float]:
    """The five figures of the module's docstring."""
    means = columns(predictions).mean(axis=0)
    return {name: round(float(value), DIGITS) for name, value in headlines_of(means).items()}


def headline_intervals(
    predictions: Sequence[Row], levels: Sequence[float], resamples: int
) -> dict[str, dict[str, list[float]]]:
    """[low, high] of each headline at each level: Jeffreys for accuracy, bootstrap for the rest."""
    resampled = headlines_of(resample_means(columns(predictions), resamples))
    right = sum(bool(row["correct"]) for row in predictions)
    result: dict[str, dict[str, list[float]]] = {}
    for name in HEADLINES:
        result[name] = {}
        for level in levels:
            if name == "accuracy":
                interval = jeffreys(right, len(predictions), level)
            else:
                interval = percentiles(resampled[name], level)
            result[name][f"{level:g}"] = _rounded(interval)
    return result


def by_kind(
    predictions: Sequence[Row], pools: Sequence[Row], levels: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """For each kind of candidate: how much of the pools it is, and how the policy treats it.

    offered       share of all candidates
    probability   mean probability of all candidates of the kind together
    chosen        share of the questions, with Jeffreys intervals
    accuracy, reward, reward_ratio   over the questions where it was chosen; null when it never was
    """
    offered = Counter(made["kind"] for pool in pools for made in pool["candidates"])
    mass: dict[str, float] = dict.fromkeys(offered, 0.0)
    for row, pool in zip(predictions, pools, strict=True):
        policy = softmax(np.array(row["logits"]))
        for probability, made in zip(policy, pool["candidates"], strict=True):
            mass[made["kind"]] += float(probability)
    count, total = len(predictions), sum(offered.values())
    result = {}
    for kind in sorted(offered):
        chosen = [row for row in predictions if row["kind"] == kind]
        means = headlines(chosen) if chosen else {}
        result[kind] = {
            "offered": round(offered[kind] / total, DIGITS),
            "probability": round(mass[kind] / count, DIGITS),
            "chosen": round(len(chosen) / count, DIGITS),
            "chosen_intervals": {
                f"{level:g}": _rounded(jeffreys(len(chosen), count, level)) for level in levels
            },
            **{name: means.get(name) for name in ("accuracy", "reward", "reward_ratio")},
        }
    return result


def by_edit(predictions: Sequence[Row], pools: Sequence[Row]) -> dict[str, dict[str, float]]:
    """For each edit that makes candidates: share of all candidates, and of the chosen ones."""
    offered = Counter(made["edit"] for pool in pools for made in pool["candidates"])
    chosen = Counter(row["edit"] for row in predictions)
    total = sum(offered.values())
    return {
        edit: {
            "offered": round(offered[edit] / total, DIGITS),
            "chosen": round(chosen[edit] / len(predictions), DIGITS),
        }
        for edit in sorted(offered)
    }


def columns(predictions: Sequence[Row]) -> Array:
    """(N, 5): correct, reward, best reward, expected reward, probability of right candidates."""
    names = ("correct", "reward", "best_reward", "expected_reward", "probability_correct")
    return np.array([[row[name] for name in names] for row in predictions], dtype=np.float64)


def headlines_of(means: Array) -> dict[str, Array]:
    """Headlines from means of the columns, (..., 5) to five arrays (...)."""
    return {
        "accuracy": means[..., 0],
        "reward": means[..., 1],
        "reward_ratio": ratio(means[..., 1], means[..., 2]),
        "expected_reward": means[..., 3],
        "probability_correct": means[..., 4],
    }


def ratio(chosen: Array, best: Array) -> Array:
    """chosen / best, elementwise; 1 where even the best is worth nothing."""
    some = best > 0
    return np.asarray(np.where(some, chosen / np.where(some, best, 1.0), 1.0), dtype=np.float64)


def _rounded(interval: Interval) -> list[float]:
    return [round(end, DIGITS) for end in interval]

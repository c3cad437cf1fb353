"""The reward of an answer, for every task: the weighted mean of its score's parts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from posttrain.core.errors import UserError


def reward(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """sum of weight * part / sum of weights, in [0, 1].

    weights: by name of the part; those of parts that the task does not offer are ignored. `UserError` for a part
    without a weight, for a weight that is negative or not finite, and if no weight is above 0.
    """
    total = 0.0
    weighted = 0.0
    for name, part in parts.items():
        weight = weights.get(name)
        if weight is None:
            raise UserError(
                f"params.yaml: reward.weights: no weight for {name!r}, a part of this task's reward "
                f"(named are {', '.join(weights)})"
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"reward weight {name} must be a number of 0 or more, not {weight}")
        total += weight
        weighted += weight * part
    if total <= 0:
        raise UserError(
            f"params.yaml: reward.weights: at least one of {', '.join(parts)} must be above 0"
        )
    return weighted / total

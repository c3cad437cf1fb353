"""The reward of a verdict, the same sum for every task: the weighted mean of four components."""

from __future__ import annotations

import math
from collections.abc import Mapping

from posttrain.core.errors import UserError

COMPONENTS = ("exact_match", "numeric_close", "program_valid", "format_valid")


def reward(components: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean of the components, in [0, 1]: sum of weight * component / sum of
    weights."""
    total = 0.0
    weighted = 0.0
    for name, weight in weights.items():
        if name not in components:
            raise UserError(f"reward weight {name!r} is not one of {', '.join(COMPONENTS)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"reward weight {name} must be a number of 0 or more, not {weight}")
        total += weight
        weighted += weight * components[name]
    if total <= 0:
        raise UserError("at least one reward weight must be above 0")
    return weighted / total

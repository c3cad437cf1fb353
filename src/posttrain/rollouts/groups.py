"""Rewards that are equal, up to the rounding of their sums and means.

The mean of six rewards of 0.2 is not 0.2 in float32. The difference is no advantage, but an optimizer that scales its
gradients, as Adam does, would follow it like one.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 5e-7  # half of the last digit with which rewards are stored


def all_equal(values: Tensor) -> Tensor:
    """Whether the values of each row are equal: (..., n) to (...), bool."""
    return values.amax(dim=-1) - values.amin(dim=-1) <= ROUNDING


def best(rewards: Tensor) -> Tensor:
    """Which rewards of each row are its highest: (..., n), bool."""
    return rewards >= rewards.amax(dim=-1, keepdim=True) - ROUNDING


def whiten(advantages: Tensor) -> Tensor:
    """Shift and scale to mean 0 and deviation 1 over all advantages; all 0 if they are equal."""
    if bool(all_equal(advantages.flatten())):
        return torch.zeros_like(advantages)
    return (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)

"""Exact policy gradient: the rewards of all K candidates are known, so nothing needs to be sampled.

    objective = sum_k policy(k) r_k - kl_coef KL(policy || SFT) + entropy_coef H

It is the limit that PPO, GRPO and RLOO approach with ever more samples: what they lose to it is variance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.params import Exact
from posttrain.core.training import Stats
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import (
    Batch,
    describe,
    entropy,
    expected_reward,
    kl_divergence,
    log_softmax,
)


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, config: Exact, generator: torch.Generator
) -> Batch:
    """Nothing is sampled."""
    return batch


def loss(output: SelectorOutput, batch: Batch, config: Exact) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    objective = expected_reward(log_policy, batch["rewards"]).mean()
    kl = kl_divergence(log_policy, batch["reference"]).mean()
    objective = objective - config.kl_coef * kl + config.entropy_coef * entropy(log_policy).mean()
    return -objective, describe(log_policy, batch)

"""RLOO (Ahmadian et al. 2024): REINFORCE with the mean reward of the other samples as baseline.

A_i = r_i - mean_{j != i} r_j over the samples of one question
objective = A log policy(a) - kl_coef KL(policy || SFT) + entropy_coef H
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.params import RLOO
from posttrain.core.training import Stats
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import (
    Batch,
    describe,
    entropy,
    kl_divergence,
    log_softmax,
    sample,
)


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, config: RLOO, generator: torch.Generator
) -> Batch:
    """Draw actions from the current policy; the advantage is the reward above the others' mean."""
    old = act()
    old_log_policy = log_softmax(old.logits)
    actions = sample(old_log_policy, config.samples, generator)
    returns = batch["rewards"].gather(1, actions)
    others = (returns.sum(dim=1, keepdim=True) - returns) / (config.samples - 1)
    advantages = returns - others
    return {**batch, "actions": actions, "advantages": advantages, "returns": returns}


def loss(output: SelectorOutput, batch: Batch, config: RLOO) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    actions, advantages = batch["actions"], batch["advantages"]
    objective = (advantages * log_policy.gather(1, actions)).mean()
    kl = kl_divergence(log_policy, batch["reference"]).mean()
    objective = objective - config.kl_coef * kl + config.entropy_coef * entropy(log_policy).mean()
    return -objective, {
        **describe(log_policy, batch),
        "zero_advantage": float((advantages == 0).all(dim=1).float().mean()),
    }

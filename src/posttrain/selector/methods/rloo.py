"""RLOO (Ahmadian et al. 2024): REINFORCE with the mean reward of the other samples as baseline.

A_i = r_i - mean_{j != i} r_j over the samples of one question
objective = A log policy(a) - kl_coef KL(policy || SFT) + entropy_coef H
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.loop import Stats
from posttrain.core.schema import AtLeastTwo
from posttrain.rollouts.groups import all_equal
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import (
    Batch,
    describe,
    entropy,
    kl_divergence,
    log_softmax,
    sample,
)
from posttrain.selector.settings import KLPenalised


class Settings(KLPenalised):
    samples: AtLeastTwo


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, settings: Settings, generator: torch.Generator
) -> Batch:
    """Sample actions from the current policy; the advantage is the reward minus the mean of the others."""
    old = act()
    old_log_policy = log_softmax(old.logits)
    actions = sample(old_log_policy, settings.samples, generator)
    returns = batch["rewards"].gather(1, actions)
    others = (returns.sum(dim=1, keepdim=True) - returns) / (settings.samples - 1)
    advantages = (returns - others).masked_fill(all_equal(returns)[:, None], 0.0)
    return {**batch, "actions": actions, "advantages": advantages, "returns": returns}


def loss(output: SelectorOutput, batch: Batch, settings: Settings) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    actions, advantages = batch["actions"], batch["advantages"]
    objective = (advantages * log_policy.gather(1, actions)).mean()
    kl = kl_divergence(log_policy, batch["reference"]).mean()
    objective = (
        objective - settings.kl_coef * kl + settings.entropy_coef * entropy(log_policy).mean()
    )
    return -objective, {
        **describe(log_policy, batch),
        "equal_rewards": float(all_equal(batch["returns"]).float().mean()),
    }
